"""How many replicas each objective alone needs. Pure.

The policy calls `size` and `needs_by_objective` once a second, with the estimates of
`policy.demand`, `policy.capacity` and `policy.budget`; the largest need wins.
"""

from dataclasses import dataclass
from math import sqrt
from typing import Final

from autoscaler.policy import budget
from autoscaler.policy.capacity import is_strained
from autoscaler.policy.demand import expected_peak, largest_rise
from autoscaler.policy.state import CapacityEstimate, DemandEstimate
from autoscaler.settings import ScalingSettings
from autoscaler.signals import Signal
from autoscaler.window import significant_level

DRAIN_SECONDS, DRAIN_STARTUPS = 1.0, 0.1
"""Seconds, and part of a start-up time, in which a backlog should drain; the longer one counts.
Replicas that start slowly find little of the backlog left, so there is no use in ordering enough to
drain it at once."""
QUEUE_DEVIATIONS: Final = 2.0
"""Standard deviations of the busy workers beyond which requests in flight count as a backlog."""
MAX_QUEUE_RATIO: Final = 2.0
"""Factor by which the `queue` objective may multiply the ready replicas in one step."""


@dataclass(frozen=True, slots=True)
class Need:
    """Replicas that an objective needs, not rounded: above `up` more are ordered, below `down`
    some may be removed."""

    up: float
    down: float


@dataclass(frozen=True, slots=True)
class ReplicaSizing:
    """The calculation for the latency objective.

    - `load`: busy workers now; `ahead`: those expected, with headroom.
    - `backlog`: workers that drain the waiting requests.
    - `beta`: square-root staffing factor.
    - `headroom`: relative surplus for bursts.
    - `burn`: burn rate of the error budget.
    """

    load: float
    ahead: float
    backlog: float
    beta: float
    headroom: float
    burn: float

    @property
    def workers(self) -> float:
        """Workers needed: the expected load, its square-root allowance, and the backlog."""
        return self.ahead + self.beta * sqrt(self.ahead) + self.backlog


def size(
    settings: ScalingSettings,
    signal: Signal,
    demand: DemandEstimate,
    capacity: CapacityEstimate,
    spent: tuple[float, float],
    startup: float,
) -> ReplicaSizing:
    """Return what the expected load needs. `spent` is the (requests, misses) of the budget;
    `startup` is how long a start-up may take (seconds)."""
    burning = budget.burn_rate(spent, settings.share, demand.level) if settings.latency else 1.0
    quantile, beta = budget.sizing_caution(settings.share, burning, startup)
    rate, extra = expected_peak(demand, quantile)
    service = capacity.present_time
    load = demand.level * service
    ahead = rate * service
    outside = (signal.downstream_sum or 0.0) / signal.interval
    waiting = signal.awaited + signal.parked - outside - load - QUEUE_DEVIATIONS * sqrt(load)
    # While the service time is unknown, each waiting request needs one worker.
    drain = max(DRAIN_SECONDS, DRAIN_STARTUPS * capacity.planned_startup)
    drained = service / drain if service else 1.0
    backlog = 0.0 if is_strained(capacity) else max(0.0, waiting) * min(1.0, drained)
    return ReplicaSizing(load, ahead, backlog, beta, extra, burning)


def workers_after_largest_rise(
    demand: DemandEstimate, capacity: CapacityEstimate, sizing: ReplicaSizing
) -> float:
    """Return the workers needed after the largest rise that is remembered."""
    load = largest_rise(demand) * capacity.present_time
    return load + sizing.beta * sqrt(load)


def needs_by_objective(
    settings: ScalingSettings,
    signal: Signal,
    demand: DemandEstimate,
    capacity: CapacityEstimate,
    sizing: ReplicaSizing,
) -> dict[str, Need]:
    """Return the need of every objective that is set and whose input is known."""
    needs: dict[str, Need] = {}
    if settings.latency is not None or (settings.queue is not None and capacity.service_time):
        # The capacity that the user states is trusted until the real limit has been seen.
        stated = 0.0 if capacity.saturated else settings.concurrency or 0.0
        workers = sizing.workers
        needs["latency"] = Need(
            workers / max(capacity.bound, stated), workers / max(capacity.proven, stated)
        )
    trend = demand.forecast / demand.level if demand.level else 1.0
    if settings.concurrency is not None:
        # Streams stay open whatever the rate of requests does.
        level = significant_level(demand.in_flights)
        streams = min(signal.streams, level)
        in_flight = (level - streams) * trend + streams + signal.parked
        needs["concurrency"] = _exact_need(in_flight / settings.concurrency)
    if settings.rps is not None:
        needs["rps"] = _exact_need(demand.forecast / settings.rps)
    if settings.cpu is not None and capacity.cpu:
        needs["cpu"] = _exact_need(capacity.cpu / settings.cpu)
    if settings.queue is not None and capacity.completions:
        waited = capacity.queue / capacity.completions
        if waited > settings.queue:
            ratio = min(MAX_QUEUE_RATIO, waited / settings.queue)
            needs["queue"] = _exact_need(signal.ready * ratio)
    if settings.external is not None and signal.external is not None:
        needs["external"] = _exact_need(signal.external / settings.external)
    if signal.scheduled:
        needs["schedule"] = _exact_need(float(signal.scheduled))
    return needs


def _exact_need(replicas: float) -> Need:
    return Need(replicas, replicas)
