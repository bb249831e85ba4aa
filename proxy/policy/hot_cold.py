"""The default balancing rule: hot-cold lexicographic, from Prequal (NSDI '24). Pure.

`proxy.policy.balance.make_picker` builds it. An endpoint is *hot* if it has more in flight than
the 0.84 quantile of all endpoints. The fastest cold endpoint gets the request; if all are hot, the
one with the least in flight. Prequal probes for both numbers; a proxy that sees every request
knows them.

Three additions:

- Endpoints nearly as fast as the fastest count as equal. They share the load by least in flight,
  in turn, so that equal replicas get equal shares at low load too.
- The order by latency and the hot threshold change slowly. They are refreshed after as many picks
  as there are candidates (at least 32) or after 20 ms, so a pick reads only a few numbers.
- Now and then an endpoint that is passed over gets one request. Otherwise its recovery would
  never be noticed.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from proxy.policy.balance import Candidate

HOT_QUANTILE: Final = 0.84
"""Quantile of requests in flight above which an endpoint is hot (Prequal's Q_RIF)."""
FAST_FACTOR: Final = 1.5
"""Endpoints up to this many times as slow as the fastest count as equally fast."""
FAST_MARGIN: Final = 0.001
"""Seconds added to that bound: differences below 1 ms are noise."""
REFRESH_SECONDS: Final = 0.02
"""Seconds after which the order by latency is refreshed."""
REFRESH_PICKS: Final = 32
"""Picks after which it is refreshed, for up to this many candidates."""
SAMPLE: Final = 24
"""Endpoints compared in one pick: limits its cost with hundreds of endpoints."""
EXPLORE_SECONDS: Final = 10.0
"""Interval in which each endpoint that is passed over gets one request."""
EXPLORE_PICKS: Final = 100
"""Picks between two such requests: they are at most 1 % of all."""


class HotCold:
    """The picker of the hot-cold rule. Weights scale what is in flight: at half the weight, a load
    counts twice."""

    def __init__(self) -> None:
        self._candidates: Sequence[Candidate] = ()
        self._index_by_id: dict[int, int] = {}
        self._fallback_start = 0
        self._start = 0
        self._picks_left = 0
        self._period = 0
        self._picks = 0
        self._fresh_until = 0.0
        self._threshold = 0.0
        self._fast_count = 0
        self._window = 0
        self._fast_twice: list[Candidate] = []
        self._slower: list[Candidate] = []
        self._failing: list[Candidate] = []
        self._all_twice: list[Candidate] = []
        self._equal_weights = True
        self._heaviest = 1.0
        self._explore_at = 0.0
        self._explore_after = 0
        self._explored = 0

    def pick(
        self,
        candidates: Sequence["Candidate"],
        key: int | None,
        dice: Callable[[], float],
        now: float,
    ) -> int:
        """See `proxy.policy.balance.Picker`."""
        left = self._picks_left = self._picks_left - 1
        if left < 0 or now > self._fresh_until or candidates is not self._candidates:
            if len(candidates) < 2:
                return len(candidates) - 1
            self._refresh(candidates, dice, now)
            explored = self._explore(now)
            if explored is not None:
                return self._index_by_id[id(explored)]
        # Fast endpoints are stored twice in a row, so that a window from any start is one slice.
        start = self._start
        self._start = start + 1 if start + 1 < self._fast_count else 0
        window = self._fast_twice[start : start + self._window]
        best = window[0]
        if self._equal_weights:
            least: float = best.in_flight
            if least:
                for candidate in window:
                    if candidate.in_flight < least:
                        least = candidate.in_flight
                        best = candidate
                        if not least:
                            break
        else:
            best = _least_loaded(window)
            least = best.in_flight * self._heaviest / best.weight
        if least > self._threshold:
            best = self._pick_slower()
        return self._index_by_id[id(best)]

    def _pick_slower(self) -> "Candidate":
        """Pick while all fast endpoints are hot: the fastest cold one, else the least loaded."""
        threshold = self._threshold / self._heaviest
        for candidate in self._slower:
            if candidate.in_flight <= threshold * candidate.weight:
                return candidate
        count = len(self._all_twice) // 2
        self._fallback_start = start = (self._fallback_start + 1) % count
        return _least_loaded(self._all_twice[start : start + min(count, SAMPLE)])

    def _refresh(
        self, candidates: Sequence["Candidate"], dice: Callable[[], float], now: float
    ) -> None:
        """Compute the order by latency and the hot threshold for the next picks."""
        count = len(candidates)
        if candidates is not self._candidates or count != len(self._index_by_id):
            self._candidates = candidates
            self._index_by_id = {id(candidate): index for index, candidate in enumerate(candidates)}
            self._start = int(dice() * count)
        self._picks += self._period - max(self._picks_left, 0)
        self._picks_left = self._period = max(count, REFRESH_PICKS)
        self._fresh_until = now + REFRESH_SECONDS
        healthy = [c for c in candidates if not c.fast_failing]
        self._failing = [c for c in candidates if c.fast_failing] if healthy else []
        healthy = healthy or list(candidates)
        heaviest = self._heaviest = max([c.weight for c in healthy])
        self._equal_weights = min([c.weight for c in healthy]) == heaviest
        loads = sorted([c.in_flight * heaviest / c.weight for c in healthy])
        self._threshold = loads[int(HOT_QUANTILE * (len(loads) - 1))]
        by_latency = sorted(healthy, key=lambda c: c.latency)
        known = [c.latency for c in by_latency if c.latency > 0.0]
        limit = known[0] * FAST_FACTOR + FAST_MARGIN if known else 0.0
        fast = [c for c in by_latency if c.latency <= limit]
        self._fast_count = len(fast)
        self._window = min(len(fast), SAMPLE)
        self._start %= len(fast)
        self._slower = by_latency[len(fast) :]
        self._fast_twice = fast + fast
        self._all_twice = healthy + healthy

    def _explore(self, now: float) -> "Candidate | None":
        """Return an idle endpoint that is due for a request although it is slow or failing.

        Each one is due about once in `EXPLORE_SECONDS`, and at most one of `EXPLORE_PICKS`
        requests explores.
        """
        passed_over = self._slower + self._failing
        if not passed_over or now < self._explore_at or self._picks < self._explore_after:
            return None
        first = not self._explore_after
        self._explore_at = now + EXPLORE_SECONDS / len(passed_over)
        self._explore_after = self._picks + EXPLORE_PICKS
        self._explored = (self._explored + 1) % len(passed_over)
        chosen = passed_over[self._explored]
        return None if first or chosen.in_flight else chosen


def _least_loaded(candidates: Sequence["Candidate"]) -> "Candidate":
    """Return the candidate with the least in flight per weight, counting the new request.

    Without the new request, an idle endpoint of any weight would look free.
    """
    best = candidates[0]
    least = (best.in_flight + 1) / best.weight
    for candidate in candidates:
        load = (candidate.in_flight + 1) / candidate.weight
        if load < least:
            best, least = candidate, load
    return best
