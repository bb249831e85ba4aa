"""Consistent hashing: ring and maglev tables, and the picker that looks a key up in one.

A table is a tuple of endpoint ids. A key names a place in it; from there the first endpoint that
is among the candidates is taken. So an endpoint that is out for a moment moves only its own
keys, every worker decides alike, and no table is built on the request path.
"""

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from struct import unpack
from typing import Final, Protocol


class WeightedEndpoint(Protocol):
    """What a table needs to know of a candidate."""

    @property
    def id(self) -> str: ...
    @property
    def weight(self) -> float: ...


class LookupTable(Protocol):
    """A sequence of endpoint ids, and where a key stands in it."""

    slots: Sequence[str]

    def slot_for(self, key: int) -> int:
        """The slot of a 64-bit key."""
        ...


BITS: Final = 64
RING_POINTS: Final = 256
PRIMES: Final = (251, 1009, 2039, 4093, 8191, 16381, 32749, 65537)


def hash_key(data: bytes) -> int:
    """A 64-bit hash that is the same in every process (Python's own is not)."""
    return int.from_bytes(blake2b(data, digest_size=BITS // 8).digest(), "little")


class HashRing:
    """Ketama-like ring: an endpoint has many points on it."""

    def __init__(self, points: Sequence[tuple[int, str]]) -> None:
        self._points = [point for point, _ in points]
        self.slots: Sequence[str] = tuple(name for _, name in points)

    def slot_for(self, key: int) -> int:
        found = bisect_left(self._points, key)
        return found if found < len(self._points) else 0


class MaglevTable:
    """A table of prime size; a key's place is its remainder."""

    def __init__(self, slots: Sequence[str]) -> None:
        self.slots = slots

    def slot_for(self, key: int) -> int:
        return key % len(self.slots)


def build_ring(weights: Mapping[str, float]) -> LookupTable:
    """A ring with points in proportion to the weights; the heaviest has 256."""
    heaviest = max(weights.values(), default=1.0) or 1.0
    points = [
        (point, name)
        for name, weight in weights.items()
        for point in _points(name, max(1, round(RING_POINTS * weight / heaviest)))
    ]
    return HashRing(sorted(points))


def _points(name: str, count: int) -> list[int]:
    """Places on the ring; one digest gives eight of them."""
    points: list[int] = []
    for number in range((count + 7) // 8):
        digest = blake2b(f"{name}#{number}".encode(), digest_size=64).digest()
        points += unpack("<8Q", digest)
    return points[:count]


def build_maglev(weights: Mapping[str, float]) -> LookupTable:
    """Maglev (NSDI '16, section 3.4): every endpoint in turn claims its next preferred slot
    until all are taken; a lighter one skips turns in proportion to its weight. The table has
    at least 100 slots an endpoint, up to 65,537, so that shares differ by about one percent."""
    names = sorted(name for name, weight in weights.items() if weight > 0.0)
    if not names:
        return MaglevTable(())
    size = next((prime for prime in PRIMES if prime >= 100 * len(names)), PRIMES[-1])
    heaviest = max(weights[name] for name in names)
    shares = [weights[name] / heaviest for name in names]
    at = [hash_key(b"offset " + name.encode()) % size for name in names]
    skips = [hash_key(b"skip " + name.encode()) % (size - 1) + 1 for name in names]
    due = [0.0] * len(names)
    slots: list[str | None] = [None] * size
    filled = 0
    while filled < size:
        for index, name in enumerate(names):
            due[index] += shares[index]
            if due[index] < 1.0:
                continue
            due[index] -= 1.0
            slot, skip = at[index], skips[index]
            while slots[slot] is not None:
                slot = (slot + skip) % size
            slots[slot] = name
            at[index] = (slot + skip) % size
            filled += 1
            if filled == size:
                break
    return MaglevTable(tuple(name for name in slots if name is not None))


class ConsistentHashPicker:
    """Looks the key up in a table over all members of the service.

    Built over `weights` (id → weight); over the candidates when some of them are unknown. A
    request without a key goes to a random candidate.
    """

    def __init__(
        self, build: Callable[[Mapping[str, float]], LookupTable], weights: Mapping[str, float]
    ) -> None:
        self._build = build
        self._weights = dict(weights)
        self._table: LookupTable | None = None
        self._seen: Sequence[WeightedEndpoint] = ()
        self._index: dict[str, int] = {}

    def pick(
        self,
        candidates: Sequence[WeightedEndpoint],
        key: int | None,
        dice: Callable[[], float],
        now: float,
    ) -> int:
        """See `proxy.policy.balance.Picker`."""
        count = len(candidates)
        if count < 2:
            return count - 1
        if key is None:
            return int(dice() * count)
        if candidates is not self._seen or count != len(self._index):
            self._learn(candidates)
        assert self._table is not None
        slots, index = self._table.slots, self._index
        place = self._table.slot_for(key)
        for slot in range(place, place + len(slots)):
            found = index.get(slots[slot % len(slots)])
            if found is not None:
                return found
        return int(dice() * count)

    def _learn(self, candidates: Sequence[WeightedEndpoint]) -> None:
        self._seen = candidates
        self._index = {candidate.id: place for place, candidate in enumerate(candidates)}
        if not self._weights or not self._index.keys() <= self._weights.keys():
            self._weights = {candidate.id: candidate.weight for candidate in candidates}
            self._table = None
        if self._table is None:
            self._table = self._build(self._weights)
