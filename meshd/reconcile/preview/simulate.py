"""Simulate a deployment: all steps to the desired state, by repeated planning. Pure.

Called by `meshd.control.deploy.preview`. A plan holds only the steps that are safe now, but a user
wants to see all of them. Here every step succeeds at once.
"""

from typing import Final

import msgspec

from meshd.model.desired import Desired
from meshd.model.job import HookState
from meshd.model.operation import (
    AdvanceRollout,
    DrainReplica,
    FinishRollout,
    ForgetProject,
    Operation,
    PauseReplica,
    Plan,
    PrepareRevision,
    RemoveReplica,
    RestoreReplica,
    ResumeReplica,
    RunHook,
    StartReplica,
    StopReplica,
)
from meshd.model.replica import RandomSource, Replica
from meshd.model.replica_phase import Phase
from meshd.model.runtime import ContainerHealth
from meshd.model.service_key import ServiceKey, service_key
from meshd.reconcile.observe.observe import Observed
from meshd.reconcile.plan.plan import plan

MAX_PASSES: Final = 1000
"""Passes after which a simulation stops: a guard against plans that never come to rest."""
PASS_SECONDS: Final = 3600.0
"""Seconds between two passes: longer than the delays, holds and deadlines of most specs."""
_STARTING: Final = (Phase.PENDING, Phase.STARTING, Phase.PROBING)


def simulate(desired: Desired, observed: Observed, now: float, random: RandomSource) -> Plan:
    """Return all operations until nothing is left to do, in order, without `FinishRollout`."""
    passes = simulate_passes(desired, observed, now, random)
    return Plan(operations=tuple(operation for each in passes for operation in each))


def simulate_passes(
    desired: Desired, observed: Observed, now: float, random: RandomSource
) -> list[tuple[Operation, ...]]:
    """Return the operations of each pass. Those of one pass run at the same time."""
    observed = _at_rest(observed, now)
    passes: list[tuple[Operation, ...]] = []
    for _ in range(MAX_PASSES):
        operations = plan(desired, observed, now, random).operations
        if not operations or all(isinstance(op, ForgetProject) for op in operations):
            break
        for operation in operations:
            desired, observed = _apply(desired, observed, operation, now)
        passes.append(tuple(op for op in operations if not isinstance(op, FinishRollout)))
        now += PASS_SECONDS
    return passes


def _at_rest(observed: Observed, now: float) -> Observed:
    """The observed state once all running operations have succeeded, without failures."""
    replicas = tuple(
        msgspec.structs.replace(
            replica,
            phase=_final_phase(replica),
            ready_since=replica.ready_since or now,
            drained=True,
            busy=False,
            bad=0,
            health=ContainerHealth.NONE,
        )
        for replica in observed.replicas
    )
    return Observed(
        replicas=replicas,
        prepared=observed.prepared,
        hooks={},
        outputs_kept=frozenset(replica.name for replica in replicas),
    )


def _final_phase(replica: Replica) -> Phase:
    """The phase that a replica reaches if all goes well."""
    if replica.phase in _STARTING:
        return Phase.PAUSED if replica.warm else Phase.READY
    return replica.phase


def _apply(
    desired: Desired, observed: Observed, operation: Operation, now: float
) -> tuple[Desired, Observed]:
    """The desired and observed state after one operation."""
    replicas = {replica.name: replica for replica in observed.replicas}
    prepared, hooks = observed.prepared, observed.hooks or {}
    match operation:
        case PrepareRevision(project=project, service=service, revision=revision):
            prepared = prepared | {(service_key(project, service), revision)}
        case StartReplica():
            completes = _completes(desired, operation)
            serving = Phase.PAUSED if operation.warm else Phase.READY
            replicas[operation.name] = Replica(
                name=operation.name,
                project=operation.project,
                service=operation.service,
                revision=operation.revision,
                phase=Phase.COMPLETED if completes else serving,
                exit_code=0 if completes else None,
                created_at=now,
                ready_since=0.0 if operation.warm else now,
                drained=True,
                warm=operation.warm,
            )
        case DrainReplica(name=name) if name in replicas:
            replicas[name] = msgspec.structs.replace(
                replicas[name], phase=Phase.DRAINING, drain_since=now, cause=operation.cause
            )
        case PauseReplica(name=name) if name in replicas:
            replicas[name] = msgspec.structs.replace(replicas[name], phase=Phase.PAUSED)
        case ResumeReplica(name=name) if name in replicas:
            replicas[name] = msgspec.structs.replace(
                replicas[name], phase=Phase.READY, ready_since=now, warm=False
            )
        case StopReplica(name=name) | RemoveReplica(name=name) | RestoreReplica(name=name):
            replicas.pop(name, None)
        case FinishRollout():
            desired = _replace_rollout(desired, operation.subject, state=operation.outcome)
        case RunHook(id=id):
            hooks = {**hooks, id: HookState(is_over=True, ok=True)}
        case AdvanceRollout():
            desired = _replace_rollout(
                desired, operation.subject, stage=operation.stage, stage_since=now
            )
        case _:
            pass
    observed = msgspec.structs.replace(
        observed, replicas=tuple(replicas.values()), prepared=prepared, hooks=hooks
    )
    return desired, observed


def _completes(desired: Desired, start: StartReplica) -> bool:
    """Whether the replica is expected to end: others wait for that, and it is not restarted."""
    group = [each for each in desired.services if each.project == start.project]
    expected = any(start.service in each.spec.wait_completed for each in group)
    own = [each.spec for each in group if each.spec.name == start.service]
    return expected and all(spec.restart_condition != "any" for spec in own)


def _replace_rollout(desired: Desired, key: ServiceKey, **changes: object) -> Desired:
    """The desired state with other values in one service's rollout."""
    services = []
    for service in desired.services:
        if service.key == key:
            rollout = msgspec.structs.replace(service.rollout, **changes)
            service = msgspec.structs.replace(service, rollout=rollout)
        services.append(service)
    return msgspec.structs.replace(desired, services=tuple(services))
