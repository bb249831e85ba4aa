"""Stages of a rollout: replicas of the new revision and its share of the traffic. Pure.

A rollout has a sequence of stages; after the last one the remaining replicas are replaced (see
`steps`). `Rollout.stage` counts the completed stages. It is stored, so a control process that takes
over continues in the same stage. A stage is completed once its replicas were ready for as long as
it holds, and their traffic passed the canary analysis. Plans read the stages, and the snapshot gets
the traffic splits.
"""

from collections.abc import Sequence
from math import ceil
from typing import Final

import msgspec

from meshd.model.canary import AnalysisResult, CanaryDecision
from meshd.model.desired import DesiredService
from meshd.model.replica import Replica
from meshd.model.service_key import ServiceKey
from meshd.publish.compile import parse_conditions
from meshd.reconcile.observe.observe import Observed
from meshd.reconcile.rollout.canary_analysis import TRAFFIC_STEPS
from meshd.spec.model import RolloutSettings
from proxy.wire.snapshot import Split

GROWING: Final = -1.0
"""The share of a stage in which the analysis makes the share grow step by step."""


class Stage(msgspec.Struct, frozen=True):
    """One stage of a rollout.

    - `share`: the new revision's share of the traffic (0..1), or GROWING.
    - `replicas`: replicas of the new revision.
    - `hold`: seconds that the stage lasts at least.
    - `analyzed`: whether it also lasts until the traffic passed the canary analysis.
    """

    share: float
    replicas: int
    hold: float = 0.0
    analyzed: bool = False

    def __str__(self) -> str:
        share = "a growing share" if self.share == GROWING else f"{100 * self.share:.4g} %"
        noun = "replica" if self.replicas == 1 else "replicas"
        return f"{share} of the requests on {self.replicas} {noun}"


class StageLimits(msgspec.Struct, frozen=True):
    """Limits on the number of replicas during a rollout.

    - `surge`: replicas that may run above the desired number.
    - `unavailable`: replicas that may be missing from the desired number of ready ones.
    """

    surge: int
    unavailable: int


def rollout_settings(service: DesiredService) -> RolloutSettings:
    """Return the settings of the revision that was deployed last."""
    return service.rollout_settings or service.spec.mesh.rollout


def parallelism(service: DesiredService) -> int:
    """Return how many replicas are replaced at a time: Compose's `parallelism`; its 0 means all."""
    return service.spec.update.parallelism or max(1, service.desired)


def stage_limits(service: DesiredService) -> StageLimits:
    """Return the bounds for a rollout of this service."""
    settings, width = rollout_settings(service), parallelism(service)
    surge = 0 if service.stops_first else width
    unavailable = width if service.stops_first else 0
    if settings.max_surge and service.max_containers is None:
        surge = _amount(settings.max_surge, service.desired, round_up=True)
    if settings.max_unavailable:
        unavailable = _amount(settings.max_unavailable, service.desired, round_up=False)
    if not surge and not unavailable:
        unavailable = 1  # otherwise no replica could ever be replaced
    return StageLimits(surge, unavailable)


def max_surge(service: DesiredService) -> int:
    """Return how many replicas above the desired number a rollout runs at most."""
    if service.max_containers is not None:
        return 0
    extra = [0 if s.share == GROWING else min(s.replicas, service.desired) for s in stages(service)]
    if rollout_settings(service).max_surge:
        extra = [0]
    return max(stage_limits(service).surge, *extra, 0)


def _amount(text: str, total: int, *, round_up: bool) -> int:
    """The number that `text` names: a number, or a percentage of `total`."""
    if not text.endswith("%"):
        return int(text)
    part = total * int(text[:-1]) / 100
    return ceil(part) if round_up else int(part)


def stages(service: DesiredService) -> tuple[Stage, ...]:
    """Return all stages of a service's rollout."""
    settings, desired = rollout_settings(service), service.desired
    if not service.rollout.previous:
        return ()
    analyzed = settings.gate.enabled and not service.rollout.skips_stages
    analyzed = analyzed and not service.spec.plain  # its traffic does not pass through the mesh
    if settings.strategy == "blue-green":
        hold = 0.0 if service.rollout.skips_stages else service.spec.update.monitor
        return Stage(0.0, desired), Stage(1.0, desired, hold, analyzed)
    if service.rollout.skips_stages:
        return ()
    if settings.strategy == "canary":
        shares = (0.0, *settings.steps) if settings.match else settings.steps
        return tuple(
            Stage(share, max(1, ceil(share * desired)), settings.interval, analyzed)
            for share in shares
        )
    return (Stage(GROWING, parallelism(service), 0.0, analyzed),) if analyzed else ()


def without_growing_stage(service: DesiredService) -> DesiredService:
    """Return the service for a rollout without analysis: the growing stage is skipped."""
    stage = current_stage(service)
    if stage is None or stage.share != GROWING:
        return service
    rollout = msgspec.structs.replace(service.rollout, stage=service.rollout.stage + 1)
    return msgspec.structs.replace(service, rollout=rollout)


def current_stage(service: DesiredService) -> Stage | None:
    """Return the stage that the rollout is in; None after the last one and without stages."""
    if not service.rollout.is_unfinished or service.adopted:
        return None
    all_stages = stages(service)
    completed = service.rollout.stage
    return all_stages[completed] if completed < len(all_stages) else None


