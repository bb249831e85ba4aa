"""The last 24 hours of each service at falling resolution, in bounded memory. Pure.

`history_recorder` adds each second; the API reads. A second is kept for ten minutes, ten seconds
for two hours, and a minute for a day, each in a ring of numbers. A longer step is computed from the
sums and the merged histogram of its seconds, so its quantiles are exact. With its latencies
(`latency_rings`) a service takes 133 kB: 200 services take 27 MB.
"""

from array import array
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from math import isnan, nan
from typing import Final

from meshd.model.history import HistoryPoint, LatencyMap, Sparkline
from meshd.telemetry.latency_rings import LatencyRing
from meshd.telemetry.merge import Distribution, MergedService

TIERS: Final = ((1, 600), (10, 720), (60, 1440))
"""(seconds of a step, steps kept): ten minutes, two hours, and a day."""
COARSEST: Final = TIERS[-1][0]
"""Seconds of the longest step: the one that is stored."""
_SPARK: Final = 1
"""Index of the tier that sparklines are read from."""
REMOVED_KEPT: Final = 50
"""Services that were removed and whose past is still kept, those removed last."""
_WIDTH: Final = 9
"""Numbers of a point: the fields of `HistoryPoint` after `step`."""


@dataclass(slots=True)
class ServiceSize:
    """Replicas of a service and the CPU cores that they use."""

    ready: int = 0
    desired: int = 0
    cores: float = 0.0


class _Ring:
    """The last `steps` points of one resolution. A slot has the number of its step, so that a slot
    of an earlier round is recognized."""

    def __init__(self, seconds: int, steps: int) -> None:
        self.seconds = seconds
        self.steps = steps
        self._numbers = array("I", bytes(4 * steps))
        self._values = array("f", bytes(4 * _WIDTH * steps))

    def put(self, point: HistoryPoint) -> None:
        number = point.at // self.seconds
        slot = number % self.steps
        self._numbers[slot] = number
        self._values[slot * _WIDTH : (slot + 1) * _WIDTH] = array(
            "f",
            (
                point.rps,
                point.errors,
                nan if point.p50 is None else point.p50,
                nan if point.p95 is None else point.p95,
                nan if point.p99 is None else point.p99,
                point.in_flight,
                point.ready,
                point.desired,
                point.cores,
            ),
        )

    def get(self, number: int) -> HistoryPoint | None:
        slot = number % self.steps
        if not number or self._numbers[slot] != number:
            return None
        begin = slot * _WIDTH
        rps, errors, p50, p95, p99, in_flight, ready, desired, cores = self._values[
            begin : begin + _WIDTH
        ]
        return HistoryPoint(
            at=number * self.seconds,
            step=self.seconds,
            rps=rps,
            errors=errors,
            p50=_known(p50),
            p95=_known(p95),
            p99=_known(p99),
            in_flight=in_flight,
            ready=int(ready),
            desired=int(desired),
            cores=cores,
        )

    @property
    def memory(self) -> int:
        return 4 * self.steps * (1 + _WIDTH)


def _known(value: float) -> float | None:
    return None if isnan(value) else value


@dataclass(slots=True)
class _Sums:
    """What a step has counted so far; `number` is that of the step."""

    number: int = 0
    completions: int = 0
    errors: int = 0
    busy: float = 0.0
    interval: float = 0.0
    latency: Distribution = field(default_factory=Distribution)

    def add(self, second: MergedService) -> None:
        self.completions += second.completions
        self.errors += second.errors
        self.busy += second.in_flight * second.interval
        self.interval += second.interval
        self.latency.add(second.total)

    def point(self, seconds: int, size: ServiceSize) -> HistoryPoint:
        interval = self.interval or 1.0
        counted = bool(self.latency.counts)
        return HistoryPoint(
            at=self.number * seconds,
            step=seconds,
            rps=self.completions / interval,
            errors=self.errors / interval,
            p50=self.latency.quantile(0.50) if counted else None,
            p95=self.latency.quantile(0.95) if counted else None,
            p99=self.latency.quantile(0.99) if counted else None,
            in_flight=self.busy / interval,
            ready=size.ready,
            desired=size.desired,
            cores=size.cores,
        )


