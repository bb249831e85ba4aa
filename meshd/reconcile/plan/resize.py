"""To the wanted number of the wanted revision: who goes, who is woken, how many are missing. Pure.

What is missing comes back as a `Need`; whether it can be started now is `launch`'s to say.
"""

from collections.abc import Sequence

from meshd.model.desired import DesiredService
from meshd.model.operation import DrainReplica, Operation, Urgency
from meshd.model.replica import Replica
from meshd.model.replica_phase import Phase
from meshd.reconcile.plan import warm_pool
from meshd.reconcile.plan.removal import completed
from meshd.reconcile.plan.start import ScaleUp
from meshd.reconcile.rollout import steps
from meshd.reconcile.rollout.stages import current


def replace(
    service: DesiredService,
    group: Sequence[Replica],
    new: Sequence[Replica],
    old: Sequence[Replica],
    now: float,
) -> tuple[list[Operation], ScaleUp | None]:
    """One step of replacing `old` by `new`. Old ones that serve nothing go at once."""
    leaving = sum(r.phase in (Phase.DRAINING, Phase.STOPPING) for r in group)
    step = steps.step(service, new, old, leaving, now)
    cause = f"replaced by revision {service.revision[:12]}"
    going = [r for r in old if r.phase is not Phase.READY and not r.busy]
    going += _unready(service, new, old)
    going += _serving_to_drain(service, old, going, step.drain)
    operations: list[Operation] = [DrainReplica(name=r.name, cause=r.drift or cause) for r in going]
    operations += _shrink(service, new)
    if not step.start:
        return operations, None
    return operations, ScaleUp(step.start, _why_replaced(service, old), Urgency.ROLLOUT)


def resize(
    service: DesiredService,
    group: Sequence[Replica],
    serving: Sequence[Replica],
    reserves: Sequence[Replica],
) -> tuple[list[Operation], ScaleUp | None]:
    """From those that are `serving` to the wanted count: out of the pool first, where some are
    missing."""
    done = sum(completed(service, r) for r in group)
    missing = service.count - len(serving) - done
    if missing < 0:
        # A rollout that was paused by hand is left as it is.
        return ([] if service.rollout.paused_by_user else _shrink(service, serving, done)), None
    cause = _count(service, serving)
    woken = warm_pool.wake(reserves, service.revision, missing, cause)
    missing -= len(woken)
    return woken, ScaleUp(missing, cause) if missing else None


def _serving_to_drain(
    service: DesiredService, old: Sequence[Replica], gone: Sequence[Replica], allowed: int
) -> list[Replica]:
    """Of the old ones that serve, those that go in this step. What is neither the new revision
    nor the one to go back to serves nobody meanwhile."""
    ready = (r for r in old if r.phase is Phase.READY and r not in gone)
    serving = sorted(ready, key=_leaves_first)
    stale = [r for r in serving if r.revision != service.rollout.previous]
    spare = len(serving) - len(stale) >= service.count
    count = max(allowed, len(stale) if spare else 0)
    return [*stale, *(r for r in serving if r not in stale)][:count]


def _unready(
    service: DesiredService, new: Sequence[Replica], old: Sequence[Replica]
) -> list[Replica]:
    """The old ones that want no requests and can be spared should they all want some again."""
    in_place = [r for r in old if r.phase is Phase.READY]
    spare = sum(r.serves for r in new) + len(in_place) - service.count
    return [r for r in in_place if r.unready][: max(0, spare)]


def _why_replaced(service: DesiredService, old: Sequence[Replica]) -> str:
    drifted = next((r for r in old if r.drift), None)
    if drifted is not None:
        return f"in place of {drifted.name}, which {drifted.drift}"
    cause, stage = f"rollout of revision {service.revision[:12]}", current(service)
    return cause if stage is None else f"{cause}, {stage}"


def _shrink(service: DesiredService, serving: Sequence[Replica], done: int = 0) -> list[Operation]:
    """Drain what is too much, the idlest, and first those that serve nothing yet. Adopted ones
    stay. One that is only being started leaves as soon as that is done, and nobody in its place."""
    surplus = max(0, len(serving) + done - service.count)
    candidates = sorted((r for r in serving if r.managed), key=_leaves_first)
    cause = _count(service, serving)
    return [DrainReplica(name=r.name, cause=cause) for r in candidates[:surplus] if not r.busy]


def _count(service: DesiredService, serving: Sequence[Replica]) -> str:
    return f"{service.count} wanted, {len(serving)} there"


def _leaves_first(replica: Replica) -> tuple[bool, int, float]:
    """Order of leaving: those that serve last, fewest in flight, youngest."""
    return (replica.serves, replica.in_flight, -replica.created_at)
