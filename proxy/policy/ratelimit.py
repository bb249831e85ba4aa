"""Token buckets, one a key, for a bounded number of keys."""

from typing import Final

from proxy.wire.snapshot import RateLimit

KEYS: Final = 10_000


class Limiter:
    """`rate` requests a second on average and `burst` at once, for each key by itself.

    At most `KEYS` buckets are kept. When there are more, those that are full again go first
    (they say nothing), then the ones longest unused: many keys can make the limit looser for
    some of them, never the memory larger.
    """

    def __init__(self, limit: RateLimit) -> None:
        self._cost = 1.0 / max(limit.rate, 1e-9)
        self._burst = max(1.0, limit.burst)
        self._full_at: dict[object, float] = {}

    def wait(self, key: object, now: float) -> float:
        """0.0 and one token taken when the request may go; else seconds until it might."""
        # A bucket is one number: when it is full again (generic cell rate algorithm).
        cost = self._cost
        full_at = max(self._full_at.pop(key, now), now) + cost
        late = full_at - now - self._burst * cost
        if late > 1e-9:
            self._full_at[key] = full_at - cost
            return late
        self._full_at[key] = full_at
        if len(self._full_at) > KEYS:
            self._forget(now)
        return 0.0

    def _forget(self, now: float) -> None:
        for key in [key for key, full_at in self._full_at.items() if full_at <= now]:
            del self._full_at[key]
        for key in list(self._full_at)[: len(self._full_at) - KEYS * 9 // 10]:
            del self._full_at[key]
