"""One service's part of the plan. Pure.

`plan` calls it for each service. In this order: remove ended replicas, evict unhealthy ones, stop
drained ones, advance or end the rollout, then change the number of replicas.
"""

from collections.abc import Callable, Sequence
from functools import partial

from meshd.model.desired import DesiredService
from meshd.model.operation import ResumeReplica, StartReplica
from meshd.model.replica import RandomSource, Replica
from meshd.model.replica_phase import ALIVE, Phase
from meshd.model.runtime import ContainerHealth
from meshd.reconcile.observe.observe import Observed
from meshd.reconcile.plan import eviction, removal, warm_pool
from meshd.reconcile.plan.dependencies import DependencyState
from meshd.reconcile.plan.resize import drift_delay, replace, resize
from meshd.reconcile.plan.start import ScaleUp, ServicePlan, plan_starts
from meshd.reconcile.restart_policy import has_completed
from meshd.reconcile.rollout.outcome import RolloutOutcome, rollout_outcome
from meshd.reconcile.rollout.stages import has_switched, without_growing_stage
from meshd.reconcile.rollout.steps import fail_rollout


def is_settled(service: DesiredService, group: Sequence[Replica]) -> bool:
    """Whether there is nothing to do, found by a single look at each replica.

    Most services of a large mesh are settled most of the time, so this keeps a pass cheap.
    """
    if not service.rollout.is_done or service.warm or len(group) != service.desired:
        return False
    revision = service.revision
    for replica in group:
        if (
            replica.phase is not Phase.READY
            or replica.revision != revision
            or replica.bad
            or replica.health is ContainerHealth.UNHEALTHY
            or replica.busy
            or replica.warm
            or replica.paused_by_others
            or replica.drift + replica.replaced_for
            or not replica.managed
        ):
            return False
    return True


def plan_service(
    service: DesiredService,
    group: Sequence[Replica],
    observed: Observed,
    dependencies: DependencyState,
    now: float,
    random: RandomSource,
) -> ServicePlan:
    """Return the steps that are safe now.

    The first replica, and a rollout, may have to wait for `dependencies`.
    """
    blocker = dependencies.blocker
    service = without_growing_stage(service) if observed.analyses is None else service
    group = [r for r in group if r.managed or service.adopted]
    operations = removal.remove_ended(service, group, now)
    operations += removal.read_outputs(service, group, observed.outputs_kept)
    drains = eviction.evict(service, group, now)
    operations += drains
    evicted = {drain.name for drain in drains}
    pool = warm_pool.warm_replicas(group, evicted)
    alive = [r for r in group if _is_live(r) and r.name not in evicted]
    operations += warm_pool.repeat_resume(alive)
    operations += warm_pool.resume_paused_by_others(group)
    operations += removal.finish_removal(service, group, observed.moving_ports, now)
    new, old = _split_by_revision(service, alive, now)
    outcome = RolloutOutcome()
    if not service.adopted:
        ended = sum(has_completed(service, replica) for replica in group)
        if old and dependencies.rollout_failed and service.rollout.is_rolling:
            failed = fail_rollout(service, dependencies.rollout_blocker)
            return ServicePlan((*operations, failed))
        wait = blocker or (dependencies.rollout_blocker if old else "")
        outcome = rollout_outcome(service, new, old, ended, observed, wait, now)
    operations += outcome.operations
    if outcome.halts:
        return ServicePlan(tuple(operations), outcome.waiting_for)

    start = partial(plan_starts, service, group, observed, now, random)
    if old and not has_switched(service):
        if dependencies.rollout_blocker and service.rollout.is_rolling:
            return ServicePlan(tuple(operations), dependencies.rollout_blocker)
        lost = _failures_since(service, observed)
        steps, missing = replace(service, group, new, old, lost, now)
        started = start(missing, blocker)
        operations += [*steps, *started.operations]
        return ServicePlan(tuple(operations), started.waiting_for or outcome.waiting_for)
    sized = _resize(service, group, new, pool, blocker, start)
    waiting_for = sized.waiting_for or outcome.waiting_for
    operations += sized.operations
    resumed = {step.name for step in sized.operations if isinstance(step, ResumeReplica)}
    steps, missing = warm_pool.maintain([r for r in pool if r.name not in resumed], service)
    operations += steps
    starting = any(isinstance(step, StartReplica) for step in operations)
    if not waiting_for and not starting and not service.adopted:
        operations += start(missing, blocker).operations
    return ServicePlan(tuple(operations), waiting_for)


def _resize(
    service: DesiredService,
    group: Sequence[Replica],
    serving: Sequence[Replica],
    pool: Sequence[Replica],
    blocker: str,
    start: Callable[[ScaleUp | None, str], ServicePlan],
) -> ServicePlan:
    """The step to the desired number. Only the first replicas wait for the `blocker`, whether
    they are started or resumed."""
    blocked = bool(blocker) and not serving
    steps, missing = resize(service, group, serving, [] if blocked else pool)
    if blocked and missing is not None:
        return ServicePlan(waiting_for=blocker)
    started = start(missing, "")
    return ServicePlan((*steps, *started.operations), started.waiting_for)


def _failures_since(service: DesiredService, observed: Observed) -> int:
    """The number of known failures of all revisions since the rollout began."""
    since = service.rollout.since
    return sum(
        failure.at >= since
        for (key, _), failures in observed.failures.items()
        if key == service.key
        for failure in failures
    )


def _is_live(replica: Replica) -> bool:
    """Whether it serves or will, and is not in the warm pool."""
    return (replica.phase in ALIVE or replica.phase is Phase.PAUSED) and not replica.warm


def _split_by_revision(
    service: DesiredService, alive: list[Replica], now: float
) -> tuple[list[Replica], list[Replica]]:
    """The replicas of the effective revision that stay, and the others. One whose drift is to be
    replaced later counts as the former.

    All replicas of a paused rollout, and all of an adopted service that others started, count as
    the former: none of them is replaced. A copy of a container that others have replaced by another
    version counts as the latter.
    """
    if service.rollout.is_paused:
        return alive, []
    if service.adopted:
        current = {r.revision for r in alive if not r.managed}
        outdated = [r for r in alive if r.managed and current and r.revision not in current]
        return [r for r in alive if r not in outdated], outdated
    policy = service.spec.restart
    matching = [
        (r.revision == service.revision and not r.replaced_for)
        and (not r.drift or now < r.created_at + drift_delay(r.attempt, policy))
        for r in alive
    ]
    new = [r for r, matches in zip(alive, matching, strict=True) if matches]
    old = [r for r, matches in zip(alive, matching, strict=True) if not matches]
    return new, old
