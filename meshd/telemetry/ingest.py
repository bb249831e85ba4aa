"""Takes in the workers' reports and tells what they amount to: per second, per window, since
the start.

A report's counts belong to the second that its middle falls in; its busy time (in-flight
integrated) is spread over the seconds that it covers, so that the mean number in flight of a
second is right even where workers report out of step. Memory is bounded by the services kept
times `HISTORY` seconds.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from math import floor
from typing import Final

import msgspec

from meshd.telemetry.merge import MergedService
from proxy.wire.report import Report, ServiceReport

HISTORY: Final = 120
"""Seconds of the past that windows can look back on."""
PATIENCE: Final = 1.5
"""Seconds after which a second counts as complete though a worker has not reported it."""
SILENT: Final = 5.0
"""Seconds without a report after which a worker counts as gone, where nobody said so."""
_EARLY: Final = 0.05
METHODS: Final = frozenset(
    ("GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH")
)


@dataclass(frozen=True, slots=True)
class EndpointNow:
    """An endpoint as of the live workers' last reports; `ejected_by` counts workers. `limit` is
    the lowest adaptive limit that any of them keeps to; 0 where there is none."""

    in_flight: int
    ejected_by: int
    limit: int = 0


@dataclass(frozen=True, slots=True)
class WorkerNow:
    """A live worker's own figures; `cpu_seconds` since it started, `last` is Unix time."""

    connections: int
    rss_bytes: int
    cpu_seconds: float
    last: float


@dataclass(frozen=True, slots=True)
class Window:
    """A service over the last `merged.interval` seconds; 0 there means that nothing is known.
    Latencies are seconds, None where nothing was counted."""

    merged: MergedService
    in_flight: int = 0
    endpoints: Mapping[str, EndpointNow] = field(default_factory=dict)

    def _rate(self, count: int) -> float:
        return count / self.merged.interval if self.merged.interval else 0.0

    @property
    def rps(self) -> float:
        return self._rate(self.merged.completions)

    @property
    def errors_per_second(self) -> float:
        return self._rate(self.merged.errors)

    @property
    def p50(self) -> float | None:
        return self.merged.total.quantile(0.50)

    @property
    def p95(self) -> float | None:
        return self.merged.total.quantile(0.95)

    @property
    def p99(self) -> float | None:
        return self.merged.total.quantile(0.99)


@dataclass(slots=True)
class _Second:
    covered: dict[int, float] = field(default_factory=dict)
    services: dict[str, MergedService] = field(default_factory=dict)

    @property
    def interval(self) -> float:
        return sum(self.covered.values()) / len(self.covered) if self.covered else 0.0

    def service(self, name: str) -> MergedService:
        found = self.services.get(name)
        if found is None:
            found = self.services[name] = MergedService()
        return found


@dataclass(slots=True)
class _Worker:
    last: Report
    cpu_seconds: float
    services: Mapping[str, ServiceReport]
    """Those of the last report by name, as each of them is asked for by itself."""


