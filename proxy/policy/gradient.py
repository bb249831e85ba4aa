"""Adaptive concurrency limit: after Gradient2 of Netflix's concurrency-limits.

The limit follows the ratio of long-term to recent latency: when answers become slow, less is let
in, down to what the endpoint handles at its usual latency; when they stay quick, the limit creeps
up. It changes only while it is being used.

One thing differs. Gradient2's long-term mean takes in the slow answers of an overload as readily
as the others, so that under lasting overload it comes to think of them as usual and the limit
drifts away. Here the mean falls quickly and rises twenty times more slowly.
"""

from typing import Final

SMOOTHING: Final = 0.2
HEADROOM: Final = 4.0
FALL: Final = 2.0 / 601.0
RISE: Final = FALL / 20.0
TOLERANCE: Final = 1.5


class Gradient:
    """One endpoint's limit. `limit` is whole requests in flight."""

    __slots__ = ("_limit", "_long", "_seen", "highest", "limit", "lowest")

    def __init__(self, start: int = 20, lowest: int = 4, highest: int = 1000) -> None:
        self.limit = start
        self.lowest = lowest
        self.highest = highest
        self._limit = float(start)
        self._long = 0.0
        self._seen = 0

    def observe(self, seconds: float, in_flight: int) -> None:
        """Takes in one answer's latency, with the number in flight when it was sent."""
        self._seen += 1
        if self._seen <= 10:
            self._long += (seconds - self._long) / self._seen
        else:
            share = FALL if seconds < self._long else RISE
            self._long += (seconds - self._long) * share
        if seconds <= 0.0:
            return
        if self._long / seconds > 2.0:
            # Latency fell for good: let the long-term mean catch up faster than it would.
            self._long *= 0.9
        if in_flight < self._limit / 2.0:
            return
        gradient = max(0.5, min(1.0, TOLERANCE * self._long / seconds))
        wanted = self._limit * gradient + HEADROOM
        smooth = self._limit * (1.0 - SMOOTHING) + wanted * SMOOTHING
        self._limit = max(float(self.lowest), min(float(self.highest), smooth))
        self.limit = int(self._limit)
