"""Which replica gets a request, when it is answered, and where that is written down."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush, heapreplace
from math import exp, log, sqrt
from typing import Final, Protocol

from autoscaler.simulate.model import Rng, ServiceModel
from autoscaler.simulate.replica import Estimator, SimulatedReplica

COSTS: Final = 1 << 17
"""Service times that are drawn once and then gone through; a power of two."""
REFUSED: Final = float("inf")


@dataclass(frozen=True, slots=True)
class Balancer:
    """A balancing rule from elsewhere: `pick` chooses the index of a ready replica (it is given
    the same tuple for as long as the set is the same), `estimator` makes what a replica's
    latency is kept in."""

    pick: Callable[[tuple[SimulatedReplica, ...], float], int]
    estimator: Callable[[], Estimator]


@dataclass(slots=True)
class Filed:
    """What has been filed under the seconds to come: the moments at which requests end, their
    latencies, and the seconds that workers were busy with them."""

    ends: dict[int, list[float]] = field(default_factory=dict)
    latencies: dict[int, list[float]] = field(default_factory=dict)
    busy: dict[int, float] = field(default_factory=dict)

    def take(self, second: int) -> tuple[list[float], list[float], float]:
        """Ends, latencies and busy seconds of that second; they are filed no more."""
        ends, latencies = self.ends.pop(second, []), self.latencies.pop(second, [])
        return ends, latencies, self.busy.pop(second, 0.0)


class Placement(Protocol):
    """A way to spread requests over the replicas that are ready."""

    def place(
        self, ready: list[SimulatedReplica], times: list[float], answers: list[float]
    ) -> None:
        """Places requests that arrive at `times` (ascending), and appends the latency of each to
        `answers`, `REFUSED` where no replica had room for it."""
        ...


def draw_costs(model: ServiceModel, dice: Rng, measured: Sequence[float] = ()) -> list[float]:
    """`COSTS` service times in seconds: of the model, or out of the `measured` ones."""
    if measured:
        size, random = len(measured), dice.random
        return [measured[int(random() * size)] for _ in range(COSTS)]
    gauss = dice.gauss
    sigma = sqrt(log(1.0 + model.service_cv**2))
    mu = log(model.service_mean) - sigma * sigma / 2.0
    return [exp(gauss(mu, sigma)) for _ in range(COSTS)]


@dataclass(frozen=True, slots=True)
class LeastOfTwo:
    """Power of two choices by requests in flight, written out: this loop is the run time."""

    model: ServiceModel
    dice: Rng
    costs: list[float]
    filed: Filed

    def place(
        self, ready: list[SimulatedReplica], times: list[float], answers: list[float]
    ) -> None:
        """See `Placement`."""
        random = self.dice.random
        many = len(ready)
        if not many:
            answers.extend([REFUSED] * len(times))
            return
        workers, room = self.model.workers, self.model.workers + self.model.queue
        costs, mask = self.costs, len(self.costs) - 1
        at = int(random() * len(costs))
        filed, latencies, busy = self.filed.ends, self.filed.latencies, self.filed.busy
        for now in times:
            chosen = ready[int(random() * many)]
            ends = chosen.ends
            while ends and ends[0] <= now:
                heappop(ends)
            if ends and many > 1:
                other = ready[int(random() * many)]
                others = other.ends
                while others and others[0] <= now:
                    heappop(others)
                if len(others) < len(ends):
                    chosen, ends = other, others
            held = len(ends)
            if held >= room:
                answers.append(REFUSED)
                continue
            at = (at + 1) & mask
            cost = costs[at]
            end = (now if held < workers else chosen.free[0]) + cost
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
    """The rule of a balancer; what it goes by is kept exact."""

    model: ServiceModel
    dice: Rng
    costs: list[float]
    filed: Filed
    balancer: Balancer
    coming: list[tuple[float, float, int, int, SimulatedReplica]] = field(default_factory=list)
    """A heap of (end, latency, turn, load at the start, replica) of what is in flight."""

    def place(
        self, ready: list[SimulatedReplica], times: list[float], answers: list[float]
    ) -> None:
        """See `Placement`."""
        candidates, pick = tuple(ready), self.balancer.pick
        room = self.model.workers + self.model.queue
        costs, mask = self.costs, len(self.costs) - 1
        at = int(self.dice.random() * len(costs))
        filed, coming = self.filed, self.coming
        for turn, now in enumerate(times):
            self._finish(now)
            chosen = candidates[pick(candidates, now)] if candidates else None
            if chosen is None or chosen.in_flight >= room:
                answers.append(REFUSED)
                continue
            at = (at + 1) & mask
            end = max(now, chosen.free[0]) + costs[at]
            heapreplace(chosen.free, end)
            heappush(chosen.ends, end)
            heappush(coming, (end, end - now, turn, chosen.in_flight, chosen))
            chosen.in_flight += 1
            second = int(end)
            filed.ends.setdefault(second, []).append(end)
            filed.latencies.setdefault(second, []).append(end - now)
            filed.busy[second] = filed.busy.get(second, 0.0) + costs[at]
            answers.append(end - now)

    def _finish(self, now: float) -> None:
        coming = self.coming
        while coming and coming[0][0] <= now:
            end, latency, _, load, one = heappop(coming)
            one.in_flight -= 1
            heappop(one.ends)
            assert one.seen is not None
            one.seen.observe(latency, end, load)
