"""The stages of a rollout: how many of the new revision, and what share of the traffic. Pure.

A rollout is a row of stages, then the rest. `DesiredService.stage` says how many are passed; it
is stored, so a process that takes over goes on in the same stage. A stage is over when its
replicas were ready for as long as it holds, and the traffic that they got has nothing against
them (`gate`). What the rest of the replicas do then, `rollout` says.
"""

from collections.abc import Sequence
from math import ceil
from typing import Final

import msgspec

from meshd.model.canary import AnalysisResult
from meshd.model.desired import DesiredService
from meshd.model.replica import Replica
from meshd.publish.compile import conditions
from meshd.reconcile.observe.observe import Observed
from meshd.reconcile.rollout.canary_analysis import RUNGS
from meshd.spec.model import RolloutSettings
from proxy.wire.snapshot import Split

GROWING: Final = -1.0
"""The share of a stage in which it grows with the trust in the new revision."""


class Stage(msgspec.Struct, frozen=True):
    """`replicas` of the new revision get `share` of the traffic for `hold` seconds at least;
    `judged`: and until that traffic let them on."""

    share: float
    replicas: int
    hold: float = 0.0
    judged: bool = False

    def __str__(self) -> str:
        share = "a growing share" if self.share == GROWING else f"{100 * self.share:.4g} %"
        many = "replica" if self.replicas == 1 else "replicas"
        return f"{share} of the requests on {self.replicas} {many}"


class StageLimits(msgspec.Struct, frozen=True):
    """How many replicas more than wanted may run, and how many fewer may be ready."""

    surge: int
    unavailable: int


def _way(service: DesiredService) -> RolloutSettings:
    return service.rollout_settings or service.spec.mesh.rollout


def width(service: DesiredService) -> int:
    """Compose's `parallelism`; 0 means all."""
    return service.spec.update.parallelism or max(1, service.count)


def limits(service: DesiredService) -> StageLimits:
    """What a rollout of this service may do on its way."""
    settings, wide = _way(service), width(service)
    first = service.spec.update.order == "start-first"
    surge = wide if first else 0
    unavailable = 0 if first else wide
    if settings.max_surge:
        surge = _amount(settings.max_surge, service.count, up=True)
    if settings.max_unavailable:
        unavailable = _amount(settings.max_unavailable, service.count, up=False)
    if not surge and not unavailable:
        unavailable = 1
    return StageLimits(surge, unavailable)


def surge(service: DesiredService) -> int:
    """How many replicas more than wanted run at most on the way of a rollout."""
    beside = [0 if s.share == GROWING else min(s.replicas, service.count) for s in stages(service)]
    if _way(service).max_surge:
        beside = [0]
    return max(limits(service).surge, *beside, 0)


def _amount(text: str, of: int, *, up: bool) -> int:
    if not text.endswith("%"):
        return int(text)
    part = of * int(text[:-1]) / 100
    return ceil(part) if up else int(part)


def stages(service: DesiredService) -> tuple[Stage, ...]:
    """All stages of a service's rollout."""
    settings, want = _way(service), service.count
    if not service.rollout.previous:
        return ()
    judged = settings.gate.enabled and not service.rollout.skips_stages
    if settings.strategy == "blue-green":
        hold = 0.0 if service.rollout.skips_stages else service.spec.update.monitor
        return Stage(0.0, want), Stage(1.0, want, hold, judged)
    if service.rollout.skips_stages:
        return ()
    if settings.strategy == "canary":
        shares = (0.0, *settings.steps) if settings.match else settings.steps
        return tuple(
            Stage(share, max(1, ceil(share * want)), settings.interval, judged) for share in shares
        )
    return (Stage(GROWING, width(service), 0.0, judged),) if judged else ()


def unwatched(service: DesiredService) -> DesiredService:
    """The service as it is rolled out where nobody watches its traffic: no share can grow."""
    stage = current(service)
    if stage is None or stage.share != GROWING:
        return service
    rollout = msgspec.structs.replace(service.rollout, stage=service.rollout.stage + 1)
    return msgspec.structs.replace(service, rollout=rollout)


def current(service: DesiredService) -> Stage | None:
    """The stage that the rollout is in; None before, after, and without any."""
    if not service.rollout.is_unfinished or service.adopted:
        return None
    found = stages(service)
    return found[service.rollout.stage] if service.rollout.stage < len(found) else None


def following(service: DesiredService) -> str:
    """What comes after the present stage, in words."""
    found = stages(service)[service.rollout.stage + 1 : service.rollout.stage + 2]
    if found:
        return str(found[0])
    if _way(service).strategy == "blue-green":
        return f"for good, with the old ones kept for {_way(service).keep:g} s"
    return "replica by replica"


