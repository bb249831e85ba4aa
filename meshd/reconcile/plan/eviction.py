"""Evict unhealthy replicas. Pure. Called by `meshd.reconcile.plan.service`."""

from collections.abc import Sequence
from typing import Final

from meshd.model.desired import DesiredService
from meshd.model.operation import DrainReplica
from meshd.model.replica import ELSEWHERE, REFUSED, UNKNOWN_PATH, Replica
from meshd.model.replica_phase import Phase
from meshd.model.runtime import ContainerHealth
from meshd.spec.model import HealthCheck, Service

UNKNOWN_PATH_PATIENCE: Final = 20.0
"""Seconds until a replica fails that answers 404 to the default probe: it is up, and will most
likely never have this path, so that the start timeout is of no use."""
ELSEWHERE_PATIENCE: Final = 30.0
"""Seconds until a replica fails that listens, but not where the mesh connects: it is up. A program
that opens another port first, such as that of a debugger, has this time for its own one; with
settings of `x-mesh.health` it has the start timeout."""


def evict(service: DesiredService, group: Sequence[Replica], now: float) -> list[DrainReplica]:
    """Drain the replicas that never got healthy or are not healthy any more.

    At most half of the desired number are evicted at a time, and of those that serve too. If all
    fail at once, the cause is probably elsewhere, and restarting all of them would make it worse. A
    replica that was not ready for requests before it failed takes none away from those that serve.
    """
    health = service.spec.probe
    drains: list[DrainReplica] = []
    fewest = service.desired - max(1, service.desired // 2)
    up = sum(r.phase is Phase.READY for r in group)
    serving = sum(r.serves for r in group)
    for replica in group:
        cause = _failed_to_start(replica)
        if cause is None and health.type != "none":
            cause = _never_healthy(replica, service.spec, now)
        if cause is None and up > fewest and (serving > fewest or not replica.serves):
            cause = _not_healthy_any_more(replica, health)
            if cause is not None:
                up -= 1
                serving -= replica.serves
        if cause is not None:
            drains.append(DrainReplica(name=replica.name, cause=cause, count_as_failure=True))
    return drains


def _failed_to_start(replica: Replica) -> str | None:
    """Why a starting replica is evicted by its container's own health check, which has a start
    period. Without a probe only that check counts."""
    if replica.phase is not Phase.PROBING or not replica.managed or replica.busy:
        return None
    unhealthy = replica.health is ContainerHealth.UNHEALTHY
    return "its container's health check fails" if unhealthy else None


def _never_healthy(replica: Replica, spec: Service, now: float) -> str | None:
    """Why a starting replica is evicted; None while it may still get healthy: for the start timeout
    of the probe, and for the start period of its health check."""
    own = spec.healthcheck
    patience = spec.probe.start_timeout
    if replica.probe == UNKNOWN_PATH and spec.mesh.health == HealthCheck():
        patience = UNKNOWN_PATH_PATIENCE
    if ELSEWHERE in replica.probe and spec.mesh.health == HealthCheck():
        patience = min(patience, ELSEWHERE_PATIENCE)
    if own is not None and not own.disable and replica.health is not ContainerHealth.UNHEALTHY:
        patience = max(patience, own.start_period)
    resuming = replica.phase is Phase.PAUSED and not replica.warm
    starting = resuming or replica.phase in (Phase.STARTING, Phase.PROBING)
    if not starting or replica.busy or not replica.managed:
        return None
    if now < max(replica.since, replica.resumed_at) + patience:
        return None
    hint = ""
    if replica.probe == REFUSED and replica.port:
        hint = f"; nothing listens on port {replica.port}, x-mesh.port sets another one"
    return f"not healthy within {patience:g} s ({replica.probe}{hint})"


def _not_healthy_any_more(replica: Replica, health: HealthCheck) -> str | None:
    """Why a ready replica is evicted; None if it is healthy."""
    if replica.phase is not Phase.READY:
        return None
    if replica.bad >= health.failures:
        return f"{replica.bad} bad probes in a row ({replica.probe})"
    if replica.health is ContainerHealth.UNHEALTHY:
        return "its container's health check fails"
    return None
