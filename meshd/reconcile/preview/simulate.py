"""All the steps from here to what is wanted, by planning again and again in imagination. Pure.

A plan holds only the steps that are safe now; whoever asks what a deployment would do wants
to see them all. Here every step comes off at once.
"""

from typing import Final

import msgspec

from meshd.model.desired import Desired
from meshd.model.job import HookState
from meshd.model.operation import (
    Advance,
    DrainReplica,
    Forget,
    Operation,
    Plan,
    Prepare,
    RemoveReplica,
    Restore,
    ResumeReplica,
    RunHook,
    Settle,
    StartReplica,
    StopReplica,
)
from meshd.model.replica import RandomSource, Replica
from meshd.model.replica_phase import Phase
from meshd.model.runtime import ContainerHealth
from meshd.reconcile.observe.observe import Observed
from meshd.reconcile.plan.plan import plan

PASSES: Final = 1000
LATER: Final = 3600.0
_UNFINISHED: Final = (Phase.PENDING, Phase.STARTING, Phase.PROBING)


def forecast(desired: Desired, observed: Observed, now: float, dice: RandomSource) -> Plan:
    """Every operation until nothing is left to do, in order; `Settle` steps left out."""
    steps = passes(desired, observed, now, dice)
    return Plan(operations=tuple(operation for each in steps for operation in each))


def passes(
    desired: Desired, observed: Observed, now: float, dice: RandomSource
) -> list[tuple[Operation, ...]]:
    """The same by passes: what is begun together."""
    observed = _settled(observed, now)
    done: list[tuple[Operation, ...]] = []
    for _ in range(PASSES):
        operations = plan(desired, observed, now, dice).operations
        if not operations or all(isinstance(op, Forget) for op in operations):
            break
        for operation in operations:
            desired, observed = _imagine(desired, observed, operation, now)
        done.append(tuple(op for op in operations if not isinstance(op, Settle)))
        now += LATER
    return done


def _settled(observed: Observed, now: float) -> Observed:
    """What is under way has come off, and nothing stands in the way."""
    replicas = tuple(
        msgspec.structs.replace(
            replica,
            phase=_finished(replica),
            ready_since=replica.ready_since or now,
            drained=True,
            busy=False,
            bad=0,
            health=ContainerHealth.NONE,
        )
        for replica in observed.replicas
    )
    return Observed(replicas=replicas, prepared=observed.prepared, hooks={})


def _finished(replica: Replica) -> Phase:
    """Where it comes to when all goes well."""
    if replica.phase in _UNFINISHED:
        return Phase.PAUSED if replica.reserve else Phase.READY
    return replica.phase


def _imagine(
    desired: Desired, observed: Observed, operation: Operation, now: float
) -> tuple[Desired, Observed]:
    replicas = {replica.name: replica for replica in observed.replicas}
    prepared, hooks = observed.prepared, observed.hooks or {}
    match operation:
        case Prepare(project=project, service=service, revision=revision):
            prepared = prepared | {(f"{project}/{service}", revision)}
        case StartReplica():
            replicas[operation.name] = Replica(
                name=operation.name,
                project=operation.project,
                service=operation.service,
                revision=operation.revision,
                phase=Phase.PAUSED if operation.reserve else Phase.READY,
                created_at=now,
                ready_since=0.0 if operation.reserve else now,
                drained=True,
                reserve=operation.reserve,
            )
        case DrainReplica(name=name) if name in replicas:
            replicas[name] = msgspec.structs.replace(
                replicas[name], phase=Phase.DRAINING, drain_since=now, cause=operation.cause
            )
        case ResumeReplica(name=name) if name in replicas:
            replicas[name] = msgspec.structs.replace(
                replicas[name], phase=Phase.READY, ready_since=now, reserve=False
            )
        case StopReplica(name=name) | RemoveReplica(name=name) | Restore(name=name):
            replicas.pop(name, None)
        case Settle():
            desired = _with(desired, operation.subject, state=operation.outcome)
        case RunHook(id=id):
            hooks = {**hooks, id: HookState(is_over=True, ok=True)}
        case Advance():
            desired = _with(desired, operation.subject, stage=operation.stage, stage_since=now)
        case _:
            pass
    seen = Observed(replicas=tuple(replicas.values()), prepared=prepared, hooks=hooks)
    return desired, seen


def _with(desired: Desired, key: str, **changes: object) -> Desired:
    return msgspec.structs.replace(
        desired,
        services=tuple(
            msgspec.structs.replace(
                service, rollout=msgspec.structs.replace(service.rollout, **changes)
            )
            if service.key == key
            else service
            for service in desired.services
        ),
    )