class Ingest:
    """All that the workers have told. `now` is Unix time, by the clock the workers use."""

    def __init__(self) -> None:
        self._seconds: dict[int, _Second] = {}
        self._workers: dict[int, _Worker] = {}
        self._live: frozenset[int] | None = None
        self._totals: dict[str, MergedService] = {}
        self.duplicates = 0
        """Reports that were told twice, and counted once."""
        self.missing = 0
        """Reports that never came, going by the gaps in their sequence."""
        self.refused: dict[str, int] = {}
        """Requests answered before it was known whose they are, by reason."""
        self.log_dropped = self.spans_dropped = self.spans_exported = 0

    def add(self, report: Report) -> None:
        """Counts a report, once however often it is told."""
        before = self._workers.get(report.worker)
        if before is not None:
            again = report.sequence <= before.last.sequence
            if again and report.start <= before.last.start:
                self.duplicates += 1
                return
            if not again:
                self.missing += report.sequence - before.last.sequence - 1
        used = report.cpu_seconds + (before.cpu_seconds if before else 0.0)
        by_name = {service.name: service for service in report.services}
        self._workers[report.worker] = _Worker(report, used, by_name)
        for reason, count in report.refused.items():
            self.refused[reason] = self.refused.get(reason, 0) + count
        self.log_dropped += report.log_dropped
        self.spans_dropped += report.spans_dropped
        self.spans_exported += report.spans_exported
        self._prune(report.end)
        for second, share in _overlaps(report):
            self._cover(self._second(second), report, share)
        middle = self._second(floor((report.start + report.end) / 2))
        for service in report.services:
            middle.service(service.name).add_report(service)
            self._add_total(service)

    def workers(self, live: Collection[int]) -> None:
        """The workers that run; what others said of themselves counts no more."""
        self._live = frozenset(live)
        for worker in [w for w in self._workers if w not in self._live]:
            del self._workers[worker]

    def keep(self, services: Collection[str]) -> None:
        """The services that exist: others are forgotten, and these are known, so that one
        nobody calls reads as idle and not as unknown."""
        for name in [name for name in self._totals if name not in services]:
            del self._totals[name]
            for second in self._seconds.values():
                second.services.pop(name, None)
        for name in services:
            self._totals.setdefault(name, MergedService())

    def services(self) -> list[str]:
        """The services known, by name."""
        return sorted(self._totals)

    def second(self, now: float) -> Mapping[str, MergedService]:
        """The last complete second of every known service; its `start` says which one it is.
        Empty when no worker has told of that second: nothing is known then."""
        last = self._last_complete(now)
        found = self._seconds.get(last)
        if found is None or not found.covered:
            return {}
        return {name: self._merge(name, range(last, last + 1), now) for name in self._totals}

    def window(self, service: str, seconds: int, now: float) -> Window:
        """The last complete `seconds` (at most `HISTORY`) of a service."""
        last = self._last_complete(now)
        span = range(last + 1 - min(seconds, HISTORY), last + 1)
        endpoints = self.endpoints(service, now)
        return Window(
            merged=self._merge(service, span, now),
            in_flight=sum(endpoint.in_flight for endpoint in endpoints.values()),
            endpoints=endpoints,
        )

    def total(self, service: str) -> MergedService:
        """A service's counts since it was first seen, by endpoint left out; methods that are
        not among the standard ones are counted as OTHER."""
        return self._totals.get(service) or MergedService()

    def endpoints(self, service: str, now: float) -> dict[str, EndpointNow]:
        """Each endpoint of a service as of the live workers' last reports."""
        found: dict[str, EndpointNow] = {}
        for report in self._last_of(service, now):
            for endpoint in report.endpoints:
                had = found.get(endpoint.id, EndpointNow(0, 0))
                found[endpoint.id] = EndpointNow(
                    had.in_flight + endpoint.in_flight,
                    had.ejected_by + endpoint.ejected,
                    min(had.limit or endpoint.limit, endpoint.limit or had.limit),
                )
        return found

    def processes(self, now: float) -> dict[int, WorkerNow]:
        """Every live worker's own figures."""
        return {
            number: WorkerNow(
                worker.last.connections,
                worker.last.rss_bytes,
                worker.cpu_seconds,
                worker.last.end,
            )
            for number, worker in self._alive(now)
        }

    def _second(self, second: int) -> _Second:
        found = self._seconds.get(second)
        if found is None:
            found = self._seconds[second] = _Second()
        return found

    def _cover(self, second: _Second, report: Report, share: float) -> None:
        had = second.covered.get(report.worker, 0.0)
        second.covered[report.worker] = had + share * (report.end - report.start)
        for service in report.services:
            sums = second.service(service.name)
            sums.queue_seconds += share * service.queue_seconds
            for endpoint in service.endpoints:
                merged = sums.endpoint(endpoint.id)
                merged.revision = endpoint.revision
                merged.busy_seconds += share * endpoint.busy_seconds

    def _add_total(self, report: ServiceReport) -> None:
        codes: dict[str, int] = {}
        for key, count in report.codes.items():
            method, _, code = key.partition(" ")
            name = f"{method if method in METHODS else 'OTHER'} {code}"
            codes[name] = codes.get(name, 0) + count
        whole = msgspec.structs.replace(report, codes=codes, endpoints=())
        self._totals.setdefault(report.name, MergedService()).add_report(whole)

    def _prune(self, end: float) -> None:
        """Forgets what is older than the history, and everything from a clock's future once
        the clock has been set back."""
        oldest, newest = floor(end) - HISTORY, floor(end) + HISTORY
        for second in [s for s in self._seconds if not oldest <= s <= newest]:
            del self._seconds[second]
        for number in [n for n, w in self._workers.items() if w.last.end < oldest]:
            del self._workers[number]

    def _alive(self, now: float) -> Iterable[tuple[int, _Worker]]:
        return [
            (number, worker)
            for number, worker in self._workers.items()
            if (number in self._live if self._live is not None else worker.last.end > now - SILENT)
        ]

    def _last_of(self, service: str, now: float) -> list[ServiceReport]:
        return [
            worker.services[service] for _, worker in self._alive(now) if service in worker.services
        ]

    def _last_complete(self, now: float) -> int:
        told = min((worker.last.end for _, worker in self._alive(now)), default=now)
        return floor(max(min(told, now), now - PATIENCE) + _EARLY) - 1

    def _merge(self, service: str, span: range, now: float) -> MergedService:
        merged = MergedService(start=float(span.start))
        for number in span:
            second = self._seconds.get(number)
            if second is None:
                continue
            if service in second.services:
                merged.add(second.services[service])
            merged.interval += second.interval
        last = self._last_of(service, now)
        merged.parked = sum(report.parked for report in last)
        merged.queued = sum(report.queued for report in last)
        return merged


def _overlaps(report: Report) -> Iterable[tuple[int, float]]:
    """(second, share of the report's time that lies in it), the last `HISTORY` of them."""
    length = report.end - report.start
    if length <= 0.0:
        return
    for second in range(
        max(floor(report.start), floor(report.end) - HISTORY), floor(report.end) + 1
    ):
        inside = min(report.end, second + 1.0) - max(report.start, float(second))
        if inside > 0.0:
            yield second, inside / length
