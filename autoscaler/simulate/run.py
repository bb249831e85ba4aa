"""One run: plays a load through a policy, second by second. Pure.

`meshd simulate`, the benchmark and the tests call it.
"""

from collections.abc import Sequence
from math import ceil, exp, sqrt
from typing import Any, Final, Protocol

from autoscaler.decision import Decision
from autoscaler.signals import Signal
from autoscaler.simulate.model import Rng, ServiceModel
from autoscaler.simulate.placement import Balancer
from autoscaler.simulate.result import SimulationResult
from autoscaler.simulate.service import SimulatedService

INITIAL_BETA: Final = 2.0
"""Square-root staffing factor of the first number: cautious, as no policy has decided yet."""
NORMAL_FROM: Final = 60.0
"""Mean from which a rounded normal replaces the Poisson distribution: the difference vanishes in a
sum over seconds, and inversion takes time in proportion to the mean."""


class Stepper(Protocol):
    """A policy to simulate: anything with the interface of `autoscaler.Policy`."""

    def initial(self, now: float, /) -> Any: ...
    def step(self, state: Any, signal: Signal | None, now: float, /) -> tuple[Any, Decision]: ...


def run(
    rates: Sequence[float],
    policy: Stepper,
    model: ServiceModel,
    rng: Rng,
    balancer: Balancer | None = None,
    times: Sequence[float] = (),
) -> SimulationResult:
    """Play `rates` (requests per second, one value for each second) through `policy`.

    Without a balancer, requests go by power of two choices on requests in flight. Without measured
    service `times`, service times are log-normal.
    """
    service = SimulatedService(model, rng, balancer, times)
    fleet = service.fleet
    desired = initial_count(model, rates[0] if rates else 0.0)
    fleet.begin(desired)
    state = policy.initial(0.0)
    result = SimulationResult()
    random = rng.random
    for start, rate in enumerate(rates):
        arrivals = sorted([start + random() for _ in range(poisson(rate, rng))])
        signal, answers = service.second(start, arrivals)
        if start >= model.unscored:
            result.score(answers, signal.latency, model.objective)
        if start % 60 == 0:
            result.chart.append((start, signal.arrivals, signal.ready, desired))
        unseen = model.gaps > 0.0 and random() < model.gaps
        state, decision = policy.step(state, None if unseen else signal, start + 1.0)
        new = min(max(decision.desired, model.min_replicas), model.max_replicas)
        if new != desired and not unseen:
            desired = new
            result.actions += 1
            fleet.scale(desired, start + 1.0)
        if model.warm is None:
            fleet.resize_pool(decision.warm, start + 1.0)
    paid, paused = fleet.cost(float(len(rates)))
    result.replica_hours, result.warm_hours = paid / 3600.0, paused / 3600.0
    return result


def initial_count(model: ServiceModel, rate: float) -> int:
    """Return the replicas to start with: square-root staffing of the load at `rate`."""
    load = rate * model.service_mean
    count = ceil((load + INITIAL_BETA * sqrt(load)) / model.workers)
    return min(max(count, model.min_replicas, 1), model.max_replicas)


def poisson(mean: float, rng: Rng) -> int:
    """Draw a Poisson number: by inversion of exponentials (Knuth), or from `NORMAL_FROM` on as a
    rounded normal."""
    if mean >= NORMAL_FROM:
        return max(0, int(rng.gauss(mean, sqrt(mean)) + 0.5))
    limit, product, count = exp(-mean), rng.random(), 0
    while product > limit:
        product *= rng.random()
        count += 1
    return count
