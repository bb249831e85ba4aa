"""Whether a service uses up its error budget too fast. Pure.

`meshd.notify.watch` adds the counts of each service every half minute. The windows and factors are
those of the first two alerts in `deploy/prometheus/alerts.yml`, after "The Site Reliability
Workbook", chapter 5: the long window shows that enough of the budget is gone, the short one that it
is still being spent.
"""

from array import array
from dataclasses import dataclass
from typing import Final

STEP: Final = 30
"""Seconds between two samples."""
MIN_MISSES: Final = 10
"""Misses in the long window that are not chance."""


@dataclass(frozen=True, slots=True)
class BurnRule:
    """A limit of the burn rate. `long` and `short` are windows in seconds; `factor` times the even
    speed uses up the budget too fast."""

    long: int
    short: int
    factor: float


RULES: Final = (BurnRule(3600, 300, 14.4), BurnRule(21600, 1800, 6.0))
"""2 % of the budget of 30 days in an hour, and 5 % in six hours."""
_SAMPLES: Final = RULES[-1].long // STEP + 1


@dataclass(frozen=True, slots=True)
class Burn:
    """A budget that is used up too fast: the share of misses in the long window of `rule`, and the
    share that is allowed."""

    rule: BurnRule
    ratio: float
    budget: float


def burn_limit(factor: float, budget: float) -> float:
    """Return the share of misses from which a budget burns too fast.

    It is a multiple of the budget, but at most half way from the budget to all requests, because a
    large budget cannot burn that much faster.
    """
    return min(factor * budget, (1.0 + budget) / 2)


class BurnWindow:
    """The counts of one service over the last six hours, in a ring of samples."""

    def __init__(self) -> None:
        self._requests = array("q", bytes(8 * _SAMPLES))
        self._misses = array("q", bytes(8 * _SAMPLES))
        self._count = 0

    def add(self, requests: int, misses: int) -> None:
        """Add the counts since the start of the daemon, `STEP` seconds after the last call. A
        smaller count, of a service that was removed in between, begins again."""
        if self._count and requests < self._requests[(self._count - 1) % _SAMPLES]:
            self._count = 0
        place = self._count % _SAMPLES
        self._requests[place], self._misses[place] = requests, misses
        self._count += 1

    def find_burn(self, budget: float) -> Burn | None:
        """Return the first rule that the samples break; None if they break none."""
        for rule in RULES:
            limit = burn_limit(rule.factor, budget)
            requests, misses = self._increase(rule.long)
            recent_requests, recent = self._increase(rule.short)
            if misses <= MIN_MISSES or not recent_requests:
                continue
            if misses / requests > limit and recent / recent_requests > limit:
                return Burn(rule, misses / requests, budget)
        return None

    def _increase(self, seconds: int) -> tuple[int, int]:
        """Return requests and misses of a window, or of the time since the first sample."""
        if not self._count:
            return 0, 0
        back = min(seconds // STEP, self._count - 1, _SAMPLES - 1)
        now, then = (self._count - 1) % _SAMPLES, (self._count - 1 - back) % _SAMPLES
        return (
            self._requests[now] - self._requests[then],
            self._misses[now] - self._misses[then],
        )
