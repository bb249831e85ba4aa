"""One run: a load through a policy, second by second."""

from collections.abc import Sequence
from math import ceil, exp, sqrt
from typing import Any, Protocol

from autoscaler.decision import Decision
from autoscaler.signals import Signal
from autoscaler.simulate.model import Rng, ServiceModel
from autoscaler.simulate.placement import Balancer
from autoscaler.simulate.result import SimulationResult
from autoscaler.simulate.service import SimulatedService


class Stepper(Protocol):
    """What can be simulated: anything with the interface of `autoscaler.Policy`."""

    def initial(self, now: float, /) -> Any: ...
    def step(self, state: Any, signal: Signal | None, now: float, /) -> tuple[Any, Decision]: ...


def run(
    rates: Sequence[float],
    policy: Stepper,
    model: ServiceModel,
    dice: Rng,
    balancer: Balancer | None = None,
    times: Sequence[float] = (),
) -> SimulationResult:
    """Plays `rates` (requests a second, one value a second) through `policy`. Without a
    balancer, power of two choices by requests in flight; without measured service `times`,
    log-normal ones."""
    service = SimulatedService(model, dice, balancer, times)
    fleet = service.fleet
    desired = first_count(model, rates[0] if rates else 0.0)
    fleet.begin(desired)
    state = policy.initial(0.0)
    result = SimulationResult()
    random = dice.random
    for start, rate in enumerate(rates):
        arrivals = sorted([start + random() for _ in range(poisson(rate, dice))])
        signal, answers = service.second(start, arrivals)
        if start >= model.unscored:
            result.score(answers, signal.latency, model.objective)
        if start % 60 == 0:
            result.chart.append((start, signal.arrivals, signal.ready, desired))
        state, decision = policy.step(state, signal, start + 1.0)
        wanted = min(max(decision.desired, model.least), model.most)
        if wanted != desired:
            desired = wanted
            result.actions += 1
            fleet.scale(desired, start + 1.0)
        if model.warm is None:
            fleet.keep(decision.warm, start + 1.0)
    paid, paused = fleet.settle(float(len(rates)))
    result.replica_hours, result.warm_hours = paid / 3600.0, paused / 3600.0
    return result


def first_count(model: ServiceModel, rate: float) -> int:
    """Replicas to start with: square-root staffing of the first second's offered load."""
    load = rate * model.service_mean
    count = ceil((load + 2.0 * sqrt(load)) / model.workers)
    return min(max(count, model.least, 1), model.most)


def poisson(mean: float, dice: Rng) -> int:
    """A Poisson number: by inversion of exponentials, or a rounded normal from 60 up, where
    the two cannot be told apart in a sum over seconds."""
    if mean >= 60.0:
        return max(0, int(dice.gauss(mean, sqrt(mean)) + 0.5))
    limit, product, count = exp(-mean), dice.random(), 0
    while product > limit:
        product *= dice.random()
        count += 1
    return count
