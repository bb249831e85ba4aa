"""Brings the desired revision to its number of replicas: drain, resume or request starts. Pure.

Called by `meshd.reconcile.plan.service`. A `ScaleUp` says how many replicas are missing; `start`
decides whether they can start now.
"""

from collections.abc import Sequence

from meshd.model.desired import DesiredService
from meshd.model.operation import DrainReplica, Operation, Urgency
from meshd.model.replica import Replica
from meshd.model.replica_phase import Phase
from meshd.reconcile.plan import warm_pool
from meshd.reconcile.plan.start import ScaleUp
from meshd.reconcile.restart_policy import stays_ended
from meshd.reconcile.rollout import steps
from meshd.reconcile.rollout.stages import current_stage, stage_limits
from meshd.spec.model import RestartPolicy


def drift_delay(attempt: int, policy: RestartPolicy) -> float:
    """Return the seconds that a replica runs at least before it is replaced because of drift.
    `attempt` counts the quick replacements before it."""
    if not attempt:
        return 0.0
    return min(policy.max_delay, policy.delay * 2.0 ** min(attempt - 1, 30))


def replace(
    service: DesiredService,
    group: Sequence[Replica],
    new: Sequence[Replica],
    old: Sequence[Replica],
    failed: int,
    now: float,
) -> tuple[list[Operation], ScaleUp | None]:
    """Return one step of replacing `old` by `new`. Old replicas that do not serve go at once.

    `failed` replicas of any revision failed since the rollout began. Starts that make up for them
    are urgent: without them, fewer replicas than the rollout allows would be left.
    """
    leaving = sum(r.phase in (Phase.DRAINING, Phase.STOPPING) for r in group)
    ended = sum(stays_ended(service, r) for r in group)
    step = steps.next_step(service, new, old, ended, leaving, now)
    cause = f"replaced by revision {service.revision[:12]}"
    drained = [r for r in old if r.phase is not Phase.READY and (not r.busy or r.in_hooks)]
    drained += _spare_unready(service, new, old, leaving)
    drained += _ready_to_drain(service, old, drained, step.drain)
    operations: list[Operation] = [
        DrainReplica(name=r.name, cause=r.drift or r.replaced_for or cause) for r in drained
    ]
    operations += _scale_down(service, new)
    if not step.start:
        return operations, None
    cause, attempt = _replacement_cause(service, old), _replacement_attempt(service, old, now)
    least = service.desired - stage_limits(service).unavailable
    healing = min(step.start, failed, max(0, least - ended - len(new) - len(old)))
    return operations, ScaleUp(step.start, cause, Urgency.ROLLOUT, attempt, healing)


def resize(
    service: DesiredService,
    group: Sequence[Replica],
    serving: Sequence[Replica],
    warm: Sequence[Replica],
) -> tuple[list[Operation], ScaleUp | None]:
    """Return the step to the desired number. Missing replicas come from the warm pool first."""
    completed = sum(stays_ended(service, r) for r in group)
    missing = service.desired - len(serving) - completed
    if missing < 0:
        if service.rollout.paused_by_user:
            return [], None  # a paused rollout keeps its replicas
        return _scale_down(service, serving, completed), None
    cause = _count_cause(service, serving)
    resumed = warm_pool.resume_missing(warm, service.revision, missing, cause)
    missing -= len(resumed)
    return resumed, ScaleUp(missing, cause) if missing else None


def _ready_to_drain(
    service: DesiredService, old: Sequence[Replica], drained: Sequence[Replica], allowed: int
) -> list[Replica]:
    """The ready old replicas to drain in this step. Replicas of a revision that is neither the
    new one nor the previous one go first, as they get no traffic."""
    ready = (r for r in old if r.phase is Phase.READY and r not in drained)
    serving = sorted(ready, key=_drain_order)
    stale = [r for r in serving if r.revision != service.rollout.previous]
    spare = len(serving) - len(stale) >= service.desired
    count = max(allowed, len(stale) if spare else 0)
    return [*stale, *(r for r in serving if r not in stale)][:count]


def _spare_unready(
    service: DesiredService, new: Sequence[Replica], old: Sequence[Replica], leaving: int
) -> list[Replica]:
    """The old replicas whose readiness probe fails, as far as the others suffice even if all of
    them become ready again. With `stop-first`, where no new replica starts before an old one has
    left, as many as may be unavailable."""
    in_place = [r for r in old if r.phase is Phase.READY]
    ready = sum(r.serves for r in new)
    spare = ready + len(in_place) - service.desired
    if service.stops_first:
        unavailable = stage_limits(service).unavailable
        spare = max(spare, unavailable - leaving - (len(new) - ready))
    return [r for r in in_place if r.unready][: max(0, spare)]


def _replacement_cause(service: DesiredService, old: Sequence[Replica]) -> str:
    drifted = next((r for r in old if r.drift), None)
    if drifted is not None:
        return f"in place of {drifted.name}, which {drifted.drift}"
    named = next((r for r in old if r.replaced_for), None)
    if named is not None:
        return f"in place of {named.name}: {named.replaced_for}"
    cause, stage = f"rollout of revision {service.revision[:12]}", current_stage(service)
    return cause if stage is None else f"{cause}, {stage}"


def _replacement_attempt(service: DesiredService, old: Sequence[Replica], now: float) -> int:
    """The quick replacements in a row before the next start. A replica whose drift shows soon
    after its start continues the row: something changes each new one."""
    policy = service.spec.restart
    quick = [
        r.attempt + 1
        for r in old
        if r.drift and now < r.created_at + policy.window + drift_delay(r.attempt, policy)
    ]
    return max(quick, default=0)


def _scale_down(
    service: DesiredService, serving: Sequence[Replica], completed: int = 0
) -> list[Operation]:
    """Drain the surplus: replicas that do not serve yet first, then idle ones.

    Adopted replicas stay. One that is being started leaves as soon as its start has ended; no
    other is drained in its place.
    """
    surplus = max(0, len(serving) + completed - service.desired)
    candidates = sorted((r for r in serving if r.managed), key=_drain_order)
    cause = _count_cause(service, serving)
    return [
        DrainReplica(name=r.name, cause=cause)
        for r in candidates[:surplus]
        if not r.busy or (r.in_hooks and not r.drain_since)
    ]


def _count_cause(service: DesiredService, serving: Sequence[Replica]) -> str:
    return f"{service.desired} desired, {len(serving)} running"


def _drain_order(replica: Replica) -> tuple[bool, int, float]:
    """Sort key: not serving first, then fewest requests in flight, then youngest."""
    return (replica.serves, replica.in_flight, -replica.created_at)
