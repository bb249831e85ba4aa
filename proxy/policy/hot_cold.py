"""The default balancing rule: hot-cold lexicographic, from Prequal (NSDI '24), made exact.

An endpoint is *hot* when it has more in flight than the 0.84 quantile of all. Among the cold
ones the quickest is taken; when all are hot, the one with the least in flight. Prequal has to
probe for both numbers; a proxy that sees every request has them for free.

Two things are added. Endpoints about as quick as the quickest count as equal and share the load
by least in flight, in turn, so that equal replicas get equal shares even at low load. And what
changes slowly, the order by latency and the border of hot, is refreshed once in so many picks
(as there are candidates, at least 32) or after 20 ms, so that a pick itself reads only a few
numbers in flight. And now and then an endpoint that is passed over gets one request, because
nobody would learn otherwise that it has recovered.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from proxy.policy.balance import Candidate

HOT_QUANTILE: Final = 0.84
AS_QUICK: Final = 1.5
SAME: Final = 0.001
STALE: Final = 0.02
REFRESH_PICKS: Final = 32
SAMPLE: Final = 24
EXPLORE_SECONDS: Final = 10.0
EXPLORE_PICKS: Final = 100


class HotCold:
    """See the module. Weights scale what is in flight: half the weight, twice as loaded."""

    def __init__(self) -> None:
        self._seen: Sequence[Candidate] = ()
        self._index: dict[int, int] = {}
        self._turn = 0
        self._start = 0
        self._left = 0
        self._period = 0
        self._picks = 0
        self._fresh_until = 0.0
        self._border = 0.0
        self._quick = 0
        self._window = 0
        self._quick_twice: list[Candidate] = []
        self._slower: list[Candidate] = []
        self._failing: list[Candidate] = []
        self._all_twice: list[Candidate] = []
        self._even = True
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
        left = self._left = self._left - 1
        if left < 0 or now > self._fresh_until or candidates is not self._seen:
            if len(candidates) < 2:
                return len(candidates) - 1
            self._refresh(candidates, dice, now)
            passed_over = self._explore(now)
            if passed_over is not None:
                return self._index[id(passed_over)]
        # Quick ones are stored twice over, so that a window from any start is one slice.
        start = self._start
        self._start = start + 1 if start + 1 < self._quick else 0
        window = self._quick_twice[start : start + self._window]
        best = window[0]
        if self._even:
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
        if least > self._border:
            best = self._beyond()
        return self._index[id(best)]

    def _beyond(self) -> "Candidate":
        """The quick ones are hot: the quickest cold one of the others, else the least loaded."""
        border = self._border / self._heaviest
        for candidate in self._slower:
            if candidate.in_flight <= border * candidate.weight:
                return candidate
        count = len(self._all_twice) // 2
        self._turn = start = (self._turn + 1) % count
        return _least_loaded(self._all_twice[start : start + min(count, SAMPLE)])

    def _refresh(
        self, candidates: Sequence["Candidate"], dice: Callable[[], float], now: float
    ) -> None:
        count = len(candidates)
        if candidates is not self._seen or count != len(self._index):
            self._seen = candidates
            self._index = {id(candidate): place for place, candidate in enumerate(candidates)}
            self._start = int(dice() * count)
        self._picks += self._period - max(self._left, 0)
        self._left = self._period = max(count, REFRESH_PICKS)
        self._fresh_until = now + STALE
        sound = [c for c in candidates if not c.fast_failing]
        self._failing = [c for c in candidates if c.fast_failing] if sound else []
        sound = sound or list(candidates)
        heaviest = self._heaviest = max([c.weight for c in sound])
        self._even = min([c.weight for c in sound]) == heaviest
        loads = sorted([c.in_flight * heaviest / c.weight for c in sound])
        self._border = loads[int(HOT_QUANTILE * (len(loads) - 1))]
        by_latency = sorted(sound, key=lambda c: c.latency)
        known = [c.latency for c in by_latency if c.latency > 0.0]
        limit = known[0] * AS_QUICK + SAME if known else 0.0
        quick = [c for c in by_latency if c.latency <= limit]
        self._quick = len(quick)
        self._window = min(len(quick), SAMPLE)
        self._start %= len(quick)
        self._slower = by_latency[len(quick) :]
        self._quick_twice = quick + quick
        self._all_twice = sound + sound

    def _explore(self, now: float) -> "Candidate | None":
        """An idle endpoint whose turn it is to be tried though it is slow or failing: each one
        about once in `EXPLORE_SECONDS`, and at most one of `EXPLORE_PICKS` requests."""
        outsiders = self._slower + self._failing
        if not outsiders or now < self._explore_at or self._picks < self._explore_after:
            return None
        first = not self._explore_after
        self._explore_at = now + EXPLORE_SECONDS / len(outsiders)
        self._explore_after = self._picks + EXPLORE_PICKS
        self._explored = (self._explored + 1) % len(outsiders)
        chosen = outsiders[self._explored]
        return None if first or chosen.in_flight else chosen


def _least_loaded(candidates: Sequence["Candidate"]) -> "Candidate":
    """Fewest in flight with one more, per weight: an idle light endpoint is not free."""
    best = candidates[0]
    least = (best.in_flight + 1) / best.weight
    for candidate in candidates:
        load = (candidate.in_flight + 1) / candidate.weight
        if load < least:
            best, least = candidate, load
    return best
