"""Adaptive concurrency limit of an endpoint, after Gradient2 of Netflix's concurrency-limits. Pure.

Owned by `proxy.state.endpoint_state`. The limit follows the ratio of long-term to recent latency.
When answers become slow, fewer requests are sent, down to what the endpoint handles at its normal
latency; while answers are fast, the limit grows slowly. It changes only while at least half of it
is in use.

One difference to Gradient2: there the long-term mean follows slow answers as fast as others, so
that under lasting overload it takes them for normal and the limit drifts up. Here the mean falls
quickly and rises twenty times more slowly.
"""

from typing import Final

SMOOTHING: Final = 0.2
"""Weight of a new limit against the present one (Gradient2's default)."""
HEADROOM: Final = 4.0
"""Requests added to the limit at each step, so that it can grow (Gradient2's `queueSize`)."""
FALL: Final = 2.0 / 601.0
"""Weight of a fast answer in the long-term mean: an EWMA over 600 answers (Gradient2's default)."""
RISE: Final = FALL / 20.0
"""Weight of a slow answer in the long-term mean."""
TOLERANCE: Final = 1.5
"""Latency relative to the long-term mean above which the limit falls (Gradient2's default)."""
WARM_UP: Final = 10
"""The long-term mean is a plain average over this many first answers (Gradient2's default)."""
MIN_GRADIENT: Final = 0.5
"""The limit at most halves in one step (Gradient2)."""
DRIFT: Final = 2.0
"""Ratio of long-term to recent latency above which the mean is too high (Gradient2)."""
DRIFT_DECAY: Final = 0.9
"""Factor on a long-term mean that is too high (Gradient2 uses 0.95)."""


class Gradient:
    """The adaptive concurrency limit of one endpoint.

    - `limit`: requests in flight
    - `lowest`, `highest`: bounds of the limit
    """

    __slots__ = ("_answers", "_exact_limit", "_long_term", "highest", "limit", "lowest")

    def __init__(self, start: int = 20, lowest: int = 4, highest: int = 1000) -> None:
        self.limit = start
        self.lowest = lowest
        self.highest = highest
        self._exact_limit = float(start)
        self._long_term = 0.0
        self._answers = 0

    def observe(self, seconds: float, in_flight: int) -> None:
        """Record an answer's latency; `in_flight` is the number when its request was sent."""
        self._answers += 1
        if self._answers <= WARM_UP:
            self._long_term += (seconds - self._long_term) / self._answers
        else:
            weight = FALL if seconds < self._long_term else RISE
            self._long_term += (seconds - self._long_term) * weight
        if seconds <= 0.0:
            return
        if self._long_term / seconds > DRIFT:
            # Latency has fallen for good: let the long-term mean catch up faster.
            self._long_term *= DRIFT_DECAY
        if in_flight < self._exact_limit / 2.0:
            return
        gradient = max(MIN_GRADIENT, min(1.0, TOLERANCE * self._long_term / seconds))
        target = self._exact_limit * gradient + HEADROOM
        smoothed = self._exact_limit * (1.0 - SMOOTHING) + target * SMOOTHING
        self._exact_limit = max(float(self.lowest), min(float(self.highest), smoothed))
        self.limit = int(self._exact_limit)