def switched(service: DesiredService) -> bool:
    """Whether the new revision has taken over, and the old one is kept beside it."""
    if service.rollout.is_rolling and service.rollout.previous and current(service) is None:
        return _way(service).strategy == "blue-green"
    return service.keeps_previous


def is_over(
    service: DesiredService,
    stage: Stage,
    new: Sequence[Replica],
    old: Sequence[Replica],
    verdict: AnalysisResult | None,
    now: float,
) -> str:
    """Why a stage is over; empty while it is not. `verdict` is None where nobody watches."""
    ready = [r for r in new if r.serves]
    if len(ready) < min(stage.replicas, service.count):
        return ""
    if not any(r.serves for r in old):
        return "nothing of the old revision serves any more"
    latest = max((r.ready_since for r in ready), default=0.0)
    if max(service.rollout.stage_since, latest) + stage.hold > now:
        return ""
    if not stage.judged or verdict is None:
        return f"{len(ready)} ready" + (f" for {stage.hold:g} s" if stage.hold else "")
    if verdict.word == "worse":  # and its failure action is to go on
        return f"goes on though {verdict.text}"
    return verdict.text if verdict.word == "fine" and verdict.stage == service.rollout.stage else ""


def splits(services: Sequence[DesiredService], observed: Observed) -> dict[str, Split]:
    """How revisions share the requests of each service in which they do, by its key."""
    shifting = {
        s.key: s for s in services if s.rollout.previous and (not s.rollout.is_done or _stays(s))
    }
    if not shifting:
        return {}
    groups: dict[str, list[Replica]] = {}
    for replica in observed.replicas:
        if replica.key in shifting:
            groups.setdefault(replica.key, []).append(replica)
    told = observed.verdicts
    found = {}
    for key, service in shifting.items():
        if told is None:
            service = unwatched(service)
        shared = split(service, groups.get(key, ()), told.get(key) if told else None)
        if shared is not None:
            found[key] = shared
    return found


def split(
    service: DesiredService, replicas: Sequence[Replica], verdict: AnalysisResult | None
) -> Split | None:
    """How the revisions of a service share its traffic now; None when each replica is like any
    other."""
    if service.adopted or not service.rollout.previous:
        return None
    ready: dict[str, int] = {}
    for replica in replicas:
        if replica.serves:
            ready[replica.revision] = ready.get(replica.revision, 0) + 1
    if service.rollout.is_done:
        alone = _stays(service) and service.revision in ready and len(ready) > 1
        return Split(((service.revision, 1.0),)) if alone else None
    if service.rollout.is_rolling_back:
        enough = ready.get(service.rollout.previous, 0) >= max(1, service.count)
        return Split(((service.rollout.previous, 1.0),)) if enough and len(ready) > 1 else None
    stage = current(service)
    if stage is None and _way(service).strategy == "blue-green":
        return Split(((service.rollout.revision, 1.0),)) if len(ready) > 1 else None
    if stage is None and _way(service).strategy == "canary":
        stage = _rest(service, ready)
    return _shared(service, stage, ready, verdict) if stage is not None else None


def _stays(service: DesiredService) -> bool:
    """Whether what was switched to alone is asked after the end: until the last of the old ones
    is out of rotation, which is later than it was no longer kept."""
    return service.keeps_previous or _way(service).strategy == "blue-green"


def _rest(service: DesiredService, ready: dict[str, int]) -> Stage | None:
    """What holds of a canary while the rest is replaced: whom the conditions name stays with the
    new revision, and it gets no less than it had. None once it is all there is, and for an undo."""
    passed = stages(service)
    coming = ready.get(service.rollout.revision, 0)
    if not passed or not coming:
        return None
    return Stage(max(passed[-1].share, coming / sum(ready.values())), coming)


def _shared(
    service: DesiredService, stage: Stage, ready: dict[str, int], verdict: AnalysisResult | None
) -> Split | None:
    coming = ready.pop(service.rollout.revision, 0)
    rest = sum(ready.values())
    if not rest:
        return None
    share = stage.share
    if share == GROWING:
        rung = verdict.rung if verdict is not None else RUNGS[0]
        share = min(rung, coming / (coming + rest))
    # Of several old revisions the one that proved good serves, unless too few of it are left.
    proven = ready.get(service.rollout.previous, 0)
    if 2 * proven >= service.count:
        ready, rest = {service.rollout.previous: proven}, proven
    others = [(name, (1.0 - share) * count / rest) for name, count in sorted(ready.items())]
    texts = _way(service).match
    return Split(
        weights=(*others, (service.rollout.revision, share)),
        matches=conditions(texts),
        matched=service.rollout.revision if texts else "",
    )
