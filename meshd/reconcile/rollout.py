"""How a new revision replaces an old one: the sizes of a step, and the verdict. Pure.

A rollout has no script that could be interrupted: every pass looks at how many replicas of
which revision there are, and takes the next step that is safe. Words and defaults are those
of Compose's `deploy.update_config`.
"""

from collections.abc import Sequence
from typing import Final

import msgspec

from meshd.reconcile.desired import DesiredService
from meshd.reconcile.memory import Failure, Replica
from meshd.reconcile.operation import Outcome, Settle
from meshd.reconcile.phase import Phase

ALWAYS_HELD: Final = 3
"""So many ends are held against a revision even if something outside seems to cause them."""


class Step(msgspec.Struct, frozen=True):
    """How many of the new revision to start and how many ready old ones to drain now."""

    start: int
    drain: int


def step(
    service: DesiredService,
    new: Sequence[Replica],
    old: Sequence[Replica],
    leaving: int,
    now: float,
) -> Step:
    """The next step from `old` to `new` (alive ones each); `leaving` others still run.

    start-first goes at most `parallelism` above the wanted count and never below it;
    stop-first goes at most `parallelism` below it and never above.
    """
    want, update = service.count, service.spec.update
    width = max(1, update.parallelism)
    new_ready = sum(r.phase is Phase.READY for r in new)
    ready = new_ready + sum(r.phase is Phase.READY for r in old)
    missing = want - len(new)
    if update.order == "start-first":
        room = min(want + width - len(new) - len(old), width - (len(new) - new_ready))
        drain = ready - want
    else:
        room = want - len(new) - len(old) - leaving
        drain = ready - max(0, want - width)
    if update.delay and _latest(new) + update.delay > now:
        room = 0
    return Step(start=max(0, min(missing, room)), drain=max(0, min(drain, len(old))))


def judge(
    service: DesiredService,
    new: Sequence[Replica],
    old: Sequence[Replica],
    failures: Sequence[Failure],
    now: float,
) -> Settle | None:
    """The end of a rollout, when it has come to one.

    Failed: more of the new revision's replicas failed by themselves than `max_failure_ratio`
    allows, and there is a revision to go back to. Done: all replicas are ready, none of an
    old revision is left, and the last one has been watched for `monitor` seconds.
    """
    if service.rollout != "rolling":
        return None
    update = service.spec.update
    held = [failure for failure in failures if failure.at >= service.rollout_since]
    if len(held) < ALWAYS_HELD:
        held = [failure for failure in held if not failure.external]
    over = len(held) > update.max_failure_ratio * max(1, service.count)
    if over and service.previous and update.failure_action != "continue":
        outcome: Outcome = "paused" if update.failure_action == "pause" else "rolled-back"
        return _settle(service, outcome, held[-1].text)
    ready = sum(r.phase is Phase.READY for r in new)
    if old or ready < service.count or len(new) != service.count:
        return None
    if service.previous and _latest(new) + update.monitor > now:
        return None
    return _settle(service, "done", f"{ready} of {service.count} ready, none of another revision")


def _settle(service: DesiredService, outcome: Outcome, cause: str) -> Settle:
    return Settle(
        project=service.project,
        service=service.spec.name,
        revision=service.revision,
        outcome=outcome,
        cause=cause,
    )


def _latest(replicas: Sequence[Replica]) -> float:
    return max((r.ready_since for r in replicas), default=0.0)
