"""Balancing rules with a few slow replicas, in simulation.

Model: a replica has four workers and a FIFO queue of 50 (further requests are refused). Service
times are log-normal with mean 100 ms and coefficient of variation 0.5; arrivals are Poisson. Four
of the twenty replicas are three times slower. A request misses if it is refused or takes longer
than 400 ms. Load is relative to the capacity of all replicas. Several proxy workers see each
other's numbers through shared memory, read at most every 2 ms.

    python -m bench.balancing [--seconds 300] [--seeds 3] [--workers 1,2,4]
"""

import argparse
import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from random import Random
from typing import Final

from proxy.policy.balance import Picker, make_picker
from proxy.policy.hashing import hash_key
from proxy.policy.latency import LatencyAtLoad, LatencyEstimator, PeakEwma
from proxy.wire.snapshot import Algorithm, Balance, Endpoint

ALGORITHMS: Final[tuple[Algorithm, ...]] = (
    "hot-cold",
    "peak-ewma",
    "least-request",
    "round-robin",
    "weighted",
    "random",
    "ring-hash",
    "maglev",
)
OBJECTIVE: Final = 0.4
"""Seconds; a slower request misses."""
WARM_UP: Final = 20.0
"""Seconds before counting starts."""
REFRESH: Final = 0.002
"""Seconds between two reads of the shared memory."""
CLIENTS: Final = 10_000
"""Clients, for the hash rules."""


@dataclass(frozen=True)
class Scene:
    """One simulation.

    - `slowness`: factor on the service time for each replica
    - `servers`, `queue`: workers and queue length of a replica
    - `mean`, `variation`: mean service time in seconds, and its coefficient of variation
    - `load`: share of the capacity of all replicas
    - `seconds`: length
    - `workers`: proxy workers
    """

    slowness: tuple[float, ...] = (3.0,) * 4 + (1.0,) * 16
    servers: int = 4
    queue: int = 50
    mean: float = 0.1
    variation: float = 0.5
    load: float = 0.75
    seconds: float = 300.0
    workers: int = 1

    @property
    def rate(self) -> float:
        """Requests per second, all replicas."""
        return self.load * sum(self.servers / (self.mean * slow) for slow in self.slowness)


class View:
    """One proxy worker's view of a replica: a candidate."""

    __slots__ = ("estimate", "fast_failing", "id", "in_flight", "node", "own", "weight")

    def __init__(self, id: str, estimate: LatencyEstimator) -> None:
        self.id = id
        self.own = 0
        self.in_flight = 0
        self.weight = 1.0
        self.fast_failing = False
        self.node = ""
        self.estimate = estimate

    @property
    def latency(self) -> float:
        return self.estimate.at(self.in_flight)


class Replica:
    """A replica: workers and a FIFO queue of (arrival time, proxy worker, load met)."""

    __slots__ = ("busy", "slow", "waiting")

    def __init__(self, slow: float) -> None:
        self.slow = slow
        self.busy = 0
        self.waiting: deque[tuple[float, int, int]] = deque()


@dataclass
class Outcome:
    """Counts after the warm-up; `picked` is the number of requests per replica."""

    requests: int
    missed: int
    latencies: list[float]
    picked: list[int]

    @property
    def miss_percent(self) -> float:
        return 100.0 * self.missed / max(1, self.requests)

    def quantile(self, q: float) -> float:
        """Return a quantile of the latency of answered requests, in seconds."""
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, int(q * len(ordered)))] if ordered else 0.0


def estimator(algorithm: Algorithm) -> Callable[[], LatencyEstimator]:
    """Return the latency estimator of a rule."""
    return PeakEwma if algorithm == "peak-ewma" else LatencyAtLoad


