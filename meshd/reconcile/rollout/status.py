"""Describe for people how far a rollout is. Pure.

`meshd.control.status` shows it in `meshd ps` and `meshd rollout status`.
"""

from collections.abc import Sequence

import msgspec

from meshd.model.canary import AnalysisResult, CanaryDecision
from meshd.model.desired import DesiredService
from meshd.model.replica import Replica
from meshd.model.replica_phase import ENDED
from meshd.reconcile.rollout.stages import current_stage, has_switched, stages, traffic_split


class RolloutStatus(msgspec.Struct, frozen=True):
    """Progress of one rollout; empty fields do not apply.

    - `new_revision`: the revision that is rolled out; empty while a failed one leaves.
    - `stage`: the current stage.
    - `analysis`: the evidence about its traffic so far.
    """

    new_revision: str = ""
    stage: str = ""
    analysis: str = ""


def rollout_status(
    service: DesiredService, replicas: Sequence[Replica], analysis: AnalysisResult | None
) -> RolloutStatus:
    """Return the progress of a service's rollout; all fields are empty without one."""
    rollout = service.rollout
    if service.adopted or not rollout.previous:
        return RolloutStatus()
    if rollout.is_rolling_back:
        leaving = any(r.revision != service.revision and r.phase not in ENDED for r in replicas)
        return RolloutStatus(stage="rolling back" if leaving else "")
    if rollout.is_done:
        return RolloutStatus()
    if not any(r.serves and r.revision == rollout.revision for r in replicas):
        return RolloutStatus(new_revision=rollout.revision)
    return RolloutStatus(
        new_revision=rollout.revision,
        stage=_describe_stage(service, replicas, analysis),
        analysis=_describe_analysis(service, analysis),
    )


def _describe_stage(
    service: DesiredService, replicas: Sequence[Replica], analysis: AnalysisResult | None
) -> str:
    rollout = service.rollout
    if has_switched(service):
        return "all requests, the old replicas are kept for a while"
    stage, all_stages = current_stage(service), stages(service)
    if stage is None and not any(r.revision != rollout.revision for r in replicas):
        return f"monitored for {service.spec.update.monitor:g} s"
    if stage is None:
        return "the rest replica by replica" if all_stages else "replica by replica"
    split = traffic_split(service, replicas, analysis)
    if split is None:
        return ""
    step = f"step {rollout.stage + 1} of {len(all_stages)}: " if len(all_stages) > 1 else ""
    share = dict(split.weights).get(rollout.revision, 0.0)
    matched = ", and those that `match` selects" if split.matches else ""
    return f"{step}{100 * share:.3g} % of the requests{matched}"


def _describe_analysis(service: DesiredService, analysis: AnalysisResult | None) -> str:
    stage = current_stage(service)
    if stage is None or not stage.analyzed:
        return ""
    if analysis is None or analysis.stage != service.rollout.stage:
        return ""
    passed = analysis.decision is CanaryDecision.PASS
    hold = f", held for {stage.hold:g} s" if stage.hold and passed else ""
    return f"{analysis.reason}{hold}"
