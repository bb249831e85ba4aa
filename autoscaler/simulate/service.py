"""A service played second by second: arrivals in, a signal out."""

from bisect import bisect_right
from collections.abc import Sequence
from typing import Final

from autoscaler.signals import Signal
from autoscaler.simulate.fleet import Fleet
from autoscaler.simulate.model import Rng, ServiceModel
from autoscaler.simulate.placement import (
    REFUSED,
    Balancer,
    ByRule,
    Filed,
    LeastOfTwo,
    Placement,
    draw_costs,
)
from autoscaler.simulate.replica import SimulatedReplica

BOUNDS: Final = tuple(0.001 * 1.03**step for step in range(420))


class SimulatedService:
    """One simulated service: its `fleet`, and the requests that are on it.

    Without a balancer it goes by power of two choices by requests in flight; without `measured`
    service times (seconds) they are drawn from the model. `costs` are those that were drawn.
    """

    def __init__(
        self,
        model: ServiceModel,
        dice: Rng,
        balancer: Balancer | None = None,
        measured: Sequence[float] = (),
    ) -> None:
        self.fleet = Fleet(model, dice, balancer.estimator if balancer is not None else None)
        self.costs = draw_costs(model, dice, measured)
        self._filed = Filed()
        self._placement: Placement = (
            LeastOfTwo(model, dice, self.costs, self._filed)
            if balancer is None
            else ByRule(model, dice, self.costs, self._filed, balancer)
        )
        self._workers = model.workers
        self._in_flight = 0

    def second(self, start: int, times: list[float]) -> tuple[Signal, list[float]]:
        """Plays one second of arrivals (`times`, ascending) and tells what it looked like, and
        the latency of each request that arrived in it (infinite where it was refused)."""
        answers: list[float] = []
        ready, place = self.fleet.ready, self._placement.place
        up = self.fleet.coming_up(start + 1.0)
        begin = 0
        for one in up:
            cut = bisect_right(times, one.ready_at)
            place(ready, times[begin:cut], answers)
            begin = cut
            ready.append(one)
        place(ready, times[begin:], answers)
        return self._signal(start, times, answers, up), answers

    def _signal(
        self, start: int, times: list[float], answers: list[float], up: list[SimulatedReplica]
    ) -> Signal:
        ends, done, busy = self._filed.take(start)
        shed = answers.count(REFUSED)
        after = start + 1.0
        taken = sum(after - t for t, answer in zip(times, answers, strict=True) if answer < 1e9)
        in_flight = self._in_flight + taken - (after * len(ends) - sum(ends))
        self._in_flight += len(times) - shed - len(ends)
        many = len(self.fleet.ready)
        return Signal(
            arrivals=len(times),
            completions=len(done),
            in_flight=in_flight,
            latency=histogram(done),
            latency_sum=sum(done),
            shed=shed,
            ready=many,
            starting=len(self.fleet.starting),
            draining=self.fleet.draining(after),
            startups=tuple(one.startup for one in up if not one.woken),
            wakes=tuple(one.startup for one in up if one.woken),
            cpu=100.0 * busy / (many * self._workers) if many else None,
        )


def histogram(latencies: list[float]) -> tuple[tuple[float, int], ...]:
    """(upper bound, count) of the occupied buckets of `BOUNDS`; sorts `latencies`."""
    latencies.sort()
    found, seen, many = [], 0, len(latencies)
    while seen < many:
        bucket = bisect_right(BOUNDS, latencies[seen])
        upper = BOUNDS[min(bucket, len(BOUNDS) - 1)]
        until = max(bisect_right(latencies, upper, seen), seen + 1)
        found.append((upper, until - seen))
        seen = until
    return tuple(found)
