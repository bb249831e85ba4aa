"""How many replicas each objective alone would want."""

from dataclasses import dataclass
from math import sqrt

from autoscaler.policy import budget
from autoscaler.policy.capacity import strained
from autoscaler.policy.demand import headroom
from autoscaler.policy.state import Capacity, Demand
from autoscaler.settings import ScalingSettings
from autoscaler.signals import Signal
from autoscaler.window import significant

DRAIN, DRAIN_SHARE = 1.0, 0.1
"""Seconds, and share of a start-up, that a backlog may take to drain. Replicas that are long in
coming find little of it left, so it is no use to order as many as would drain it at once."""


@dataclass(frozen=True, slots=True)
class Need:
    """Replicas an objective needs, not rounded: `up` makes more of them, `down` lets go."""

    up: float
    down: float


@dataclass(frozen=True, slots=True)
class ReplicaSizing:
    """The latency objective's reckoning, in busy workers (`load` … `backlog`)."""

    load: float
    ahead: float
    backlog: float
    beta: float
    headroom: float
    burn: float

    @property
    def workers(self) -> float:
        """Workers needed: the load to come, its square-root allowance, and the backlog."""
        return self.ahead + self.beta * sqrt(self.ahead) + self.backlog


def size(
    settings: ScalingSettings,
    signal: Signal,
    demand: Demand,
    capacity: Capacity,
    spent: tuple[float, float],
) -> ReplicaSizing:
    """What the load to come takes, by what was learned."""
    burning = budget.burn(spent, settings.share, demand.level) if settings.latency else 1.0
    quantile, beta = budget.caution(settings.share, burning, capacity.startup)
    extra = headroom(demand, quantile)
    service = capacity.service_time
    load = demand.level * service
    ahead = demand.forecast * (1.0 + extra) * service
    outside = (signal.downstream_sum or 0.0) / signal.interval
    waiting = signal.in_flight + signal.parked - outside - load - 2.0 * sqrt(load)
    # Without a service time yet, each parked request is one worker's.
    drained = service / max(DRAIN, DRAIN_SHARE * capacity.startup) if service else 1.0
    backlog = 0.0 if strained(capacity) else max(0.0, waiting) * min(1.0, drained)
    return ReplicaSizing(load, ahead, backlog, beta, extra, burning)


def needs(
    settings: ScalingSettings,
    signal: Signal,
    demand: Demand,
    capacity: Capacity,
    sizing: ReplicaSizing,
) -> dict[str, Need]:
    """By objective, for those that are set and known."""
    found: dict[str, Need] = {}
    if settings.latency is not None or (settings.queue is not None and capacity.service_time):
        # What the user says a replica holds is believed until its limit has been seen.
        told = 0.0 if capacity.saturated else settings.concurrency or 0.0
        workers = sizing.workers
        found["latency"] = Need(
            workers / max(capacity.bound, told), workers / max(capacity.proven, told)
        )
    trend = demand.forecast / demand.level if demand.level else 1.0
    if settings.concurrency is not None:
        held = significant(demand.in_flights) * trend + signal.parked
        found["concurrency"] = _same(held / settings.concurrency)
    if settings.rps is not None:
        found["rps"] = _same(demand.forecast / settings.rps)
    if settings.cpu is not None and capacity.cpu:
        found["cpu"] = _same(capacity.cpu / settings.cpu)
    if settings.queue is not None and capacity.completions:
        waited = capacity.queue / capacity.completions
        if waited > settings.queue:
            found["queue"] = _same(signal.ready * min(2.0, waited / settings.queue))
    if settings.external is not None and signal.external is not None:
        found["external"] = _same(signal.external / settings.external)
    if signal.scheduled:
        found["schedule"] = _same(float(signal.scheduled))
    return found


def _same(value: float) -> Need:
    return Need(value, value)