class Run:
    """One simulation of one rule."""

    def __init__(self, algorithm: Algorithm, scene: Scene, seed: int) -> None:
        self.scene = scene
        self.random = Random(seed)
        self.replicas = [Replica(slow) for slow in scene.slowness]
        members = [
            Endpoint(id=f"r{i}", host="", port=0, weight=weight)
            for i, weight in enumerate(static_weights(algorithm, scene))
        ]
        estimate = estimator(algorithm)
        self.views = [
            tuple(View(member.id, estimate()) for member in members) for _ in range(scene.workers)
        ]
        for views in self.views:
            for view, member in zip(views, members, strict=True):
                view.weight = member.weight
        self.pickers: list[Picker] = [
            make_picker(Balance(algorithm=algorithm), members) for _ in self.views
        ]
        self.refreshed = [0.0] * scene.workers
        sigma2 = math.log(1.0 + scene.variation**2)
        self._mu, self._sigma = math.log(scene.mean) - sigma2 / 2.0, math.sqrt(sigma2)
        # (end, tie-breaker, replica, proxy worker, arrival, load met)
        self.events: list[tuple[float, int, int, int, float, int]] = []
        self.serial = 0
        self.outcome = Outcome(0, 0, [], [0] * len(members))

    def run(self) -> Outcome:
        """Run the simulation to its end."""
        now, rate, limit = 0.0, self.scene.rate, self.scene.seconds + WARM_UP
        while True:
            now += self.random.expovariate(rate)
            if now > limit:
                return self.outcome
            while self.events and self.events[0][0] <= now:
                self._finish(*heappop(self.events))
            self._arrive(now)

    def choose_worker(self) -> int:
        """Return the proxy worker that the next request arrives at."""
        return int(self.random.random() * self.scene.workers)

    def delay(self, worker: int, chosen: int) -> float:
        """Return the seconds that requests of a worker to a replica are under way."""
        del worker, chosen
        return 0.0

    def note(self, worker: int, chosen: int, arrival: float, latency: float) -> None:
        """Take note of an answer."""

    def _arrive(self, now: float) -> None:
        worker = self.choose_worker()
        views = self.views[worker]
        if len(self.views) > 1 and now - self.refreshed[worker] >= REFRESH:
            self.refreshed[worker] = now
            for index, view in enumerate(views):
                view.in_flight = sum(other[index].own for other in self.views)
        key = hash_key(b"client %d" % self.random.randrange(CLIENTS))
        chosen = self.pickers[worker].pick(views, key, self.random.random, now)
        scored = now >= WARM_UP
        if scored:
            self.outcome.requests += 1
            self.outcome.picked[chosen] += 1
        replica, load = self.replicas[chosen], views[chosen].in_flight
        if replica.busy < self.scene.servers:
            replica.busy += 1
            self._serve(now, chosen, worker, now, load)
        elif len(replica.waiting) < self.scene.queue:
            replica.waiting.append((now, worker, load))
        else:
            self.outcome.missed += scored
            return
        views[chosen].own += 1
        views[chosen].in_flight += 1

    def _serve(self, now: float, replica: int, worker: int, arrival: float, load: int) -> None:
        time = self.random.lognormvariate(self._mu, self._sigma) * self.replicas[replica].slow
        self.serial += 1
        heappush(self.events, (now + time, self.serial, replica, worker, arrival, load))

    def _finish(
        self, now: float, _: int, index: int, worker: int, arrival: float, load: int
    ) -> None:
        view = self.views[worker][index]
        view.own -= 1
        view.in_flight -= 1
        latency = now - arrival + self.delay(worker, index)
        self.note(worker, index, arrival, latency)
        view.estimate.observe(latency, now, load)
        if arrival >= WARM_UP:
            self.outcome.latencies.append(latency)
            self.outcome.missed += latency > OBJECTIVE
        replica = self.replicas[index]
        if replica.waiting:
            waited, for_worker, met = replica.waiting.popleft()
            self._serve(now, index, for_worker, waited, met)
        else:
            replica.busy -= 1


def static_weights(algorithm: Algorithm, scene: Scene) -> Sequence[float]:
    """Return the weights: true speeds for weighted round robin; other rules must find them out."""
    if algorithm == "weighted":
        return [1.0 / slow for slow in scene.slowness]
    return [1.0] * len(scene.slowness)


def mean_miss(algorithm: Algorithm, scene: Scene, seeds: int) -> tuple[float, float]:
    """Return the mean miss percentage and p99 in milliseconds over several seeds."""
    outcomes = [Run(algorithm, scene, seed).run() for seed in range(1, seeds + 1)]
    misses = sum(outcome.miss_percent for outcome in outcomes) / seeds
    return misses, 1e3 * sum(outcome.quantile(0.99) for outcome in outcomes) / seeds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workers", default="1,2,4")
    parser.add_argument("--equal", action="store_true", help="all replicas are equally fast")
    options = parser.parse_args()
    workers = [int(count) for count in options.workers.split(",")]
    slowness = (1.0,) * 20 if options.equal else Scene.slowness
    columns = [(count, load) for count in workers for load in (0.75, 0.9)]
    print("misses in % (p99 in ms); 20 replicas, " + ("equal" if options.equal else "4 slow"))
    print(f"{'rule':14}" + "".join(f"{f'{n}w @ {load}':>18}" for n, load in columns))
    for algorithm in ALGORITHMS:
        cells = []
        for count, load in columns:
            scene = Scene(slowness, load=load, seconds=options.seconds, workers=count)
            miss, p99 = mean_miss(algorithm, scene, options.seeds)
            cells.append(f"{f'{miss:.2f} ({p99:.0f})':>18}")
        print(f"{algorithm:14}" + "".join(cells), flush=True)


if __name__ == "__main__":
    main()