class _ServiceHistory:
    """The rings of one service, and the sums of the steps that have not ended."""

    def __init__(self) -> None:
        self.rings = [_Ring(*tier) for tier in TIERS]
        self.sums = [_Sums() for _ in TIERS[1:]]
        self.latencies = LatencyRing()
        self.last = 0

    @property
    def memory(self) -> int:
        return self.latencies.memory + sum(ring.memory for ring in self.rings)

    def add(self, second: int, merged: MergedService, size: ServiceSize) -> HistoryPoint | None:
        """Add one second; return the point of the longest step if that has just ended."""
        self.last = second
        now = _Sums(second)
        now.add(merged)
        self.latencies.add(second, merged.total.counts)
        self.rings[0].put(now.point(1, size))
        ended: HistoryPoint | None = None
        for position, ring in enumerate(self.rings[1:]):
            sums, ended = self.sums[position], None
            number = second // ring.seconds
            if sums.number != number:
                if sums.number:
                    ended = sums.point(ring.seconds, size)
                    ring.put(ended)
                sums = self.sums[position] = _Sums(number)
            sums.add(merged)
        return ended


class History:
    """The past of all services (`PROJECT/SERVICE`)."""

    def __init__(self) -> None:
        self._services: dict[str, _ServiceHistory] = {}

    @property
    def memory(self) -> int:
        """Bytes of all rings."""
        return sum(found.memory for found in self._services.values())

    def add(
        self, service: str, second: int, merged: MergedService, size: ServiceSize
    ) -> HistoryPoint | None:
        """Add the second from `second` (Unix time) of a service; a second is added once. Return the
        point of the longest step if that has just ended."""
        found = self._services.setdefault(service, _ServiceHistory())
        return found.add(second, merged, size) if second > found.last else None

    def restore(self, service: str, points: Iterable[HistoryPoint]) -> None:
        """Take points of the longest step that were stored."""
        found = self._services.setdefault(service, _ServiceHistory())
        for point in points:
            found.rings[-1].put(point)

    def forget_removed(self, known: Collection[str]) -> None:
        """Forget the services that were removed first, if too many of them are kept."""
        excess = len(self._services) - len(known) - REMOVED_KEPT
        if excess > 0:
            removed = [name for name in self._services if name not in known]
            removed.sort(key=lambda name: self._services[name].last)
            for name in removed[:excess]:
                del self._services[name]

    def at(self, service: str, at: float) -> HistoryPoint | None:
        """Return the finest point that includes a time (Unix time); None if none is kept."""
        found = self._services.get(service)
        for ring in found.rings if found else ():
            point = ring.get(int(at) // ring.seconds)
            if point is not None:
                return point
        return None

    def all_at(
        self, at: float, is_visible: Callable[[str], bool]
    ) -> Sequence[tuple[str, HistoryPoint]]:
        """Return (service, point) of each visible service that has one, by name."""
        found = ((name, self.at(name, at)) for name in sorted(self._services) if is_visible(name))
        return [(name, point) for name, point in found if point is not None]

    def latencies(self, service: str, since: float, until: float) -> LatencyMap:
        """Return the latencies of a service from `since` to `until` (Unix times), at most an
        hour."""
        found = self._services.get(service)
        return (found.latencies if found else LatencyRing()).read(since, until)

    def sparklines(
        self, since: float, until: float, is_visible: Callable[[str], bool]
    ) -> Sequence[Sparkline]:
        """Return the past of each visible service in steps of ten seconds, at most two hours."""
        seconds, steps = TIERS[_SPARK]
        first = max(int(since), int(until) - seconds * steps) // seconds
        numbers = range(first, int(until) // seconds)
        found = []
        for name in sorted(filter(is_visible, self._services)):
            ring = self._services[name].rings[_SPARK]
            points = [ring.get(number) for number in numbers]
            found.append(
                Sparkline(
                    name,
                    seconds,
                    first * seconds,
                    tuple(None if each is None else round(each.rps, 2) for each in points),
                    tuple(None if each is None else round(each.errors, 2) for each in points),
                    tuple(
                        None if each is None or each.p95 is None else round(each.p95, 5)
                        for each in points
                    ),
                    tuple(None if each is None else each.ready for each in points),
                )
            )
        return found

    def series(self, service: str, since: float, until: float) -> Sequence[HistoryPoint]:
        """Return the points from `since` to `until` (Unix times), oldest first, in the finest step
        that reaches back to `since`."""
        found = self._services.get(service)
        if found is None:
            return []
        fitting = (r for r in found.rings if found.last - r.seconds * r.steps < since)
        ring = next(fitting, found.rings[-1])
        first = max(int(since), int(until) - ring.seconds * ring.steps) // ring.seconds
        numbers = range(first, int(until) // ring.seconds + 1)
        return [point for number in numbers if (point := ring.get(number)) is not None]
