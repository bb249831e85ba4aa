"""How a new revision replaces an old one: the sizes of a step, and the verdict. Pure.

A rollout has no script that could be interrupted: every pass looks at how many replicas of
which revision there are, and takes the next step that is safe. Words and defaults are those
of Compose's `deploy.update_config`.
"""

from collections.abc import Sequence
from typing import Final

import msgspec

from meshd.model.canary import AnalysisResult
from meshd.model.desired import DesiredService
from meshd.model.operation import Advance, Settle
from meshd.model.replica import Replica, ReplicaFailure
from meshd.model.rollout import RolloutState
from meshd.reconcile.rollout.stages import GROWING, current, following, is_over, limits, switched

ALWAYS_HELD: Final = 3
"""So many ends are held against a revision even if something outside seems to cause them."""


class RolloutStep(msgspec.Struct, frozen=True):
    """How many of the new revision to start and how many ready old ones to drain now."""

    start: int
    drain: int


def step(
    service: DesiredService,
    new: Sequence[Replica],
    old: Sequence[Replica],
    leaving: int,
    now: float,
) -> RolloutStep:
    """The next step from `old` to `new` (alive ones each); `leaving` others still run.

    At most `surge` above the wanted count, never fewer than `unavailable` below it. While a
    stage is on, no more of the new revision than it says, and the old ones stay beside it.
    """
    want, allowed, stage = service.count, limits(service), current(service)
    surge = allowed.surge
    new_ready = sum(r.serves for r in new)
    ready = new_ready + sum(r.serves for r in old)
    target, keep = want, 0
    if stage is not None:
        target = min(stage.replicas, want)
        if stage.share != GROWING and not service.spec.mesh.rollout.max_surge:
            surge = max(surge, target)
        keep = max(0, want + surge - target)
    room = want + surge - len(new) - len(old) - (0 if surge else leaving)
    if surge and stage is None:
        room = min(room, max(1, surge + allowed.unavailable) - (len(new) - new_ready))
    if update_delayed(service, new, now):
        room = 0
    start = min(target - len(new), room)
    if stage is not None:  # old ones that ended cannot come back: the new revision steps in
        start = max(start, want - allowed.unavailable - len(new) - len(old) - leaving)
    drain = min(ready - (want - allowed.unavailable), len(old) - keep)
    return RolloutStep(start=max(0, start), drain=max(0, drain))


def update_delayed(service: DesiredService, new: Sequence[Replica], now: float) -> bool:
    """Whether the time between two steps is not over."""
    delay = service.spec.update.delay
    return bool(delay) and _latest(new) + delay > now


def advance(
    service: DesiredService,
    new: Sequence[Replica],
    old: Sequence[Replica],
    verdict: AnalysisResult | None,
    now: float,
) -> Advance | None:
    """The end of the present stage, when it has come to one."""
    stage = current(service)
    if stage is None or not service.rollout.is_rolling or not old:
        return None
    cause = is_over(service, stage, new, old, verdict, now)
    if not cause:
        return None
    return Advance(
        project=service.project,
        service=service.spec.name,
        revision=service.revision,
        stage=service.rollout.stage + 1,
        what=following(service),
        cause=cause,
    )


def judge(
    service: DesiredService,
    new: Sequence[Replica],
    old: Sequence[Replica],
    failures: Sequence[ReplicaFailure],
    now: float,
    verdict: AnalysisResult | None = None,
) -> Settle | None:
    """The end of a rollout, when it has come to one.

    Failed: its traffic shows that it is worse than the revision to go back to, or more of its
    replicas failed by themselves than `max_failure_ratio` allows; and there is a revision to
    go back to. Done: all replicas are ready, none of an old revision is left (but those that
    blue/green keeps), and the last one has been watched for `monitor` seconds.
    """
    if not service.rollout.is_rolling:
        return None
    update = service.spec.update
    held = [failure for failure in failures if failure.at >= service.rollout.since]
    if len(held) < ALWAYS_HELD:
        held = [failure for failure in held if not failure.external]
    over = len(held) > update.max_failure_ratio * max(1, service.count)
    worse = verdict is not None and verdict.word == "worse"
    if (over or worse) and service.rollout.previous and update.failure_action != "continue":
        pauses = update.failure_action == "pause"
        outcome = RolloutState.HALTED if pauses else RolloutState.ROLLED_BACK
        why = verdict.text if verdict is not None and not over else held[-1].text
        return _settle(service, outcome, why)
    ready = sum(r.serves for r in new)
    if current(service) is not None and old:
        return None
    if switched(service) and ready == len(new) == service.count:
        return _settle(
            service, RolloutState.DONE, f"{ready} of {service.count} ready, switched over"
        )
    if old or ready < service.count or len(new) != service.count:
        return None
    if service.rollout.previous and _latest(new) + update.monitor > now:
        return None
    return _settle(
        service, RolloutState.DONE, f"{ready} of {service.count} ready, none of another revision"
    )


def failed(service: DesiredService, cause: str) -> Settle:
    """The end of a rollout that failed: back, where there is something to go back to."""
    back = service.rollout.previous and service.spec.update.failure_action != "pause"
    return _settle(service, RolloutState.ROLLED_BACK if back else RolloutState.HALTED, cause)


def _settle(service: DesiredService, outcome: RolloutState, cause: str) -> Settle:
    return Settle(
        project=service.project,
        service=service.spec.name,
        revision=service.revision,
        outcome=outcome,
        cause=cause,
    )


def _latest(replicas: Sequence[Replica]) -> float:
    return max((r.ready_since for r in replicas), default=0.0)
