"""A simulated service, played second by second: arrivals in, a signal out. Pure.

`simulate.run` owns it and scales its fleet.
"""

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
    ChangingLeastOfTwo,
    ChangingTimes,
    Filed,
    LeastOfTwo,
    RequestPlacement,
    SharedProcessor,
    draw_costs,
)
from autoscaler.simulate.replica import SimulatedReplica

BOUNDS: Final = tuple(0.001 * 1.03**step for step in range(420))
"""Upper bounds of the latency buckets in seconds: 3 % apart, as in the proxy's histograms, from
1 ms to 240 s."""


class SimulatedService:
    """One simulated service: its `fleet`, and the requests in flight.

    Without a balancer, requests go by power of two choices on requests in flight. Without
    `measured` service times (seconds), these are drawn from the model. `costs` are those drawn.
    """

    def __init__(
        self,
        model: ServiceModel,
        rng: Rng,
        balancer: Balancer | None = None,
        measured: Sequence[float] = (),
    ) -> None:
        self.costs = draw_costs(model, rng, measured)
        self._filed = Filed()
        self._placement = _make_placement(model, rng, self.costs, self._filed, balancer)
        self.fleet = Fleet(
            model,
            rng,
            self._placement.drain_end,
            balancer.estimator if balancer is not None else None,
        )
        self._downstream_known = model.dependency_known
        self._workers = model.workers
        self._in_flight = 0

    def second(self, start: int, times: list[float]) -> tuple[Signal, list[float]]:
        """Play one second of arrivals (`times`, ascending). Return its signal, and the latency of
        each request that arrived in it (infinite if it was refused)."""
        answers: list[float] = []
        ready, place = self.fleet.ready, self._placement.place
        started = self.fleet.take_started(start + 1.0)
        begin = 0
        for replica in started:
            cut = bisect_right(times, replica.ready_at)
            place(ready, times[begin:cut], answers)
            begin = cut
            ready.append(replica)
        place(ready, times[begin:], answers)
        scored = self._placement.settle(ready, start + 1.0, answers)
        return self._signal(start, times, answers, started), scored

    def _signal(
        self, start: int, times: list[float], answers: list[float], started: list[SimulatedReplica]
    ) -> Signal:
        ends, latencies, busy = self._filed.take(start)
        outside = self._filed.outside.pop(start, 0.0)
        shed = answers.count(REFUSED)
        after = start + 1.0
        arrived = sum(
            after - t for t, answer in zip(times, answers, strict=True) if answer < REFUSED
        )
        in_flight = self._in_flight + arrived - (after * len(ends) - sum(ends))
        self._in_flight += len(times) - shed - len(ends)
        count = len(self.fleet.ready)
        return Signal(
            arrivals=len(times),
            completions=len(latencies),
            in_flight=in_flight,
            latency=histogram(latencies),
            latency_sum=sum(latencies),
            downstream_sum=outside if self._downstream_known else None,
            shed=shed,
            ready=count,
            starting=len(self.fleet.starting),
            draining=self.fleet.draining(after),
            startups=tuple(replica.startup for replica in started if not replica.resumed),
            wakes=tuple(replica.startup for replica in started if replica.resumed),
            cpu=100.0 * busy / (count * self._workers) if count else None,
        )


def _make_placement(
    model: ServiceModel, rng: Rng, costs: list[float], filed: Filed, balancer: Balancer | None
) -> RequestPlacement:
    if model.is_steady:
        if balancer is None:
            return LeastOfTwo(model, rng, costs, filed)
        return ByRule(model, rng, costs, filed, balancer)
    if balancer is not None:
        raise ValueError("a service whose times change is simulated with `p2c` only")
    times = ChangingTimes(model, rng, costs)
    if model.sharing:
        return SharedProcessor(model, rng, costs, filed, times)
    return ChangingLeastOfTwo(model, rng, costs, filed, times)


def histogram(latencies: list[float]) -> tuple[tuple[float, int], ...]:
    """Return (upper bound, count) of the occupied buckets of `BOUNDS`. Sorts `latencies`."""
    latencies.sort()
    found, seen, count = [], 0, len(latencies)
    while seen < count:
        bucket = bisect_right(BOUNDS, latencies[seen])
        upper = BOUNDS[min(bucket, len(BOUNDS) - 1)]
        until = max(bisect_right(latencies, upper, seen), seen + 1)
        found.append((upper, until - seen))
        seen = until
    return tuple(found)
