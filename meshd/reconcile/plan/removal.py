"""The one road by which replicas leave: drained, stopped once nobody uses them, removed. Pure."""

from collections.abc import Sequence
from typing import Final

from meshd.model.desired import DesiredService
from meshd.model.operation import DrainReplica, Operation, RemoveReplica, Restore, StopReplica
from meshd.model.replica import NO_ANSWER, Replica
from meshd.model.replica_phase import ALIVE, ENDED, Phase
from meshd.model.runtime import ContainerHealth
from meshd.spec.model import Service

OTHERS_REMOVE: Final = 15.0
"""Seconds that a copy which others stopped is left to them to remove."""
HANGING: Final = 2.0
"""Seconds that a replica which answers no probe has for what it was asked before: most likely it
will answer none of that either, and once it is ended, what may be asked again is."""
_UNKNOWN: Final = Service(name="unknown")


def leave(group: Sequence[Replica], cause: str, now: float) -> list[Operation]:
    """Everything of ours in `group`, whose service is wanted no more, goes."""
    operations: list[Operation] = []
    for replica in group:
        if not replica.managed or replica.busy or _left_to_others(replica, now):
            continue
        if replica.phase in ENDED:
            operations.append(RemoveReplica(name=replica.name, cause=cause))
        elif replica.phase in ALIVE or replica.phase is Phase.PAUSED:
            operations.append(DrainReplica(name=replica.name, cause=cause))
        else:
            operations += _stop(replica, _UNKNOWN, now)
    return operations


def clear(service: DesiredService, group: Sequence[Replica], now: float) -> list[Operation]:
    """Remove what ended, but for those that are to be left so."""
    operations: list[Operation] = []
    for replica in group:
        if replica.phase not in ENDED or replica.busy or not replica.managed:
            continue
        if completed(service, replica) or _left_to_others(replica, now):
            continue
        failed = replica.phase is Phase.FAILED
        cause = "it ended by itself" if failed else replica.cause or "it was stopped"
        operations.append(RemoveReplica(name=replica.name, failed=failed, cause=cause))
    return operations


def completed(service: DesiredService, replica: Replica) -> bool:
    """It ended and its restart policy wants it left so."""
    condition = service.spec.restart.condition
    if condition == "any" or replica.phase is not Phase.FAILED or replica.exit_code is None:
        return False
    return replica.revision == service.revision and (condition == "none" or replica.exit_code == 0)


def finish(service: DesiredService, group: Sequence[Replica], now: float) -> list[Operation]:
    """The next step of those that are on their way out. One that is not ours to stop comes back
    once it answers again."""
    operations: list[Operation] = []
    for replica in group:
        if replica.phase not in (Phase.DRAINING, Phase.STOPPING):
            continue
        if replica.managed:
            operations += _stop(replica, service.spec, now)
        elif replica.phase is Phase.DRAINING and not replica.bad and replica.probe:
            healthy = replica.health in (ContainerHealth.NONE, ContainerHealth.HEALTHY)
            if healthy and replica.blamed:
                operations.append(Restore(name=replica.name, cause="it answers again"))
    return operations


def _left_to_others(replica: Replica, now: float) -> bool:
    """A copy that others stopped is theirs to remove first: whoever takes a whole application
    down counts on finding it."""
    ended = replica.phase in ENDED and not replica.drain_since
    return replica.copied and ended and replica.since + OTHERS_REMOVE > now


def _stop(replica: Replica, spec: Service, now: float) -> list[Operation]:
    """Stop a leaving replica when that is safe; nothing while it is not."""
    if replica.busy or not replica.managed:
        return []
    why = replica.cause
    if replica.phase is Phase.STOPPING:
        if now < replica.since + spec.stop_grace_period:
            return []
        why = f"was told to stop {now - replica.since:.0f} s ago and still runs"
    elif not replica.drained:
        hangs = replica.blamed and NO_ANSWER in replica.cause
        patience = min(spec.mesh.drain, HANGING) if hangs else spec.mesh.drain
        if now < replica.drain_since + patience:
            return []
        why = f"{why}; drain deadline of {patience:g} s passed"
    return [StopReplica(name=replica.name, grace=spec.stop_grace_period, cause=why)]
