"""The warm pool: replicas kept paused, to be woken where others would have to be started. Pure.

A reserve replica goes the way of any other up to its first good probe, and is paused then,
before it was ever routed to. It belongs to the pool until it is woken; from then on it is one
of those that serve.
"""

from collections.abc import Sequence

from meshd.model.desired import DesiredService
from meshd.model.operation import DrainReplica, Operation, PauseReplica, ResumeReplica, Urgency
from meshd.model.replica import Replica
from meshd.model.replica_phase import ALIVE, Phase
from meshd.reconcile.plan.start import ScaleUp


def reserves(group: Sequence[Replica], sick: set[str]) -> list[Replica]:
    """The pool, the ones that can be woken soonest first."""
    living = ALIVE | {Phase.PAUSED}
    found = [r for r in group if r.reserve and r.managed and r.phase in living]
    return sorted(
        (r for r in found if r.name not in sick),
        key=lambda r: (r.phase is not Phase.PAUSED, r.phase is not Phase.PROBING, r.created_at),
    )


def wake(pool: Sequence[Replica], revision: str, missing: int, cause: str) -> list[Operation]:
    """As many of `missing` as the pool has of this revision."""
    right = [r for r in pool if r.revision == revision]
    return [ResumeReplica(name=r.name, cause=cause) for r in right[: max(0, missing)]]


def wake_again(serving: Sequence[Replica]) -> list[Operation]:
    """Those that were taken from the pool and are not awake yet: whatever was lost on the way,
    waking twice does no harm."""
    return [
        ResumeReplica(name=r.name, cause="it is to serve")
        for r in serving
        if r.phase is Phase.PAUSED and r.woken and not r.busy
    ]


def thaw(group: Sequence[Replica]) -> list[Operation]:
    """Those that somebody paused, who was not us: what runs is to serve, and what leaves has to
    finish first."""
    return [
        ResumeReplica(name=r.name, cause="somebody paused it")
        for r in group
        if r.frozen and r.managed and not r.busy
    ]


def tend(
    pool: Sequence[Replica], service: DesiredService
) -> tuple[list[Operation], ScaleUp | None]:
    """Steps that bring the pool to the size and revision that are wanted, and what is to be
    started besides."""
    size, revision = service.warm, service.revision
    right = [r for r in pool if r.revision == revision]
    operations: list[Operation] = [
        DrainReplica(
            name=r.name, cause="it is kept for later, and its revision is not wanted any more"
        )
        for r in pool
        if r.revision != revision and not r.busy
    ]
    operations += [
        DrainReplica(name=r.name, cause=f"{size} wanted in the warm pool, {len(right)} there")
        for r in right[size:]
        if not r.busy
    ]
    operations += [
        PauseReplica(name=r.name, cause="it is ready, and kept for later")
        for r in right[:size]
        if r.phase is Phase.PROBING and r.answered and not r.busy
    ]
    missing = size - len(right)
    if missing <= 0:
        return operations, None
    return operations, ScaleUp(missing, f"{size} wanted in the warm pool", Urgency.RESERVE)
