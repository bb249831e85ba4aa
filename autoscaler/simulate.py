"""Discrete-event simulation of one service under a policy.

The model: replicas with a number of workers and a bounded queue each, log-normal service times,
a start-up delay, a balancer, Poisson arrivals inside each second. A replica is paid for from
the moment it is ordered until it has drained.

No event heap is needed: a replica serves in order, so the moment a request ends is known the
moment it is placed. What happens later (completions, latency) is filed under the second it
happens in, and becomes the signal of that second.
"""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush, heapreplace
from math import ceil, exp, log, sqrt
from typing import Any, Final, Protocol

from autoscaler.decision import Decision
from autoscaler.signals import Signal

BOUNDS: Final = tuple(0.001 * 1.03**step for step in range(420))


class Dice(Protocol):
    """The part of `random.Random` that is used."""

    def random(self) -> float: ...
    def uniform(self, a: float, b: float, /) -> float: ...
    def gauss(self, mu: float = 0.0, sigma: float = 1.0, /) -> float: ...


class Stepper(Protocol):
    """What can be simulated: anything with the interface of `autoscaler.Policy`."""

    def initial(self, now: float, /) -> Any: ...
    def step(self, state: Any, signal: Signal | None, now: float, /) -> tuple[Any, Decision]: ...


@dataclass(frozen=True, slots=True)
class Model:
    """What is simulated. Times are seconds.

    `workers` requests are served at once by a replica, `queue` more may wait in it, the rest is
    refused. `warm` replicas are held paused and take `wake` to be ready; ordering one from the
    pool orders its replacement. None leaves the size of the pool to the policy. The first
    `unscored` seconds count for nothing.
    """

    workers: int = 4
    queue: int = 50
    service_mean: float = 0.1
    service_cv: float = 0.5
    startup: tuple[float, float] = (5.0, 15.0)
    objective: float = 0.4
    least: int = 1
    most: int = 200
    warm: int | None = 0
    wake: float = 0.1
    unscored: int = 120


class Estimator(Protocol):
    """What a replica's latency is taken to be, from the answers seen so far: `load` was, or is,
    in flight to it."""

    def observe(self, seconds: float, now: float, load: int, /) -> None: ...
    def at(self, load: int, /) -> float: ...


class Replica:
    """One simulated replica, with the attributes a balancer goes by. `ends` is a heap of the
    times its requests end, `free` of the times its workers are free."""

    __slots__ = (
        "ends",
        "fast_failing",
        "free",
        "id",
        "in_flight",
        "ordered",
        "ready_at",
        "seen",
        "startup",
        "weight",
        "woken",
    )

    def __init__(self, name: str, workers: int, ordered: float, startup: float) -> None:
        self.id = name
        self.ordered = ordered
        self.startup = startup
        self.ready_at = ordered + startup
        self.ends: list[float] = []
        self.free = [self.ready_at] * workers
        self.in_flight = 0
        self.weight = 1.0
        self.fast_failing = False
        self.woken = False
        self.seen: Estimator | None = None

    @property
    def latency(self) -> float:
        """Recent latency in seconds; 0 while unknown."""
        return self.seen.at(self.in_flight) if self.seen is not None else 0.0


@dataclass(frozen=True, slots=True)
class Balancer:
    """A balancing rule from elsewhere: `pick` chooses the index of a ready replica (it is given
    the same tuple for as long as the set is the same), `estimator` makes what a replica's
    latency is kept in."""

    pick: Callable[[tuple[Replica, ...], float], int]
    estimator: Callable[[], Estimator]


