"""How replicas leave: drained, stopped once no worker uses them, removed. Pure.

Called by `meshd.reconcile.plan.plan` and `.service`.
"""

from collections.abc import Sequence
from typing import Final

from meshd.model.desired import DesiredService
from meshd.model.operation import (
    DrainReplica,
    Operation,
    RemoveReplica,
    RestoreReplica,
    StopReplica,
)
from meshd.model.replica import NO_ANSWER, Replica
from meshd.model.replica_phase import ALIVE, ENDED, Phase
from meshd.model.runtime import ContainerHealth
from meshd.spec.model import Service

OTHERS_REMOVE: Final = 15.0
"""Seconds in which others may remove a copy that they stopped; `docker compose down` needs up to
10 s to stop all containers before it removes them."""
HANGING_DRAIN: Final = 2.0
"""Seconds that the requests of a replica get to finish if it does not answer probes. Most likely it
answers none of them, and clients can retry once it has ended."""
_UNKNOWN: Final = Service(name="unknown")


def remove_all(group: Sequence[Replica], cause: str, now: float) -> list[Operation]:
    """Take all managed replicas of a service that is not desired any more one step further."""
    operations: list[Operation] = []
    for replica in group:
        if not replica.managed or replica.busy or _is_left_to_others(replica, now):
            continue
        if replica.phase in ENDED:
            operations.append(RemoveReplica(name=replica.name, cause=cause))
        elif replica.phase in ALIVE or replica.phase is Phase.PAUSED:
            operations.append(DrainReplica(name=replica.name, cause=cause))
        else:
            operations += _stop(replica, _UNKNOWN, now)
    return operations


def remove_ended(service: DesiredService, group: Sequence[Replica], now: float) -> list[Operation]:
    """Remove the ended replicas, except completed ones."""
    operations: list[Operation] = []
    for replica in group:
        if replica.phase not in ENDED or replica.busy or not replica.managed:
            continue
        if is_completed(service, replica) or _is_left_to_others(replica, now):
            continue
        failed = replica.phase is Phase.FAILED
        cause = "it ended by itself" if failed else replica.cause or "it was stopped"
        operations.append(RemoveReplica(name=replica.name, failed=failed, cause=cause))
    return operations


def is_completed(service: DesiredService, replica: Replica) -> bool:
    """Whether a replica ended and its restart policy does not restart it."""
    condition = service.spec.restart.condition
    if condition == "any" or replica.phase is not Phase.FAILED or replica.exit_code is None:
        return False
    return replica.revision == service.revision and (condition == "none" or replica.exit_code == 0)


def finish_removal(
    service: DesiredService, group: Sequence[Replica], now: float
) -> list[Operation]:
    """Stop the drained replicas. An adopted one is not stopped: it returns once it answers."""
    operations: list[Operation] = []
    for replica in group:
        if replica.phase not in (Phase.DRAINING, Phase.STOPPING):
            continue
        if replica.managed:
            operations += _stop(replica, service.spec, now)
        elif replica.phase is Phase.DRAINING and not replica.bad and replica.probe:
            healthy = replica.health in (ContainerHealth.NONE, ContainerHealth.HEALTHY)
            if healthy and replica.counted_as_failure:
                operations.append(RestoreReplica(name=replica.name, cause="it answers again"))
    return operations


def _is_left_to_others(replica: Replica, now: float) -> bool:
    """Whether others, who stopped this copy, may still remove it. A tool that takes a whole
    application down fails if a container of it disappears meanwhile."""
    ended = replica.phase in ENDED and not replica.drain_since
    return replica.copied and ended and replica.since + OTHERS_REMOVE > now


def _stop(replica: Replica, spec: Service, now: float) -> list[Operation]:
    """Stop a draining replica if that is safe; no operation if it is not."""
    if replica.busy or not replica.managed:
        return []
    cause = replica.cause
    if replica.phase is Phase.STOPPING:
        if now < replica.since + spec.stop_grace_period:
            return []
        cause = f"still runs {now - replica.since:.0f} s after the stop signal"
    elif not replica.drained:
        hangs = replica.counted_as_failure and NO_ANSWER in replica.cause
        deadline = min(spec.mesh.drain, HANGING_DRAIN) if hangs else spec.mesh.drain
        if now < replica.drain_since + deadline:
            return []
        cause = f"{cause}; drain deadline of {deadline:g} s passed"
    return [StopReplica(name=replica.name, grace=spec.stop_grace_period, cause=cause)]
