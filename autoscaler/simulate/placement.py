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
    """Results filed under future seconds: the times at which requests end, their latencies, the
    seconds for which they keep workers busy, and those for which they waited for a dependency."""

    ends: dict[int, list[float]] = field(default_factory=dict)
    latencies: dict[int, list[float]] = field(default_factory=dict)
    busy: dict[int, float] = field(default_factory=dict)
    outside: dict[int, float] = field(default_factory=dict)

    def add(self, end: float, latency: float, busy: float, outside: float = 0.0) -> None:
        """File one request under the second in which it ends."""
        second = int(end)
        self.ends.setdefault(second, []).append(end)
        self.latencies.setdefault(second, []).append(latency)
        self.busy[second] = self.busy.get(second, 0.0) + busy
        if outside:
            self.outside[second] = self.outside.get(second, 0.0) + outside

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

    def settle(
        self, ready: list[SimulatedReplica], until: float, answers: list[float], /
    ) -> list[float]:
        """File all requests that end before `until`. Return the answers of this second that count:
        `answers`, unless latencies are known only when requests end."""
        ...

    def drain_end(self, replica: SimulatedReplica, now: float) -> float:
        """Return when `replica`, removed at `now`, has finished its requests."""
        ...


class _KnownEnds:
    """The part of a rule whose requests are filed when they are placed."""

    __slots__ = ()

    def settle(
        self, _ready: list[SimulatedReplica], _until: float, answers: list[float], /
    ) -> list[float]:
        """See `RequestPlacement`."""
        return answers

    def drain_end(self, replica: SimulatedReplica, now: float) -> float:
        """See `RequestPlacement`."""
        return max(now, max(replica.ends, default=now))


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
class LeastOfTwo(_KnownEnds):
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
class ChangingTimes:
    """The time that a request takes at a moment, on a replica: see `ServiceModel`."""

    model: ServiceModel
    rng: Rng
    costs: list[float]

    def draw(self, replica: SimulatedReplica, now: float) -> tuple[float, float]:
        """Return (seconds of work, seconds of waiting for a dependency) of one request."""
        model = self.model
        cost = self.costs[int(self.rng.random() * len(self.costs))]
        if model.service_factors:
            cost *= model.service_factors[min(int(now), len(model.service_factors) - 1)]
        seconds, factor = model.warm_up
        if now - replica.ready_at < seconds and replica.startup > 0.0:
            cost *= factor
        if not model.dependency:
            return cost, 0.0
        return cost, model.dependency[min(int(now), len(model.dependency) - 1)]


@dataclass(frozen=True, slots=True)
class ChangingLeastOfTwo(_KnownEnds):
    """`LeastOfTwo` for a service whose times change."""

    model: ServiceModel
    rng: Rng
    costs: list[float]
    filed: Filed
    times: ChangingTimes

    def place(
        self, ready: list[SimulatedReplica], times: list[float], answers: list[float]
    ) -> None:
        """See `RequestPlacement`."""
        if not ready:
            answers.extend([REFUSED] * len(times))
            return
        workers, limit = self.model.workers, self.model.workers + self.model.queue
        for now in times:
            chosen = _pick_of_two(ready, self.rng, _in_flight, now)
            in_flight = len(chosen.ends)
            if in_flight >= limit:
                answers.append(REFUSED)
                continue
            cost, outside = self.times.draw(chosen, now)
            end = (now if in_flight < workers else max(now, chosen.free[0])) + cost + outside
            heapreplace(chosen.free, end)
            heappush(chosen.ends, end)
            self.filed.add(end, end - now, cost, outside)
            answers.append(end - now)


def _in_flight(replica: SimulatedReplica, now: float) -> int:
    """Remove the requests of `replica` that ended until `now`; return the number of the others."""
    ends = replica.ends
    while ends and ends[0] <= now:
        heappop(ends)
    return len(ends)


def _pick_of_two(
    ready: list[SimulatedReplica],
    rng: Rng,
    load: Callable[[SimulatedReplica, float], int],
    now: float,
) -> SimulatedReplica:
    """Return the less loaded one of two random replicas at `now`. The second is drawn if the first
    has any load."""
    count = len(ready)
    chosen = ready[int(rng.random() * count)]
    most = load(chosen, now)
    if most and count > 1:
        other = ready[int(rng.random() * count)]
        if load(other, now) < most:
            return other
    return chosen


@dataclass(frozen=True, slots=True)
class SharedProcessor:
    """Power of two choices over replicas that work on all their requests at once (processor
    sharing). With n requests on w workers each progresses at the speed min(1, w/n). When a request
    ends is known only when it ends, so latencies are scored then."""

    model: ServiceModel
    rng: Rng
    costs: list[float]
    filed: Filed
    times: ChangingTimes

    def place(
        self, ready: list[SimulatedReplica], times: list[float], answers: list[float]
    ) -> None:
        """See `RequestPlacement`. The latency of an accepted request is 0 for now."""
        if not ready:
            answers.extend([REFUSED] * len(times))
            return
        limit = self.model.workers + self.model.queue
        for now in times:
            chosen = _pick_of_two(ready, self.rng, self._in_flight, now)
            if len(chosen.shares) >= limit:
                answers.append(REFUSED)
                continue
            work = sum(self.times.draw(chosen, now))
            heappush(chosen.shares, (chosen.virtual + work, now, work))
            answers.append(0.0)

    def settle(
        self, ready: list[SimulatedReplica], until: float, answers: list[float], /
    ) -> list[float]:
        """See `RequestPlacement`."""
        for replica in ready:
            self._advance(replica, until)
        refused = [answer for answer in answers if answer == REFUSED]
        return refused + self.filed.latencies.get(int(until) - 1, [])

    def drain_end(self, replica: SimulatedReplica, now: float) -> float:
        """See `RequestPlacement`."""
        self._advance(replica, now)
        while replica.shares:
            self._finish_next(replica, REFUSED)
        return max(now, replica.updated)

    def _in_flight(self, replica: SimulatedReplica, now: float) -> int:
        """Return the number of requests of `replica` that have not ended at `now`."""
        self._advance(replica, now)
        return len(replica.shares)

    def _advance(self, replica: SimulatedReplica, now: float) -> None:
        while replica.shares and self._finish_next(replica, now):
            pass
        if replica.shares:
            speed = min(1.0, self.model.workers / len(replica.shares))
            replica.virtual += (now - replica.updated) * speed
        replica.updated = max(replica.updated, now)

    def _finish_next(self, replica: SimulatedReplica, now: float) -> bool:
        """File the next request that ends, if it ends before `now`. Return whether it does."""
        point, arrival, work = replica.shares[0]
        speed = min(1.0, self.model.workers / len(replica.shares))
        end = replica.updated + max(0.0, point - replica.virtual) / speed
        if end >= now:
            return False
        heappop(replica.shares)
        replica.virtual, replica.updated = point, end
        self.filed.add(end, end - arrival, work)
        return True


@dataclass(frozen=True, slots=True)
class ByRule(_KnownEnds):
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
