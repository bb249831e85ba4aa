"""What an endpoint's latency is taken to be, from the answers seen so far.

Two estimators of one shape: `observe(seconds, now)` at each answer, `value` at any time.
"""

from typing import Final

DECAY: Final = 10.0


class PeakEwma:
    """Finagle's peak EWMA: a slower answer counts at once, a quicker one sinks in over
    `DECAY` seconds. Pessimistic on purpose: made for rules that multiply it with load."""

    __slots__ = ("_at", "value")

    def __init__(self) -> None:
        self.value = 0.0
        self._at = 0.0

    def observe(self, seconds: float, now: float) -> None:
        """Takes in one answer's latency in seconds, seen at `now` (monotonic seconds)."""
        if seconds >= self.value:
            self.value = seconds
        else:
            # The first terms of the exponential: exact enough, and cheaper than calling exp.
            elapsed = (now - self._at) / DECAY
            keep = 1.0 / (1.0 + elapsed + 0.5 * elapsed * elapsed)
            self.value = self.value * keep + seconds * (1.0 - keep)
        self._at = now


class RecentLatency:
    """A mean over about the last `SPAN` answers, for the hot-cold rule. The first answers
    count fully, so that a new endpoint is judged by what it does and not by where it began."""

    __slots__ = ("_share", "value")
    SPAN: Final = 20

    def __init__(self) -> None:
        self.value = 0.0
        self._share = 1.0

    def observe(self, seconds: float, now: float) -> None:
        """Takes in one answer's latency in seconds."""
        share = self._share
        self.value += (seconds - self.value) * share
        if share > 1.0 / self.SPAN:
            self._share = share / (1.0 + share)
