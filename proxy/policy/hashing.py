"""Consistent hashing: a Ketama ring and a Maglev table, and the picker that uses them. Pure.

`proxy.policy.balance.make_picker` builds them; `hash_key` is used wherever workers need the same
hash. A lookup table is a sequence of endpoint ids. A key has a slot in it; from there on, the
first endpoint that is a candidate gets the request. So an endpoint that is out for a moment moves
only its own keys, every worker decides alike, and no table is built on the request path.
"""

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from struct import unpack
from typing import Final, Protocol


class WeightedEndpoint(Protocol):
    """What a table needs to know about a candidate."""

    @property
    def id(self) -> str: ...
    @property
    def weight(self) -> float: ...


class LookupTable(Protocol):
    """A consistent-hash table: a sequence of endpoint ids, and the slot of each key in it."""

    slots: Sequence[str]

    def slot_for(self, key: int) -> int:
        """Return the index in `slots` of a 64-bit key."""
        ...


HASH_BITS: Final = 64
"""Bits of a key, as `hash_key` returns it."""
RING_POINTS: Final = 256
"""Points of the heaviest endpoint on the ring: shares differ by about 1/sqrt(256), 6 %."""
POINTS_PER_DIGEST: Final = 8
"""A BLAKE2b digest has 64 bytes."""
PRIMES: Final = (251, 1009, 2039, 4093, 8191, 16381, 32749, 65537)
"""Sizes of Maglev tables. The paper's small table has 65,537 slots; fewer endpoints need fewer."""
SLOTS_PER_ENDPOINT: Final = 100
"""Shares then differ by about 1 % (Maglev, section 5.3)."""


def hash_key(data: bytes) -> int:
    """Return a 64-bit hash that is the same in every process (Python's own hash is not)."""
    return int.from_bytes(blake2b(data, digest_size=HASH_BITS // 8).digest(), "little")


class HashRing:
    """A Ketama-like ring: each endpoint has many points on it."""

    def __init__(self, points: Sequence[tuple[int, str]]) -> None:
        self._points = [point for point, _ in points]
        self.slots: Sequence[str] = tuple(name for _, name in points)

    def slot_for(self, key: int) -> int:
        """See `LookupTable`: the next point at or after the key."""
        found = bisect_left(self._points, key)
        return found if found < len(self._points) else 0


class MaglevTable:
    """A Maglev table: its size is prime, and a key's slot is the remainder."""

    def __init__(self, slots: Sequence[str]) -> None:
        self.slots = slots

    def slot_for(self, key: int) -> int:
        """See `LookupTable`."""
        return key % len(self.slots)


def build_ring(weights: Mapping[str, float]) -> LookupTable:
    """Build a ring with points in proportion to the weights (id → weight)."""
    heaviest = max(weights.values(), default=1.0) or 1.0
    points = [
        (point, name)
        for name, weight in weights.items()
        for point in _hash_points(name, max(1, round(RING_POINTS * weight / heaviest)))
    ]
    return HashRing(sorted(points))


def _hash_points(name: str, count: int) -> list[int]:
    """Return `count` points on the ring for an endpoint."""
    points: list[int] = []
    for number in range((count + POINTS_PER_DIGEST - 1) // POINTS_PER_DIGEST):
        digest = blake2b(f"{name}#{number}".encode(), digest_size=64).digest()
        points += unpack("<8Q", digest)
    return points[:count]


def build_maglev(weights: Mapping[str, float]) -> LookupTable:
    """Build a Maglev table (NSDI '16, section 3.4) for `weights` (id → weight).

    In turn, every endpoint claims its next preferred slot until all slots are taken. A lighter
    endpoint skips turns in proportion to its weight.
    """
    names = sorted(name for name, weight in weights.items() if weight > 0.0)
    if not names:
        return MaglevTable(())
    wanted = SLOTS_PER_ENDPOINT * len(names)
    size = next((prime for prime in PRIMES if prime >= wanted), PRIMES[-1])
    heaviest = max(weights[name] for name in names)
    shares = [weights[name] / heaviest for name in names]
    next_slots = [hash_key(b"offset " + name.encode()) % size for name in names]
    skips = [hash_key(b"skip " + name.encode()) % (size - 1) + 1 for name in names]
    credits = [0.0] * len(names)
    slots: list[str | None] = [None] * size
    filled = 0
    while filled < size:
        for index, name in enumerate(names):
            credits[index] += shares[index]
            if credits[index] < 1.0:
                continue
            credits[index] -= 1.0
            slot, skip = next_slots[index], skips[index]
            while slots[slot] is not None:
                slot = (slot + skip) % size
            slots[slot] = name
            next_slots[index] = (slot + skip) % size
            filled += 1
            if filled == size:
                break
    return MaglevTable(tuple(name for name in slots if name is not None))


class ConsistentHashPicker:
    """Picks the endpoint of a key from a lookup table over all members of the service.

    The table is built over `weights` (id → weight), or over the candidates if some of them are
    not in `weights`. A request without a key goes to a random candidate.
    """

    def __init__(
        self, build: Callable[[Mapping[str, float]], LookupTable], weights: Mapping[str, float]
    ) -> None:
        self._build = build
        self._weights = dict(weights)
        self._table: LookupTable | None = None
        self._candidates: Sequence[WeightedEndpoint] = ()
        self._index_by_id: dict[str, int] = {}

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
        if candidates is not self._candidates or count != len(self._index_by_id):
            self._update(candidates)
        assert self._table is not None
        slots, index_by_id = self._table.slots, self._index_by_id
        first = self._table.slot_for(key)
        for slot in range(first, first + len(slots)):
            found = index_by_id.get(slots[slot % len(slots)])
            if found is not None:
                return found
        return int(dice() * count)

    def _update(self, candidates: Sequence[WeightedEndpoint]) -> None:
        """Index a new set of candidates, and build the table if it is missing or incomplete."""
        self._candidates = candidates
        self._index_by_id = {candidate.id: index for index, candidate in enumerate(candidates)}
        if not self._weights or not self._index_by_id.keys() <= self._weights.keys():
            self._weights = {candidate.id: candidate.weight for candidate in candidates}
            self._table = None
        if self._table is None:
            self._table = self._build(self._weights)