def describe_next_stage(service: DesiredService) -> str:
    """Describe for people what follows the current stage."""
    later = stages(service)[service.rollout.stage + 1 :]
    if later:
        return str(later[0])
    settings = rollout_settings(service)
    if settings.strategy == "blue-green":
        return f"for good, with the old ones kept for {settings.keep:g} s"
    return "replica by replica"


def has_switched(service: DesiredService) -> bool:
    """Whether a blue/green rollout has switched over and the previous replicas still run."""
    rollout = service.rollout
    if rollout.is_rolling and rollout.previous and current_stage(service) is None:
        return rollout_settings(service).strategy == "blue-green"
    return service.keeps_previous


def stage_end_reason(
    service: DesiredService,
    stage: Stage,
    new: Sequence[Replica],
    old: Sequence[Replica],
    analysis: AnalysisResult | None,
    now: float,
) -> str | None:
    """Return why a stage is completed; None if it is not.

    `analysis` is None if rollouts run without analysis.
    """
    ready = [r for r in new if r.serves]
    if len(ready) < min(stage.replicas, service.desired):
        return None
    if not any(r.serves for r in old):
        return "no replica of the old revision serves any more"
    latest = max((r.ready_since for r in ready), default=0.0)
    if max(service.rollout.stage_since, latest) + stage.hold > now:
        return None
    if not stage.analyzed or analysis is None:
        return f"{len(ready)} ready" + (f" for {stage.hold:g} s" if stage.hold else "")
    if analysis.decision is CanaryDecision.FAIL:  # and its failure action is `continue`
        return f"continues although {analysis.reason}"
    passed = analysis.decision is CanaryDecision.PASS and analysis.stage == service.rollout.stage
    return analysis.reason if passed else None


def traffic_splits(
    services: Sequence[DesiredService], observed: Observed
) -> dict[ServiceKey, Split]:
    """Return the traffic split of each service that has one, by service key."""
    splitting = {
        service.key: service
        for service in services
        if service.rollout.previous and (not service.rollout.is_done or _keeps_split(service))
    }
    if not splitting:
        return {}
    groups: dict[ServiceKey, list[Replica]] = {}
    for replica in observed.replicas:
        if replica.key in splitting:
            groups.setdefault(replica.key, []).append(replica)
    analyses = observed.analyses
    found = {}
    for key, service in splitting.items():
        if analyses is None:
            service = without_growing_stage(service)
        analysis = analyses.get(key) if analyses else None
        split = traffic_split(service, groups.get(key, ()), analysis)
        if split is not None:
            found[key] = split
    return found


def traffic_split(
    service: DesiredService, replicas: Sequence[Replica], analysis: AnalysisResult | None
) -> Split | None:
    """Return the shares of a service's revisions; None if all replicas are treated alike."""
    rollout = service.rollout
    if service.adopted or not rollout.previous:
        return None
    ready: dict[str, int] = {}
    for replica in replicas:
        if replica.serves:
            ready[replica.revision] = ready.get(replica.revision, 0) + 1
    if rollout.is_done:
        only_new = _keeps_split(service) and service.revision in ready and len(ready) > 1
        return Split(((service.revision, 1.0),)) if only_new else None
    if rollout.is_rolling_back:
        enough = ready.get(rollout.previous, 0) >= max(1, service.desired)
        return Split(((rollout.previous, 1.0),)) if enough and len(ready) > 1 else None
    stage = current_stage(service)
    strategy = rollout_settings(service).strategy
    if stage is None and strategy == "blue-green":
        return Split(((rollout.revision, 1.0),)) if len(ready) > 1 else None
    if stage is None and strategy == "canary":
        stage = _rest_of_canary(service, ready)
    return _split_of_stage(service, stage, ready, analysis) if stage is not None else None


def _keeps_split(service: DesiredService) -> bool:
    """Whether the new revision gets all traffic after the rollout is done.

    It does until the last previous replica is out of rotation, which is after `keep` has passed.
    """
    return service.keeps_previous or rollout_settings(service).strategy == "blue-green"


def _rest_of_canary(service: DesiredService, ready: dict[str, int]) -> Stage | None:
    """The stage that applies while a canary's remaining replicas are replaced.

    Matched requests stay with the new revision, and its share does not shrink. None if the new
    revision has no ready replica, and for an undo.
    """
    all_stages = stages(service)
    new = ready.get(service.rollout.revision, 0)
    if not all_stages or not new:
        return None
    return Stage(max(all_stages[-1].share, new / sum(ready.values())), new)


def _split_of_stage(
    service: DesiredService, stage: Stage, ready: dict[str, int], analysis: AnalysisResult | None
) -> Split | None:
    rollout = service.rollout
    new = ready.pop(rollout.revision, 0)
    old = sum(ready.values())
    if not old:
        return None
    share = stage.share
    if share == GROWING:
        max_share = analysis.max_share if analysis is not None else TRAFFIC_STEPS[0]
        share = min(max_share, new / (new + old))
    # Of several old revisions only the proven one serves, unless too few of its replicas are left.
    proven = ready.get(rollout.previous, 0)
    if 2 * proven >= service.desired:
        ready, old = {rollout.previous: proven}, proven
    others = [(name, (1.0 - share) * count / old) for name, count in sorted(ready.items())]
    match = rollout_settings(service).match
    return Split(
        weights=(*others, (rollout.revision, share)),
        matches=parse_conditions(match),
        matched=rollout.revision if match else "",
    )