@dataclass(slots=True)
class Fleet:
    """The replicas of a run, and what has been filed for the seconds to come."""

    model: Model
    dice: Dice
    balancer: Balancer | None = None
    ready: list[Replica] = field(default_factory=list)
    starting: list[Replica] = field(default_factory=list)
    warm: list[Replica] = field(default_factory=list)
    draining: list[float] = field(default_factory=list)
    paid: float = 0.0
    warm_paid: float = 0.0
    in_flight: int = 0
    pool: list[float] = field(default_factory=list)
    ordered: int = 0
    kept: int = 0
    coming: list[tuple[float, float, int, int, Replica]] = field(default_factory=list)
    latencies: dict[int, list[float]] = field(default_factory=dict)
    ends: dict[int, list[float]] = field(default_factory=dict)
    busy: dict[int, float] = field(default_factory=dict)

    def fill(self, count: int, times: Sequence[float] = ()) -> None:
        """Starts with `count` ready replicas and the pool. Service times are drawn from the
        model, or from the measured `times`."""
        model, gauss = self.model, self.dice.gauss
        if times:
            size, random = len(times), self.dice.random
            self.pool = [times[int(random() * size)] for _ in range(1 << 17)]
        else:
            sigma = sqrt(log(1.0 + model.service_cv**2))
            mu = log(model.service_mean) - sigma * sigma / 2.0
            self.pool = [exp(gauss(mu, sigma)) for _ in range(1 << 17)]
        self.ready = [self._new(0.0, 0.0) for _ in range(count)]
        self.kept = model.warm or 0
        self.warm = [self._new(0.0, 0.0) for _ in range(self.kept)]

    def _new(self, now: float, startup: float) -> Replica:
        self.ordered += 1
        one = Replica(f"r{self.ordered}", self.model.workers, now, startup)
        if self.balancer is not None:
            one.seen = self.balancer.estimator()
        return one

    def scale(self, desired: int, now: float) -> None:
        """Brings the number of ready and starting replicas to `desired`: newest go first."""
        have = len(self.ready) + len(self.starting)
        for _ in range(desired - have):
            self._order(now)
        for _ in range(have - desired):
            if self.starting:
                gone = self.starting.pop()
                self.paid += now - gone.ordered
            else:
                gone = self.ready.pop()
                end = max(gone.ends, default=now)
                self.paid += max(end, now) - gone.ordered
                self.draining.append(end)

    def keep(self, size: int, now: float) -> None:
        """Brings the pool of paused replicas to `size`: those not there yet go first."""
        self.kept = size
        for _ in range(size - len(self.warm)):
            self.warm.append(self._new(now, self.dice.uniform(*self.model.startup)))
        for _ in range(len(self.warm) - size):
            gone = max(self.warm, key=_ready_at)
            self.warm.remove(gone)
            self.warm_paid += now - gone.ordered

    def _order(self, now: float) -> None:
        startup = self.dice.uniform(*self.model.startup)
        paused = next((one for one in self.warm if one.ready_at <= now), None)
        if paused is None:
            self.starting.append(self._new(now, startup))
            return
        self.warm.remove(paused)
        self.warm_paid += now - paused.ordered
        awake = self._new(now, self.model.wake)
        awake.woken = True
        self.starting.append(awake)
        if len(self.warm) < self.kept:
            self.warm.append(self._new(now, startup))

    def second(self, start: int, times: list[float]) -> tuple[Signal, list[float]]:
        """Plays one second of arrivals (`times`, ascending) and tells what it looked like, and
        the latency of each request that arrived in it (infinite where it was refused)."""
        up = sorted((one for one in self.starting if one.ready_at < start + 1.0), key=_ready_at)
        if up:
            self.starting = [one for one in self.starting if one.ready_at >= start + 1.0]
        answers: list[float] = []
        place = self._place if self.balancer is None else self._place_by
        begin = 0
        for one in up:
            cut = bisect_right(times, one.ready_at)
            place(times[begin:cut], answers)
            begin = cut
            self.ready.append(one)
        place(times[begin:], answers)
        return self._signal(start, times, answers, up), answers

    def _place(self, times: list[float], answers: list[float]) -> None:
        """Power of two choices by requests in flight, written out: this loop is the run time."""
        ready, random = self.ready, self.dice.random
        many = len(ready)
        if not many:
            answers.extend([float("inf")] * len(times))
            return
        workers, room = self.model.workers, self.model.workers + self.model.queue
        pool, mask = self.pool, len(self.pool) - 1
        at = int(random() * len(pool))
        latencies, filed, busy = self.latencies, self.ends, self.busy
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
                answers.append(float("inf"))
                continue
            at = (at + 1) & mask
            service = pool[at]
            end = (now if held < workers else chosen.free[0]) + service
            heapreplace(chosen.free, end)
            heappush(ends, end)
            second = int(end)
            if second in filed:
                filed[second].append(end)
                latencies[second].append(end - now)
                busy[second] += service
            else:
                filed[second] = [end]
                latencies[second] = [end - now]
                busy[second] = service
            answers.append(end - now)

    def _place_by(self, times: list[float], answers: list[float]) -> None:
        """As `_place`, with the balancer's rule; what it goes by is kept exact."""
        assert self.balancer is not None
        ready, pick = tuple(self.ready), self.balancer.pick
        room = self.model.workers + self.model.queue
        pool, mask = self.pool, len(self.pool) - 1
        at = int(self.dice.random() * len(pool))
        coming, turn = self.coming, 0
        for now in times:
            while coming and coming[0][0] <= now:
                end, latency, _, load, one = heappop(coming)
                one.in_flight -= 1
                heappop(one.ends)
                assert one.seen is not None
                one.seen.observe(latency, end, load)
            chosen = ready[pick(ready, now)] if ready else None
            if chosen is None or chosen.in_flight >= room:
                answers.append(float("inf"))
                continue
            at = (at + 1) & mask
            turn += 1
            end = max(now, chosen.free[0]) + pool[at]
            heapreplace(chosen.free, end)
            heappush(chosen.ends, end)
            heappush(coming, (end, end - now, turn, chosen.in_flight, chosen))
            chosen.in_flight += 1
            second = int(end)
            self.ends.setdefault(second, []).append(end)
            self.latencies.setdefault(second, []).append(end - now)
            self.busy[second] = self.busy.get(second, 0.0) + pool[at]
            answers.append(end - now)

    def _signal(
        self, start: int, times: list[float], answers: list[float], up: list[Replica]
    ) -> Signal:
        done = self.latencies.pop(start, [])
        ends = self.ends.pop(start, [])
        busy = self.busy.pop(start, 0.0)
        shed = answers.count(float("inf")) if answers else 0
        after = start + 1.0
        taken = sum(after - t for t, answer in zip(times, answers, strict=True) if answer < 1e9)
        in_flight = self.in_flight + taken - (after * len(ends) - sum(ends))
        self.in_flight += len(times) - shed - len(ends)
        self.draining = [end for end in self.draining if end > after]
        many = len(self.ready)
        return Signal(
            arrivals=len(times),
            completions=len(done),
            in_flight=in_flight,
            latency=histogram(done),
            latency_sum=sum(done),
            shed=shed,
            ready=many,
            starting=len(self.starting),
            draining=len(self.draining),
            startups=tuple(one.startup for one in up if not one.woken),
            wakes=tuple(one.startup for one in up if one.woken),
            cpu=100.0 * busy / (many * self.model.workers) if many else None,
        )

    def settle(self, now: float) -> tuple[float, float]:
        """Replica-seconds paid for until `now`, and those of paused ones."""
        held = sum(now - one.ordered for one in (*self.ready, *self.starting))
        paused = sum(now - one.ordered for one in self.warm)
        return self.paid + held, self.warm_paid + paused


