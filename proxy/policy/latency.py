"""Latency estimates of an endpoint from the answers seen so far. Pure.

Owned by `proxy.state.endpoint_state`, read by the balancing rules. Both estimators have the same
interface: `observe(seconds, now, load)` for each answer, `at(load)` at any time. `load` is the
number of requests in flight to the endpoint; times are seconds, `now` is monotonic.
"""

from typing import Final, Protocol

DECAY: Final = 10.0
"""Seconds in which a peak decays (Finagle's and linkerd's default)."""


class LatencyEstimator(Protocol):
    """Estimates how long an endpoint takes to answer."""

    def observe(self, seconds: float, now: float, load: int) -> None:
        """Record an answer's latency; `load` was in flight when its request was sent."""
        ...

    def at(self, load: int) -> float:
        """Return the expected latency at `load`, in seconds; 0.0 while unknown."""
        ...

    def observed_at(self) -> float:
        """Return the time of the last answer; 0.0 before the first one."""
        ...


class PeakEwma:
    """Finagle's peak EWMA: a slower answer counts at once, a faster one over `DECAY` seconds.

    Pessimistic on purpose. The estimate is the same at any load: it is made for rules that
    multiply it by the number in flight.
    """

    __slots__ = ("_observed_at", "_value")

    def __init__(self) -> None:
        self._value = 0.0
        self._observed_at = 0.0

    def observe(self, seconds: float, now: float, load: int) -> None:
        """See `LatencyEstimator`."""
        del load
        if seconds >= self._value:
            self._value = seconds
        else:
            # Taylor series of exp(elapsed): exact enough, and cheaper than a call of exp.
            elapsed = (now - self._observed_at) / DECAY
            keep = 1.0 / (1.0 + elapsed + 0.5 * elapsed * elapsed)
            self._value = self._value * keep + seconds * (1.0 - keep)
        self._observed_at = now

    def at(self, load: int) -> float:
        """See `LatencyEstimator`."""
        del load
        return self._value

    def observed_at(self) -> float:
        """See `LatencyEstimator`."""
        return self._observed_at


class LatencyAtLoad:
    """Recent latency by load, as Prequal's replicas report it (NSDI '24, section 4).

    Answers to requests that met a similar number in flight are averaged together, in classes that
    double: 0, 1, 2-3, 4-7, … So an endpoint that was slow under load is not expected to be slow
    when idle, and vice versa.
    """

    SPAN: Final = 20
    """Answers that a mean covers; fewer are too noisy, more react too slowly."""
    QUIET: Final = 2.0
    """Seconds without an answer after which the next one weighs as much as the mean so far."""
    CLASSES: Final = 12
    """Load classes; the last one is 1024 (2 ** (CLASSES - 2)) and more in flight."""

    __slots__ = ("_classes",)

    def __init__(self) -> None:
        self._classes = tuple([_LoadClass() for _ in range(self.CLASSES)])

    def observe(self, seconds: float, now: float, load: int) -> None:
        """See `LatencyEstimator`."""
        known = self._classes[load.bit_length() if load < 1024 else self.CLASSES - 1]
        count = known.count
        if count < self.SPAN:
            known.count = count = count + 1
        weight = 1.0 / count
        quiet = now - known.time
        age_weight = quiet / (quiet + self.QUIET)
        difference = seconds - known.mean
        known.mean += difference * (age_weight if age_weight > weight else weight)
        known.time = now

    def at(self, load: int) -> float:
        """See `LatencyEstimator`.

        For a load without answers, return the mean of the next lower class. Below all known
        classes, return half for each halving of the load, so that the endpoint is tried there.
        """
        classes = self._classes
        index = load.bit_length() if load < 1024 else self.CLASSES - 1
        mean = classes[index].mean
        if mean:
            return mean
        for lower in range(index - 1, -1, -1):
            mean = classes[lower].mean
            if mean:
                return mean
        for higher in range(index + 1, self.CLASSES):
            mean = classes[higher].mean
            if mean:
                return mean * 0.5 ** (higher - index)
        return 0.0

    def observed_at(self) -> float:
        """See `LatencyEstimator`."""
        return max([each.time for each in self._classes])

    def recent(self, index: int, since: float) -> float:
        """Return the mean latency in a load class; 0.0 if its last answer came before `since`."""
        known = self._classes[index]
        return known.mean if known.time >= since else 0.0


class _LoadClass:
    """The answers of one load class.

    - `count`: answers, up to the number that the mean covers
    - `mean`: their latency in seconds
    - `time`: monotonic seconds of the last one
    """

    # One object, and not an entry in each of three lists: compiled, its numbers are in the object,
    # and an answer allocates none.
    __slots__ = ("count", "mean", "time")

    def __init__(self) -> None:
        self.count = 0
        self.mean = 0.0
        self.time = 0.0
