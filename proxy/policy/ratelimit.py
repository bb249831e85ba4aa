"""Token buckets, one a key, for a bounded number of keys, held by all workers together.

A bucket is one number: when it is full again (the generic cell rate algorithm, ITU-T I.371).
Every worker publishes its own, reads the others' before it decides, and goes on from the latest:
that one has taken in all the earlier ones. Only two decisions made at the same moment can miss
each other, so each looks again after it has written; who finds that another went ahead counts
that too. So no more passes than one worker alone would let through; a simultaneous decision can
cost a token that nobody used. A worker that dies takes nothing along but the tokens it took.
"""

from typing import Final, Protocol

from proxy.policy.hashing import hash_key
from proxy.wire.snapshot import RateLimit

MAX_KEYS: Final = 10_000
_NEVER: Final = 1e-9


class SharedBuckets(Protocol):
    """Where workers see each other's buckets, by a 64-bit key."""

    def buckets_elsewhere(self, key: int) -> list[float]:
        """When it is full again, as each other worker has it."""
        ...

    def write_bucket(self, key: int, full_at: float) -> None:
        """The same, as this worker has it."""
        ...


class RateLimiter:
    """`rate` requests a second on average and `burst` at once, for each key by itself; `name`
    tells this limit from others where workers see each other's.

    At most `KEYS` buckets are kept. When there are more, those that are full again go first
    (they say nothing), then the ones longest unused: many keys can make the limit looser for
    some of them, never the memory larger.
    """

    def __init__(
        self, limit: RateLimit, name: str = "", together: SharedBuckets | None = None
    ) -> None:
        self._cost = 1.0 / max(limit.rate, _NEVER)
        self._room = (max(1.0, limit.burst) - 1.0) * self._cost
        self._name = f"{name}\0{limit.rate}\0{limit.burst}\0".encode()
        self._together = together
        self._full_at: dict[bytes | None, float] = {}

    def acquire(self, key: bytes | None, now: float) -> float:
        """0.0 and one token taken when the request may go; else seconds until it might."""
        # Taken out and put back, so that the order is that of their last use.
        full_at = self._full_at.pop(key, now)
        together = self._together
        if together is not None:
            return self._wait_together(together, key, full_at, now)
        late = full_at - now - self._room
        full_at = max(full_at, now)
        self._keep(key, full_at if late > _NEVER else full_at + self._cost, now)
        return late if late > _NEVER else 0.0

    def _wait_together(
        self, together: SharedBuckets, key: bytes | None, own: float, now: float
    ) -> float:
        name = hash_key(self._name + (b"\0" if key is None else key)) or 1
        before = together.buckets_elsewhere(name)
        full_at = max(own, now, *before)
        late = full_at - now - self._room
        if late > _NEVER:
            self._keep(key, own, now)
            return late
        taken = full_at + self._cost
        together.write_bucket(name, taken)
        after = together.buckets_elsewhere(name)
        if after != before:
            # Others decided at the same moment, each without having seen this one.
            at_once = sum(new > old for old, new in zip(before, after, strict=False))
            full_at = max(full_at + at_once * self._cost, *after)
            late = full_at - now - self._room
            taken = full_at if late > _NEVER else full_at + self._cost
            together.write_bucket(name, taken)
        self._keep(key, taken, now)
        return late if late > _NEVER else 0.0

    def _keep(self, key: bytes | None, full_at: float, now: float) -> None:
        self._full_at[key] = full_at
        if len(self._full_at) > MAX_KEYS:
            self._forget(now)

    def _forget(self, now: float) -> None:
        for key in [key for key, full_at in self._full_at.items() if full_at <= now]:
            del self._full_at[key]
        for key in list(self._full_at)[: len(self._full_at) - MAX_KEYS * 9 // 10]:
            del self._full_at[key]