def _ready_at(one: Replica) -> float:
    return one.ready_at


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


@dataclass(slots=True)
class Result:
    """What a run came to. `chart` samples (second, arrivals, ready, desired) every minute."""

    requests: int = 0
    missed: int = 0
    replica_hours: float = 0.0
    warm_hours: float = 0.0
    actions: int = 0
    latency: dict[float, int] = field(default_factory=dict)
    chart: list[tuple[int, int, int, int]] = field(default_factory=list)

    @property
    def missed_pct(self) -> float:
        """Share of the scored requests over the objective or refused."""
        return 100.0 * self.missed / self.requests if self.requests else 0.0

    def quantile(self, q: float) -> float | None:
        """Latency in seconds that a share `q` of the answered requests stayed under."""
        total = sum(self.latency.values())
        seen = 0
        for bound in sorted(self.latency):
            seen += self.latency[bound]
            if seen >= q * total:
                return bound
        return None


def first_count(model: Model, rate: float) -> int:
    """Replicas to start with: square-root staffing of the first second's offered load."""
    load = rate * model.service_mean
    count = ceil((load + 2.0 * sqrt(load)) / model.workers)
    return min(max(count, model.least, 1), model.most)


def poisson(mean: float, dice: Dice) -> int:
    """A Poisson number: by inversion of exponentials, or a rounded normal from 60 up, where
    the two cannot be told apart in a sum over seconds."""
    if mean >= 60.0:
        return max(0, int(dice.gauss(mean, sqrt(mean)) + 0.5))
    limit, product, count = exp(-mean), dice.random(), 0
    while product > limit:
        product *= dice.random()
        count += 1
    return count


def run(
    rates: Sequence[float],
    policy: Stepper,
    model: Model,
    dice: Dice,
    balancer: Balancer | None = None,
    times: Sequence[float] = (),
) -> Result:
    """Plays `rates` (requests a second, one value a second) through `policy`. Without a
    balancer, power of two choices by requests in flight; without measured service `times`,
    log-normal ones."""
    fleet = Fleet(model, dice, balancer)
    desired = first_count(model, rates[0] if rates else 0.0)
    fleet.fill(desired, times)
    state = policy.initial(0.0)
    result = Result()
    random = dice.random
    for start, rate in enumerate(rates):
        times = sorted([start + random() for _ in range(poisson(rate, dice))])
        signal, answers = fleet.second(start, times)
        _score(result, model, start, signal, answers)
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


def _score(result: Result, model: Model, start: int, signal: Signal, answers: list[float]) -> None:
    if start < model.unscored:
        return
    objective = model.objective
    result.requests += len(answers)
    result.missed += sum([answer > objective for answer in answers])
    latency = result.latency
    for bound, count in signal.latency:
        latency[bound] = latency.get(bound, 0) + count
