"""Which replicas are taken out for not being healthy. Pure."""

from collections.abc import Sequence

from meshd.model.desired import DesiredService
from meshd.model.operation import DrainReplica
from meshd.model.replica import Replica
from meshd.model.replica_phase import Phase
from meshd.model.runtime import ContainerHealth
from meshd.spec.model import HealthCheck


def take_out(service: DesiredService, group: Sequence[Replica], now: float) -> list[DrainReplica]:
    """Take out what never got healthy or is healthy no more.

    Of ready ones at most half of the wanted count may be out at a time: where all fail at
    once, more likely something else is the matter, and restarting all would end it all.
    """
    health = service.spec.mesh.health
    drains: list[DrainReplica] = []
    ready = sum(r.serves for r in group)
    spare = ready - service.count + max(1, service.count // 2)
    for replica in group:
        cause = _never_healthy(replica, health, now)
        if not cause and spare > 0:
            cause = _healthy_no_more(replica, health)
            spare -= bool(cause)
        if cause:
            drains.append(DrainReplica(name=replica.name, cause=cause, blame=True))
    return drains


def _never_healthy(replica: Replica, health: HealthCheck, now: float) -> str:
    """Why a replica on its way up is given up; empty while it may still come."""
    waking = replica.phase is Phase.PAUSED and not replica.reserve
    coming = waking or replica.phase in (Phase.STARTING, Phase.PROBING)
    if not coming or replica.busy or not replica.managed:
        return ""
    if now < max(replica.since, replica.woken) + health.start_timeout:
        return ""
    return f"not healthy within {health.start_timeout:g} s ({replica.probe})"


def _healthy_no_more(replica: Replica, health: HealthCheck) -> str:
    """Why a ready replica is given up; empty where it is well."""
    if replica.phase is not Phase.READY:
        return ""
    if replica.bad >= health.failures:
        return f"{replica.bad} bad probes in a row ({replica.probe})"
    if replica.health is ContainerHealth.UNHEALTHY:
        return "its container's health check fails"
    return ""
