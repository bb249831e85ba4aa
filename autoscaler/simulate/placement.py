"""Which replica serves a request, when the request ends, and where that is filed. Pure.

`simulate.service` places the requests of each second, and takes the filed results of each second.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush, heapreplace
from math import exp, log, sqrt
from typing import Final, Protocol

from autoscaler.simulate.model import Rng, ServiceModel
from autoscaler.simulate.replica import Estimator, SimulatedReplica

SAMPLES: Final = 1 << 17
"""Service times that are drawn once; each second starts at a random one and uses the next ones in
order. A power of two, so that a mask wraps the index."""
REFUSED: Final = float("inf")
"""Latency of a refused request."""


@dataclass(frozen=True, slots=True)
class Balancer:
    """A balancing rule from elsewhere.

    - `pick`: returns the index of a ready replica. It gets the same tuple while the set is the
      same.
    - `estimator`: makes the latency estimate of a replica.
    """

    pick: Callable[[tuple[SimulatedReplica, ...], float], int]
    estimator: Callable[[], Estimator]


@dataclass(slots=True)
class Filed:
    """Results filed under future seconds: the times at which requests end, their latencies, and
    the seconds for which they keep workers busy."""

    ends: dict[int, list[float]] = field(default_factory=dict)
    latencies: dict[int, list[float]] = field(default_factory=dict)
    busy: dict[int, float] = field(default_factory=dict)

    def take(self, second: int) -> tuple[list[float], list[float], float]:
        """Remove and return the ends, latencies and busy seconds of one second."""
        ends, latencies = self.ends.pop(second, []), self.latencies.pop(second, [])
        return ends, latencies, self.busy.pop(second, 0.0)


class RequestPlacement(Protocol):
    """A rule that spreads requests over the ready replicas."""

    def place(
        self, ready: list[SimulatedReplica], times: list[float], answers: list[float]
    ) -> None:
        """Place the requests that arrive at `times` (ascending). Append the latency of each to
        `answers`, or `REFUSED` if no replica had room for it."""
        ...


def draw_costs(model: ServiceModel, rng: Rng, measured: Sequence[float] = ()) -> list[float]:
    """Return `SAMPLES` service times in seconds, from the model or from the `measured` ones."""
    if measured:
        size, random = len(measured), rng.random
        return [measured[int(random() * size)] for _ in range(SAMPLES)]
    gauss = rng.gauss
    sigma = sqrt(log(1.0 + model.service_cv**2))
    mu = log(model.service_mean) - sigma * sigma / 2.0
    return [exp(gauss(mu, sigma)) for _ in range(SAMPLES)]


@dataclass(frozen=True, slots=True)
class LeastOfTwo:
    """Power of two choices by requests in flight. Written out, because this loop takes most of the
    run time."""

    model: ServiceModel
    rng: Rng
    costs: list[float]
    filed: Filed

    def place(
        self, ready: list[SimulatedReplica], times: list[float], answers: list[float]
    ) -> None:
        """See `RequestPlacement`."""
        random = self.rng.random
        count = len(ready)
        if not count:
            answers.extend([REFUSED] * len(times))
            return
        workers, limit = self.model.workers, self.model.workers + self.model.queue
        costs, mask = self.costs, len(self.costs) - 1
        at = int(random() * len(costs))
        filed, latencies, busy = self.filed.ends, self.filed.latencies, self.filed.busy
        for now in times:
            chosen = ready[int(random() * count)]
            ends = chosen.ends
            while ends and ends[0] <= now:
                heappop(ends)
            if ends and count > 1:
                other = ready[int(random() * count)]
                others = other.ends
                while others and others[0] <= now:
                    heappop(others)
                if len(others) < len(ends):
                    chosen, ends = other, others
            in_flight = len(ends)
            if in_flight >= limit:
                answers.append(REFUSED)
                continue
            at = (at + 1) & mask
            cost = costs[at]
            end = (now if in_flight < workers else chosen.free[0]) + cost
            heapreplace(chosen.free, end)
            heappush(ends, end)
            second = int(end)
            if second in filed:
                filed[second].append(end)
                latencies[second].append(end - now)
                busy[second] += cost
            else:
                filed[second] = [end]
                latencies[second] = [end - now]
                busy[second] = cost
            answers.append(end - now)


@dataclass(frozen=True, slots=True)
class ByRule:
    """A balancer's rule; its inputs (requests in flight, latency) are exact."""

    model: ServiceModel
    rng: Rng
    costs: list[float]
    filed: Filed
    balancer: Balancer
    pending: list[tuple[float, float, int, int, SimulatedReplica]] = field(default_factory=list)
    """Heap of (end, latency, turn, load at the start, replica) of the requests in flight."""

    def place(
        self, ready: list[SimulatedReplica], times: list[float], answers: list[float]
    ) -> None:
        """See `RequestPlacement`."""
        candidates, pick = tuple(ready), self.balancer.pick
        limit = self.model.workers + self.model.queue
        costs, mask = self.costs, len(self.costs) - 1
        at = int(self.rng.random() * len(costs))
        filed, pending = self.filed, self.pending
        for turn, now in enumerate(times):
            self._finish_requests(now)
            chosen = candidates[pick(candidates, now)] if candidates else None
            if chosen is None or chosen.in_flight >= limit:
                answers.append(REFUSED)
                continue
            at = (at + 1) & mask
            end = max(now, chosen.free[0]) + costs[at]
            heapreplace(chosen.free, end)
            heappush(chosen.ends, end)
            heappush(pending, (end, end - now, turn, chosen.in_flight, chosen))
            chosen.in_flight += 1
            second = int(end)
            filed.ends.setdefault(second, []).append(end)
            filed.latencies.setdefault(second, []).append(end - now)
            filed.busy[second] = filed.busy.get(second, 0.0) + costs[at]
            answers.append(end - now)

    def _finish_requests(self, now: float) -> None:
        pending = self.pending
        while pending and pending[0][0] <= now:
            end, latency, _, load, replica = heappop(pending)
            replica.in_flight -= 1
            heappop(replica.ends)
            assert replica.estimator is not None
            replica.estimator.observe(latency, end, load)
