"""Which endpoint gets the next request: the load-aware rules, and `make`, which chooses one.

A picker belongs to one service in one worker. It is told the candidates at every pick; the
caller passes the *same* tuple for as long as the set is the same, which lets a picker keep what
it derived from it. A pick is an index into the candidates, or -1 when there are none.
"""

from collections.abc import Callable, Sequence
from heapq import heapify, heapreplace
from typing import Final, Protocol

from proxy.policy.hashing import ConsistentHashPicker, build_maglev, build_ring
from proxy.wire.snapshot import Balance, Endpoint

RandomSource = Callable[[], float]
UNKNOWN_LATENCY: Final = 0.03
DRAWS: Final = 16


class Candidate(Protocol):
    """An endpoint that may be picked.

    `in_flight` counts over all workers; `latency` is recent, in seconds, 0 while unknown;
    `weight` has slow start applied (see `ramp`); `fast_failing` says that its quick answers are
    failures, so that being quick must not make it preferred.
    """

    @property
    def id(self) -> str: ...
    @property
    def in_flight(self) -> int: ...
    @property
    def latency(self) -> float: ...
    @property
    def weight(self) -> float: ...
    @property
    def fast_failing(self) -> bool: ...


class Picker(Protocol):
    """A balancing rule with whatever memory it needs."""

    def pick(
        self, candidates: Sequence[Candidate], key: int | None, dice: RandomSource, now: float
    ) -> int:
        """The index of the chosen candidate, -1 when there are none.

        `key` is the hash of what the request is sticky by (None: nothing), `dice` gives
        uniform numbers in [0, 1), `now` is monotonic seconds.
        """
        ...


def make_picker(balance: Balance, members: Sequence[Endpoint] = ()) -> Picker:
    """The picker for a service's policy. `members` are all its endpoints, whether they may be
    picked now or not: hash tables are built over them, so that every worker has the same."""
    weights = {member.id: member.weight for member in members}
    match balance.algorithm:
        case "hot-cold":
            from proxy.policy.hot_cold import HotCold

            return HotCold()
        case "round-robin":
            return RoundRobin()
        case "weighted":
            return Weighted()
        case "least-request":
            return TwoChoices(least_request_score)
        case "peak-ewma":
            return TwoChoices(peak_ewma_score)
        case "random":
            return Random()
        case "ring-hash":
            return ConsistentHashPicker(build_ring, weights)
        case "maglev":
            return ConsistentHashPicker(build_maglev, weights)


def slow_start_factor(age: float, window: float, floor: float = 0.1) -> float:
    """Slow start: the share of its weight that an endpoint of `age` seconds gets, growing
    linearly over `window` seconds and never under `floor` (Envoy, aggression 1)."""
    if window <= 0.0 or age >= window:
        return 1.0
    return max(floor, age / window)


def in_panic(healthy: int, total: int, threshold: float) -> bool:
    """Whether so few endpoints are healthy that ejection is to be ignored: sending everything
    to the few would only take them down as well (Envoy's panic threshold)."""
    return healthy < total * threshold


def least_request_score(candidate: Candidate) -> float:
    """Least request's score: requests in flight with this one, per weight (Envoy, bias 1)."""
    return (candidate.in_flight + 1) / candidate.weight


def peak_ewma_score(candidate: Candidate) -> float:
    """Peak EWMA's score: latency times requests in flight with this one, per weight (Finagle). An
    endpoint without history is taken to answer in 30 ms (linkerd)."""
    latency = candidate.latency or UNKNOWN_LATENCY
    return latency * (candidate.in_flight + 1) / candidate.weight


class RoundRobin:
    """Each in turn. Starts at a random one, so that workers do not march in step."""

    def __init__(self) -> None:
        self._turn = -1

    def pick(
        self, candidates: Sequence[Candidate], key: int | None, dice: RandomSource, now: float
    ) -> int:
        count = len(candidates)
        if not count:
            return -1
        turn = self._turn + 1 if self._turn >= 0 else int(dice() * count)
        self._turn = turn = turn if turn < count else turn % count
        return turn


class Random:
    """Any of them, by weight: a random one is taken with a chance of its weight to the
    heaviest's, else another is drawn (which costs the same for any number of them)."""

    def __init__(self) -> None:
        self._seen: Sequence[Candidate] = ()
        self._heaviest = 1.0
        self._left = 0

    def pick(
        self, candidates: Sequence[Candidate], key: int | None, dice: RandomSource, now: float
    ) -> int:
        count = len(candidates)
        if count < 2:
            return count - 1
        self._left -= 1
        if self._left < 0 or candidates is not self._seen:
            self._seen = candidates
            self._left = count
            self._heaviest = max([candidate.weight for candidate in candidates])
        for _ in range(DRAWS):
            chosen = int(dice() * count)
            weight = candidates[chosen].weight
            if weight >= self._heaviest or dice() * self._heaviest < weight:
                return chosen
        return pick_weighted([candidate.weight for candidate in candidates], dice())


class Weighted:
    """Weighted round robin, earliest deadline first: each is due again 1/weight later, so that
    over any stretch of picks every candidate gets its share, interleaved."""

    def __init__(self) -> None:
        self._seen: Sequence[Candidate] = ()
        self._queue: list[tuple[float, int]] = []

    def pick(
        self, candidates: Sequence[Candidate], key: int | None, dice: RandomSource, now: float
    ) -> int:
        count = len(candidates)
        if count < 2:
            return count - 1
        if candidates is not self._seen or count != len(self._queue):
            self._learn(candidates, dice)
        due, chosen = self._queue[0]
        heapreplace(self._queue, (due + 1.0 / candidates[chosen].weight, chosen))
        return chosen

    def _learn(self, candidates: Sequence[Candidate], dice: RandomSource) -> None:
        """Who stays keeps its place; who comes gets one at random within its first turn."""
        present = self._queue[0][0] if self._queue else 0.0
        places = {self._seen[index].id: due for due, index in self._queue}
        self._seen = candidates
        self._queue = [
            (places.get(c.id, present + dice() / c.weight), index)
            for index, c in enumerate(candidates)
        ]
        heapify(self._queue)


class TwoChoices:
    """The better of two distinct random candidates by a score, lower being better
    (Mitzenmacher's power of two choices). A fast-failing one loses against any other."""

    def __init__(self, score: Callable[[Candidate], float]) -> None:
        self._score = score

    def pick(
        self, candidates: Sequence[Candidate], key: int | None, dice: RandomSource, now: float
    ) -> int:
        count = len(candidates)
        if count < 2:
            return count - 1
        first = int(dice() * count)
        second = int(dice() * (count - 1))
        if second >= first:
            second += 1
        one, other = candidates[first], candidates[second]
        if one.fast_failing or other.fast_failing:
            sound = [i for i, c in enumerate(candidates) if not c.fast_failing]
            if len(sound) > 1:
                inner = self.pick([candidates[i] for i in sound], key, dice, now)
                return sound[inner]
            if sound:
                return sound[0]
        return first if self._score(one) <= self._score(other) else second


def pick_weighted(weights: Sequence[float], roll: float) -> int:
    """The index that a wheel of fortune with such sectors stops at; `roll` is in [0, 1).
    -1 for no sectors; the last positive one where rounding leaves a remainder."""
    left = roll * sum(weights)
    chosen = -1
    for index, weight in enumerate(weights):
        if weight <= 0.0:
            continue
        chosen = index
        left -= weight
        if left < 0.0:
            break
    return chosen if chosen >= 0 else len(weights) - 1
