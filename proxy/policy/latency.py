"""What an endpoint's latency is taken to be, from the answers seen so far.

Two estimators of one shape: `observe(seconds, now, load)` at each answer, `at(load)` at any time.
`load` is what was, or is, in flight to the endpoint; times are seconds, `now` monotonic.
"""

from typing import Final, Protocol

DECAY: Final = 10.0


class LatencyEstimator(Protocol):
    """How long an endpoint takes to answer."""

    def observe(self, seconds: float, now: float, load: int) -> None:
        """Takes in one answer's latency; `load` was in flight when its request was sent."""
        ...

    def at(self, load: int) -> float:
        """What to expect with so many in flight; 0.0 while nothing is known."""
        ...


class PeakEwma:
    """Finagle's peak EWMA: a slower answer counts at once, a quicker one sinks in over
    `DECAY` seconds. Pessimistic on purpose, and the same at any load: made for rules that
    multiply it with what is in flight."""

    __slots__ = ("_at", "_value")

    def __init__(self) -> None:
        self._value = 0.0
        self._at = 0.0

    def observe(self, seconds: float, now: float, load: int) -> None:
        """See `Estimate`."""
        del load
        if seconds >= self._value:
            self._value = seconds
        else:
            # The first terms of the exponential: exact enough, and cheaper than calling exp.
            elapsed = (now - self._at) / DECAY
            keep = 1.0 / (1.0 + elapsed + 0.5 * elapsed * elapsed)
            self._value = self._value * keep + seconds * (1.0 - keep)
        self._at = now

    def at(self, load: int) -> float:
        """See `Estimate`."""
        del load
        return self._value


class LatencyAtLoad:
    """Recent latency by load, as Prequal's replicas tell it: answers to requests that met about
    as many in flight are averaged together, in classes that double.

    So an endpoint that was slow because much was in flight is not held to be slow when idle,
    and one that is quick when idle not to be quick under load. A mean goes over about the last
    `SPAN` answers of its class; after a quiet while, a single answer outweighs what was before.
    """

    SPAN: Final = 20
    QUIET: Final = 2.0
    CLASSES: Final = 12

    __slots__ = ("_means", "_seen", "_times")

    def __init__(self) -> None:
        self._means = [0.0] * self.CLASSES
        self._times = [0.0] * self.CLASSES
        self._seen = [0] * self.CLASSES

    def observe(self, seconds: float, now: float, load: int) -> None:
        """See `Estimate`."""
        place = load.bit_length() if load < 1024 else self.CLASSES - 1
        seen = self._seen[place]
        if seen < self.SPAN:
            self._seen[place] = seen = seen + 1
        share = 1.0 / seen
        quiet = now - self._times[place]
        aged = quiet / (quiet + self.QUIET)
        self._means[place] += (seconds - self._means[place]) * (aged if aged > share else share)
        self._times[place] = now

    def at(self, load: int) -> float:
        """See `Estimate`. For a load that was never met: as at the next lower one known; below
        all of them, half for each halving of the load, so that it is tried and then known."""
        means = self._means
        place = load.bit_length() if load < 1024 else self.CLASSES - 1
        if means[place]:
            return means[place]
        for lower in range(place - 1, -1, -1):
            if means[lower]:
                return means[lower]
        for higher in range(place + 1, self.CLASSES):
            if means[higher]:
                return means[higher] * 0.5 ** (higher - place)
        return 0.0
