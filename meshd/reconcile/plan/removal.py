"""How replicas leave: drained, stopped once no worker uses them, removed. Pure.

Called by `meshd.reconcile.plan.plan` and `.service`.
"""

from collections.abc import Collection, Sequence
from typing import Final

from meshd.model.desired import DesiredService
from meshd.model.operation import (
    DrainReplica,
    Operation,
    ReadOutput,
    RemoveReplica,
    RestoreReplica,
    StopReplica,
)
from meshd.model.replica import Replica
from meshd.model.replica_phase import ALIVE, ENDED, Phase
from meshd.model.runtime import ContainerHealth
from meshd.model.service_key import ServiceKey
from meshd.reconcile.restart_policy import has_failed, stays_ended
from meshd.spec.model import Service

OTHERS_REMOVE: Final = 15.0
"""Seconds in which others may remove a copy that they stopped; `docker compose down` needs up to
10 s to stop all containers before it removes them."""
OTHERS_RESTART: Final = 5.0
"""Seconds in which others may start a plain container again that they stopped: `docker restart`
does so at once, but on a busy host the engine needs seconds; it fails if the container is gone."""
HANGING_DRAIN: Final = 2.0
"""Seconds that the requests of a replica get to finish if it does not answer probes. The workers
end them before that (`proxy.request.data_plane.GIVEN_UP_SECONDS`)."""
KIND_CHANGE_DRAIN: Final = 2.0
"""Seconds for which a replica that others call directly stays once its service is mesh-managed: by
then they find the service at its virtual address, and have their answers."""
_UNKNOWN: Final = Service(name="unknown")


def remove_all(group: Sequence[Replica], cause: str, now: float) -> list[Operation]:
    """Take all managed replicas of a service that is not desired any more one step further."""
    operations: list[Operation] = []
    for replica in group:
        if not replica.managed or _is_left_to_others(replica, now):
            continue
        if replica.busy and (not replica.in_hooks or replica.drain_since):
            continue
        if replica.phase in ENDED:
            operations.append(RemoveReplica(name=replica.name, cause=cause))
        elif replica.phase in ALIVE or replica.phase is Phase.PAUSED:
            operations.append(DrainReplica(name=replica.name, cause=cause))
        else:
            operations += _stop(replica, _UNKNOWN, now)
    return operations


def remove_ended(service: DesiredService, group: Sequence[Replica], now: float) -> list[Operation]:
    """Remove the ended replicas, except those that stay until the service changes."""
    operations: list[Operation] = []
    kept = _kept(service, group)
    for replica in group:
        if replica.phase not in ENDED or replica.busy or not replica.managed:
            continue
        if replica.name in kept or _is_left_to_others(replica, now):
            continue
        if may_be_restarted(service, replica, now):
            continue
        failed = replica.phase is Phase.FAILED
        cause = "it ended by itself" if failed else replica.cause or "it was stopped"
        operations.append(RemoveReplica(name=replica.name, failed=failed, cause=cause))
    return operations


def read_outputs(
    service: DesiredService, group: Sequence[Replica], known: Collection[str]
) -> list[Operation]:
    """Keep the last lines of the failed replicas that stay, except of those in `known`."""
    kept = _kept(service, group) - set(known)
    return [
        ReadOutput(name=replica.name, cause="it failed and is not restarted")
        for replica in group
        if replica.name in kept and not replica.busy and has_failed(service, replica)
    ]


def _kept(service: DesiredService, group: Sequence[Replica]) -> set[str]:
    """The ended replicas that stay, so that they do not run again: the newest ones of the current
    revision, up to the desired number, and while a rollout is not over the completed ones of the
    previous revision."""
    ended = sorted(
        (r for r in group if stays_ended(service, r)), key=lambda r: r.created_at, reverse=True
    )
    kept = {replica.name for replica in ended[: service.desired]}
    rollout = service.rollout
    if rollout.is_unfinished and service.desired:
        kept |= {
            r.name for r in group if r.phase is Phase.COMPLETED and r.revision == rollout.previous
        }
    return kept


def finish_removal(
    service: DesiredService,
    group: Sequence[Replica],
    moving_ports: Collection[ServiceKey],
    now: float,
) -> list[Operation]:
    """Stop the drained replicas. An adopted one is not stopped: it returns once it answers.
    `moving_ports`: services whose ports the mesh is about to take from their plain replicas."""
    operations: list[Operation] = []
    for replica in group:
        if replica.phase not in (Phase.DRAINING, Phase.STOPPING):
            continue
        if replica.managed:
            if not (replica.plain and service.key in moving_ports):
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


def may_be_restarted(service: DesiredService, replica: Replica, now: float) -> bool:
    """Return whether others stopped this container of a plain service just now, and may be about to
    start it again."""
    stopped = replica.phase is Phase.GONE and not replica.drain_since
    return service.spec.plain and stopped and replica.since + OTHERS_RESTART > now


def _stop(replica: Replica, spec: Service, now: float) -> list[Operation]:
    """Stop a draining replica if that is safe; no operation if it is not."""
    if replica.busy or not replica.managed:
        return []
    cause = replica.cause
    # Workers use a plain replica once its service is mesh-managed.
    changes = replica.plain and not spec.plain and spec is not _UNKNOWN
    if replica.phase is Phase.STOPPING:
        if now < replica.since + spec.stop_grace_period:
            return []
        cause = f"still runs {now - replica.since:.0f} s after the stop signal"
    elif changes and now < replica.drain_since + KIND_CHANGE_DRAIN:
        return []
    elif not replica.drained and (changes or not replica.plain):
        deadline = spec.mesh.drain.requests
        deadline = min(deadline, HANGING_DRAIN) if replica.hangs else deadline
        if now < replica.drain_since + deadline:
            return []
        cause = f"{cause}; drain deadline of {deadline:g} s passed"
    version = (replica.key, replica.revision)
    return [
        StopReplica(name=replica.name, grace=spec.stop_grace_period, version=version, cause=cause)
    ]
