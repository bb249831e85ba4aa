"""Rate limits: one token bucket per key, for a bounded number of keys, shared by workers. Pure.

Owned by `proxy.state.routing_table`. A bucket is one number: the time when it is full again (the
generic cell rate algorithm, ITU-T I.371). Every worker publishes its own number, reads the others'
before it decides, and continues from the latest: that one includes all earlier requests. Only two
simultaneous decisions can miss each other. So a worker reads again after it has written, and
counts the decisions that others made meanwhile. No more requests pass than one worker alone would
allow; a simultaneous decision can cost an unused token. The death of a worker loses nothing but
the tokens that it took.
"""

from typing import Final, Protocol

from proxy.policy.hashing import hash_key
from proxy.wire.snapshot import RateLimit

MAX_KEYS: Final = 10_000
"""Buckets per limit and worker: about 1 MiB."""
_EPSILON: Final = 1e-9
"""Seconds that count as no wait (float rounding); also the lowest rate, to divide by."""


class SharedBuckets(Protocol):
    """Where workers see each other's buckets, by a 64-bit key."""

    def buckets_elsewhere(self, key: int) -> list[float]:
        """Return when the bucket is full again, as each other worker has it."""
        ...

    def write_bucket(self, key: int, full_at: float) -> None:
        """Publish when the bucket is full again, as this worker has it."""
        ...


class RateLimiter:
    """Allows `rate` requests per second on average and `burst` at once, separately for each key.

    `name` distinguishes this limit from others in `shared`. At most `MAX_KEYS` buckets are kept.
    Beyond that, full buckets are dropped first (they hold no information), then the ones unused
    for longest. Too many keys can make the limit looser for some of them, but not use more memory.
    """

    def __init__(
        self, limit: RateLimit, name: str = "", shared: SharedBuckets | None = None
    ) -> None:
        self._token_seconds = 1.0 / max(limit.rate, _EPSILON)
        self._burst_seconds = (max(1.0, limit.burst) - 1.0) * self._token_seconds
        self._name = f"{name}\0{limit.rate}\0{limit.burst}\0".encode()
        self._shared = shared
        self._full_at: dict[bytes | None, float] = {}

    def acquire(self, key: bytes | None, now: float) -> float:
        """Take a token; return 0.0, or the seconds until one may be available."""
        # Removed and inserted again, so that the dict is in the order of last use.
        full_at = self._full_at.pop(key, now)
        shared = self._shared
        if shared is not None:
            return self._acquire_shared(shared, key, full_at, now)
        wait = full_at - now - self._burst_seconds
        full_at = max(full_at, now)
        self._store(key, full_at if wait > _EPSILON else full_at + self._token_seconds, now)
        return wait if wait > _EPSILON else 0.0

    def _acquire_shared(
        self, shared: SharedBuckets, key: bytes | None, own: float, now: float
    ) -> float:
        bucket = hash_key(self._name + (b"\0" if key is None else key)) or 1
        before = shared.buckets_elsewhere(bucket)
        full_at = max(own, now, *before)
        wait = full_at - now - self._burst_seconds
        if wait > _EPSILON:
            self._store(key, own, now)
            return wait
        new_full_at = full_at + self._token_seconds
        shared.write_bucket(bucket, new_full_at)
        after = shared.buckets_elsewhere(bucket)
        if after != before:
            # Other workers decided at the same moment, without having seen this decision.
            concurrent = sum(new > old for old, new in zip(before, after, strict=False))
            full_at = max(full_at + concurrent * self._token_seconds, *after)
            wait = full_at - now - self._burst_seconds
            new_full_at = full_at if wait > _EPSILON else full_at + self._token_seconds
            shared.write_bucket(bucket, new_full_at)
        self._store(key, new_full_at, now)
        return wait if wait > _EPSILON else 0.0

    def _store(self, key: bytes | None, full_at: float, now: float) -> None:
        self._full_at[key] = full_at
        if len(self._full_at) > MAX_KEYS:
            self._evict(now)

    def _evict(self, now: float) -> None:
        for key in [key for key, full_at in self._full_at.items() if full_at <= now]:
            del self._full_at[key]
        # Down to 90 %, so that the next insertions need no eviction.
        for key in list(self._full_at)[: len(self._full_at) - MAX_KEYS * 9 // 10]:
            del self._full_at[key]
