"""One service's part of the plan: clear what ended, take out the sick, stop the drained, settle
the rollout, then bring to size. Pure."""

from collections.abc import Callable, Sequence
from functools import partial

from meshd.model.desired import DesiredService
from meshd.model.operation import ResumeReplica, StartReplica
from meshd.model.replica import RandomSource, Replica
from meshd.model.replica_phase import ALIVE, Phase
from meshd.model.runtime import ContainerHealth
from meshd.reconcile.observe.observe import Observed
from meshd.reconcile.plan import eviction, removal, warm_pool
from meshd.reconcile.plan.resize import replace, resize
from meshd.reconcile.plan.start import ScaleUp, ServicePlan, launch
from meshd.reconcile.rollout.outcome import RolloutOutcome, settle
from meshd.reconcile.rollout.stages import switched, unwatched


def at_rest(service: DesiredService, group: Sequence[Replica]) -> bool:
    """Whether one look at each replica tells that there is nothing to do: of a thousand services
    all but a few are so at any time."""
    if not service.rollout.is_done or service.warm or len(group) != service.count:
        return False
    revision = service.revision
    for replica in group:
        if (
            replica.phase is not Phase.READY
            or replica.revision != revision
            or replica.bad
            or replica.health is ContainerHealth.UNHEALTHY
            or replica.busy
            or replica.reserve
            or replica.frozen
            or replica.drift
            or not replica.managed
        ):
            return False
    return True


def plan_service(
    service: DesiredService,
    group: Sequence[Replica],
    observed: Observed,
    blocker: str,
    now: float,
    dice: RandomSource,
) -> ServicePlan:
    """The steps that are safe now. `blocker` is what its first start has to wait for."""
    service = unwatched(service) if observed.verdicts is None else service
    group = [r for r in group if r.managed or service.adopted]
    operations = removal.clear(service, group, now)
    drains = eviction.take_out(service, group, now)
    operations += drains
    sick = {drain.name for drain in drains}
    reserves = warm_pool.reserves(group, sick)
    alive = [r for r in group if _counts(r) and r.name not in sick]
    operations += warm_pool.wake_again(alive)
    operations += warm_pool.thaw(group)
    operations += removal.finish(service, group, now)
    new, old = _by_revision(service, alive)
    settled = RolloutOutcome() if service.adopted else settle(service, new, old, observed, now)
    operations += settled.operations
    if settled.halts:
        return ServicePlan(tuple(operations), settled.waits)

    order = partial(launch, service, group, observed, now, dice)
    if old and not switched(service):
        steps, need = replace(service, group, new, old, now)
        launched = order(need, blocker)
        operations += [*steps, *launched.operations]
        return ServicePlan(tuple(operations), launched.waits or settled.waits)
    size = _resized(service, group, new, reserves, blocker, order)
    waits = size.waits or settled.waits
    operations += size.operations
    woken = {step.name for step in size.operations if isinstance(step, ResumeReplica)}
    steps, need = warm_pool.tend([r for r in reserves if r.name not in woken], service)
    operations += steps
    starting = any(isinstance(step, StartReplica) for step in operations)
    if not waits and not starting and not service.adopted:
        operations += order(need, blocker).operations
    return ServicePlan(tuple(operations), waits)


def _resized(
    service: DesiredService,
    group: Sequence[Replica],
    serving: Sequence[Replica],
    reserves: Sequence[Replica],
    blocker: str,
    order: Callable[[ScaleUp | None, str], ServicePlan],
) -> ServicePlan:
    """The step to the wanted count. Only the first replicas wait for the `blocker`, and so do
    those that would be woken."""
    blocked = bool(blocker) and not serving
    steps, need = resize(service, group, serving, [] if blocked else reserves)
    if blocked and need is not None:
        return ServicePlan(waits=blocker)
    launched = order(need, "")
    return ServicePlan((*steps, *launched.operations), launched.waits)


def _counts(replica: Replica) -> bool:
    """Whether it is one of those that serve or are about to."""
    return (replica.phase in ALIVE or replica.phase is Phase.PAUSED) and not replica.reserve


def _by_revision(
    service: DesiredService, alive: list[Replica]
) -> tuple[list[Replica], list[Replica]]:
    """Those that are what is wanted, as far as anybody knows, and those that are not. What is
    adopted, or paused on the way, is taken as it is."""
    if service.adopted or service.rollout.is_paused:
        return alive, []
    right = [r.revision == service.revision and not r.drift for r in alive]
    new = [r for r, fits in zip(alive, right, strict=True) if fits]
    old = [r for r, fits in zip(alive, right, strict=True) if not fits]
    return new, old
