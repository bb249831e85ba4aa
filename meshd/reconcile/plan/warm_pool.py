"""The warm pool: paused replicas that are resumed where others would have to be started. Pure.

Called by `meshd.reconcile.plan.service`. A warm replica starts like any other up to its first good
probe. It is paused then, before it gets traffic. It belongs to the pool until it is resumed, and
serves from then on.
"""

from collections.abc import Sequence

from meshd.model.desired import DesiredService
from meshd.model.operation import DrainReplica, Operation, PauseReplica, ResumeReplica, Urgency
from meshd.model.replica import Replica
from meshd.model.replica_phase import ALIVE, Phase
from meshd.reconcile.plan.start import ScaleUp


def warm_replicas(group: Sequence[Replica], evicted: set[str]) -> list[Replica]:
    """Return the pool, ordered by how soon its replicas can serve."""
    living = ALIVE | {Phase.PAUSED}
    pool = [r for r in group if r.warm and r.managed and r.phase in living]
    return sorted(
        (r for r in pool if r.name not in evicted),
        key=lambda r: (r.phase is not Phase.PAUSED, r.phase is not Phase.PROBING, r.created_at),
    )


def resume_missing(
    pool: Sequence[Replica], revision: str, missing: int, cause: str
) -> list[Operation]:
    """Resume up to `missing` replicas of this revision."""
    matching = [r for r in pool if r.revision == revision]
    return [ResumeReplica(name=r.name, cause=cause) for r in matching[: max(0, missing)]]


def repeat_resume(serving: Sequence[Replica]) -> list[Operation]:
    """Resume again those that left the pool but are still paused: the first order may be lost,
    and a second one does no harm."""
    return [
        ResumeReplica(name=r.name, cause="it left the warm pool to serve")
        for r in serving
        if r.phase is Phase.PAUSED and r.resumed_at and not r.busy
    ]


def resume_paused_by_others(group: Sequence[Replica]) -> list[Operation]:
    """Resume replicas that something other than meshd paused: they must serve, or finish their
    requests before they leave."""
    return [
        ResumeReplica(name=r.name, cause="something other than meshd paused it")
        for r in group
        if r.paused_by_others and r.managed and not r.busy
    ]


def maintain(
    pool: Sequence[Replica], service: DesiredService
) -> tuple[list[Operation], ScaleUp | None]:
    """Bring the pool to its desired size and revision.

    Return the operations, and the replicas to start in addition.
    """
    size, revision = service.warm, service.revision
    matching = [r for r in pool if r.revision == revision]
    operations: list[Operation] = [
        DrainReplica(name=r.name, cause="its revision is not desired in the warm pool any more")
        for r in pool
        if r.revision != revision and not r.busy
    ]
    operations += [
        DrainReplica(name=r.name, cause=f"{size} desired in the warm pool, {len(matching)} there")
        for r in matching[size:]
        if not r.busy
    ]
    operations += [
        PauseReplica(name=r.name, cause="it is ready for the warm pool")
        for r in matching[:size]
        if r.phase is Phase.PROBING and r.answered and not r.busy
    ]
    missing = size - len(matching)
    if missing <= 0:
        return operations, None
    return operations, ScaleUp(missing, f"{size} desired in the warm pool", Urgency.WARM)
