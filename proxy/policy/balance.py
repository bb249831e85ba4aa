"""Load balancing: pickers choose the endpoint of a request; `make_picker` builds them. Pure.

`proxy.state.service_state` owns one picker per service and worker; `proxy.request.dispatch` calls
it. Every pick gets the candidates. The caller passes the *same* tuple while the set is unchanged,
so that a picker can keep what it derived from it. A pick is an index into the candidates, or -1
if there are none.
"""

from collections.abc import Callable, Sequence
from heapq import heapify, heapreplace
from typing import Final, Protocol

from proxy.policy.hashing import ConsistentHashPicker, build_maglev, build_ring
from proxy.wire.snapshot import Balance, Endpoint

RandomSource = Callable[[], float]
"""Returns uniform random numbers in [0, 1)."""
UNKNOWN_LATENCY: Final = 0.03
"""Seconds assumed for an endpoint without history (linkerd's default RTT)."""
PREFER_NODE: Final = ("hot-cold", "least-request")
"""Algorithms that prefer the own node. Users of the others chose another order; the peaks of
`peak-ewma` stay in its latencies for seconds, too long to say how busy a node is."""
MAX_DRAWS: Final = 16
"""Draws of `Random` before it computes an exact choice."""


class Candidate(Protocol):
    """An endpoint that may be picked.

    - `in_flight`: requests in flight, of all workers
    - `latency`: recent latency in seconds; 0 while unknown
    - `weight`: weight after slow start (see `slow_start_factor`)
    - `fast_failing`: whether it fails fast, so that low latency must not count in its favour
    - `node`: the node that it is on; empty if all are on one
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
    @property
    def node(self) -> str: ...


class Picker(Protocol):
    """A balancing rule, with the state it needs."""

    def pick(
        self, candidates: Sequence[Candidate], key: int | None, dice: RandomSource, now: float
    ) -> int:
        """Return the index of the chosen candidate; -1 if there are none.

        - `key`: hash of the request's hash key or stickiness; None without one
        - `dice`: returns random numbers in [0, 1)
        - `now`: monotonic seconds
        """
        ...


def make_picker(balance: Balance, members: Sequence[Endpoint] = (), node: str = "") -> Picker:
    """Build the picker of a service.

    `members` are all its endpoints, including those that may not be picked now: hash tables are
    built over them, so that every worker has the same table. With endpoints on the own `node` (in
    lower case) and on others, rules that follow the load prefer the own node.
    """
    if prefers_node(balance, members, node):
        from proxy.policy.locality import LocalFirst

        return LocalFirst(lambda: make_picker(balance, members), node)
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


def prefers_node(balance: Balance, members: Sequence[Endpoint], node: str) -> bool:
    """Return whether the picker of a service prefers the endpoints on a node."""
    if not node or balance.algorithm not in PREFER_NODE:
        return False
    nodes = {member.node.lower() for member in members}
    return node in nodes and len(nodes) > 1


def slow_start_factor(age: float, window: float, floor: float = 0.1) -> float:
    """Return the share of its weight that a new endpoint of `age` seconds gets.

    It grows linearly over `window` seconds and is at least `floor` (Envoy, aggression 1).
    """
    if window <= 0.0 or age >= window:
        return 1.0
    return max(floor, age / window)


def in_panic(healthy: int, total: int, threshold: float) -> bool:
    """Return whether too few endpoints are healthy for ejection to apply (Envoy's panic threshold).

    The full load would overload the few healthy ones as well.
    """
    return healthy < total * threshold


def least_request_score(candidate: Candidate) -> float:
    """Return requests in flight, including this one, per weight (Envoy, bias 1)."""
    return (candidate.in_flight + 1) / candidate.weight


def peak_ewma_score(candidate: Candidate) -> float:
    """Return latency times requests in flight, including this one, per weight (Finagle)."""
    latency = candidate.latency or UNKNOWN_LATENCY
    return latency * (candidate.in_flight + 1) / candidate.weight


class RoundRobin:
    """Each candidate in turn, without weights. Starts at a random candidate, so that workers do not
    pick in step."""

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
    """Random by weight, by rejection sampling.

    A random candidate is accepted with probability weight / heaviest weight; otherwise another is
    drawn. The cost does not depend on the number of candidates.
    """

    def __init__(self) -> None:
        self._candidates: Sequence[Candidate] = ()
        self._heaviest = 1.0
        self._left = 0

    def pick(
        self, candidates: Sequence[Candidate], key: int | None, dice: RandomSource, now: float
    ) -> int:
        count = len(candidates)
        if count < 2:
            return count - 1
        self._left -= 1
        if self._left < 0 or candidates is not self._candidates:
            self._candidates = candidates
            self._left = count
            self._heaviest = max([candidate.weight for candidate in candidates])
        for _ in range(MAX_DRAWS):
            chosen = int(dice() * count)
            weight = candidates[chosen].weight
            if weight >= self._heaviest or dice() * self._heaviest < weight:
                return chosen
        return pick_weighted([candidate.weight for candidate in candidates], dice())


class Weighted:
    """Weighted round robin by earliest deadline first (as in Envoy).

    After a pick, a candidate is due again 1/weight later. So every candidate gets its share over
    any sequence of picks, interleaved with the others.
    """

    def __init__(self) -> None:
        self._candidates: Sequence[Candidate] = ()
        self._queue: list[tuple[float, int]] = []

    def pick(
        self, candidates: Sequence[Candidate], key: int | None, dice: RandomSource, now: float
    ) -> int:
        count = len(candidates)
        if count < 2:
            return count - 1
        if candidates is not self._candidates or count != len(self._queue):
            self._update(candidates, dice)
        due, chosen = self._queue[0]
        heapreplace(self._queue, (due + 1.0 / candidates[chosen].weight, chosen))
        return chosen

    def _update(self, candidates: Sequence[Candidate], dice: RandomSource) -> None:
        """Queue a new set: known candidates keep their deadline, new ones get a random one."""
        now_due = self._queue[0][0] if self._queue else 0.0
        deadlines = {self._candidates[index].id: due for due, index in self._queue}
        self._candidates = candidates
        self._queue = [
            (deadlines.get(c.id, now_due + dice() / c.weight), index)
            for index, c in enumerate(candidates)
        ]
        heapify(self._queue)


class TwoChoices:
    """Power of two choices (Mitzenmacher): of two random candidates, the one with the lower score.

    Fast-failing candidates are not picked while there are others.
    """

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
            healthy = [i for i, c in enumerate(candidates) if not c.fast_failing]
            if len(healthy) > 1:
                inner = self.pick([candidates[i] for i in healthy], key, dice, now)
                return healthy[inner]
            if healthy:
                return healthy[0]
        return first if self._score(one) <= self._score(other) else second


def pick_weighted(weights: Sequence[float], roll: float) -> int:
    """Return an index with probability in proportion to its weight; `roll` is random in [0, 1).

    Return -1 without weights, and the last positive one if rounding leaves a remainder.
    """
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
