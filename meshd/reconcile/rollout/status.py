"""Where a rollout stands, in words for people. Pure."""

from collections.abc import Sequence

import msgspec

from meshd.model.canary import AnalysisResult
from meshd.model.desired import DesiredService
from meshd.model.replica import Replica
from meshd.model.replica_phase import ENDED
from meshd.reconcile.rollout.stages import current, split, stages, switched


class RolloutStatus(msgspec.Struct, frozen=True):
    """`stage` is the step that a rollout is at, and `trial` what the traffic has said in it so
    far; empty where there is nothing to say. `coming` is the revision that is being brought in;
    while one that failed leaves there is none."""

    coming: str = ""
    stage: str = ""
    trial: str = ""


def course(
    service: DesiredService, replicas: Sequence[Replica], verdict: AnalysisResult | None
) -> RolloutStatus:
    """Where one service's rollout stands; nothing where none is under way."""
    if service.adopted or not service.rollout.previous:
        return RolloutStatus()
    if service.rollout.is_rolling_back:
        failed = any(r.revision != service.revision and r.phase not in ENDED for r in replicas)
        return RolloutStatus(stage="going back" if failed else "")
    if service.rollout.is_done:
        return RolloutStatus()
    new = sum(r.serves and r.revision == service.rollout.revision for r in replicas)
    if not new:
        return RolloutStatus(coming=service.rollout.revision)
    return RolloutStatus(
        coming=service.rollout.revision,
        stage=_stage(service, replicas, verdict),
        trial=_trial(service, verdict),
    )


def _stage(
    service: DesiredService, replicas: Sequence[Replica], verdict: AnalysisResult | None
) -> str:
    if switched(service):
        return "all requests, the old replicas are kept for a while"
    stage, all_stages = current(service), stages(service)
    if stage is None and not any(r.revision != service.rollout.revision for r in replicas):
        return f"watched for {service.spec.update.monitor:g} s"
    if stage is None:
        return "the rest replica by replica" if all_stages else "replica by replica"
    shared = split(service, replicas, verdict)
    if shared is None:
        return ""
    of = f"step {service.rollout.stage + 1} of {len(all_stages)}: " if len(all_stages) > 1 else ""
    share = dict(shared.weights).get(service.rollout.revision, 0.0)
    chosen = ", and whom `match` names" if shared.matches else ""
    return f"{of}{100 * share:.3g} % of the requests{chosen}"


def _trial(service: DesiredService, verdict: AnalysisResult | None) -> str:
    stage = current(service)
    if (
        stage is None
        or not stage.judged
        or verdict is None
        or verdict.stage != service.rollout.stage
    ):
        return ""
    hold = f", held for {stage.hold:g} s" if stage.hold and verdict.word == "fine" else ""
    return f"{verdict.text}{hold}"
