"""The workers' reports, merged per second, per window and since the start.

`meshd.daemon.worker_events` adds every report; scaling reads seconds, rollouts and the status read
windows, `/metrics` reads totals.

The counts of a report belong to the second of its middle. Its busy time (requests in flight,
integrated) is spread over the seconds that it covers, so that the mean number in flight is right
even if workers do not report in step. Memory is bounded by the known services times `HISTORY`
seconds.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from math import floor
from typing import Final

from meshd.spec.model.scale import Objective
from meshd.telemetry.merge import MergedService
from meshd.telemetry.totals import ServiceTotals
from proxy.wire.report import Report, ServiceReport

HISTORY: Final = 120
"""Seconds of the past that are kept, and the longest window: two minutes, so that a quiet service
still has some requests in it."""
PATIENCE: Final = 1.5
"""Seconds after which a second counts as complete, although a worker has not reported it yet: a
report is due every second, so it is late by then."""
SILENT: Final = 5.0
"""Seconds without a report, of one a second, after which a worker counts as gone. Applies until the
supervisor has said which workers are live."""
EARLY: Final = 0.05
"""Seconds by which a report may end before the full second and still complete it: timers jitter."""
NO_OBJECTIVES: Final[Mapping[str, Objective]] = {}


@dataclass(frozen=True, slots=True)
class EndpointNow:
    """An endpoint according to the last reports of the live workers.

    - `in_flight`: requests.
    - `ejected_by`: number of workers that have ejected it.
    - `limit`: lowest adaptive concurrency limit of any worker; 0: no limit.
    """

    in_flight: int
    ejected_by: int
    limit: int = 0


@dataclass(frozen=True, slots=True)
class WorkerNow:
    """A live worker process: `cpu_seconds` since it started, `last` report (Unix time)."""

    connections: int
    rss_bytes: int
    cpu_seconds: float
    last: float


@dataclass(frozen=True, slots=True)
class Window:
    """A service over the last `merged.interval` seconds; an interval of 0 means no data. Latencies
    are in seconds; None without answers."""

    merged: MergedService
    in_flight: int = 0
    endpoints: Mapping[str, EndpointNow] = field(default_factory=dict)

    def _rate(self, count: int) -> float:
        return count / self.merged.interval if self.merged.interval else 0.0

    @property
    def rps(self) -> float:
        """Answers per second."""
        return self._rate(self.merged.completions)

    @property
    def errors_per_second(self) -> float:
        """5xx answers per second."""
        return self._rate(self.merged.errors)

    @property
    def p50(self) -> float | None:
        """Median latency."""
        return self.merged.total.quantile(0.50)

    @property
    def p95(self) -> float | None:
        """95th percentile of the latency."""
        return self.merged.total.quantile(0.95)

    @property
    def p99(self) -> float | None:
        """99th percentile of the latency."""
        return self.merged.total.quantile(0.99)


@dataclass(slots=True)
class _Second:
    """One second: the seconds that each worker's reports cover of it, and the sums by service."""

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
    """A worker: its last report, that report's services by name, and its CPU time."""

    last: Report
    cpu_seconds: float
    services: Mapping[str, ServiceReport]


class Ingest:
    """Takes and merges the reports of all workers. `now` is always Unix time, by the clock that the
    workers use.

    - `duplicates`: reports that arrived twice; they are counted once.
    - `missing`: reports that never arrived, according to gaps in their sequence numbers.
    - `refused`: requests answered before their service was known, by reason.
    - `handshakes`: TLS handshakes by outcome.
    - `log_dropped`, `spans_dropped`, `spans_exported`: access log lines and trace spans.
    - `descriptor_shortages`, `accept_pauses`: what workers could not do for lack of descriptors.
    - `totals`: counts since each service was first seen.
    """

    def __init__(self) -> None:
        self._seconds: dict[int, _Second] = {}
        self._workers: dict[int, _Worker] = {}
        self._live: frozenset[int] | None = None
        self.totals = ServiceTotals()
        self.duplicates = 0
        self.missing = 0
        self.refused: dict[str, int] = {}
        self.handshakes: dict[str, int] = {}
        self.log_dropped = self.spans_dropped = self.spans_exported = 0
        self.descriptor_shortages = self.accept_pauses = 0

    def add(self, report: Report) -> None:
        """Add a report; a duplicate is ignored."""
        before = self._workers.get(report.worker)
        if before is not None:
            repeated = report.sequence <= before.last.sequence
            if repeated and report.start <= before.last.start:
                self.duplicates += 1
                return
            if not repeated:
                self.missing += report.sequence - before.last.sequence - 1
        used = report.cpu_seconds + (before.cpu_seconds if before else 0.0)
        by_name = {service.name: service for service in report.services}
        self._workers[report.worker] = _Worker(report, used, by_name)
        for reason, count in report.refused.items():
            self.refused[reason] = self.refused.get(reason, 0) + count
        for outcome, count in report.handshakes.items():
            self.handshakes[outcome] = self.handshakes.get(outcome, 0) + count
        self.log_dropped += report.log_dropped
        self.spans_dropped += report.spans_dropped
        self.spans_exported += report.spans_exported
        self.descriptor_shortages += report.descriptor_shortages
        self.accept_pauses += report.accept_pauses
        self._prune(report.end)
        for second, share in _overlaps(report):
            self._cover(self._second(second), report, share)
        middle = self._second(floor((report.start + report.end) / 2))
        for service in report.services:
            middle.service(service.name).add_report(service)
            self.totals.add(service)

    def set_workers(self, live: Collection[int]) -> None:
        """Set the live workers; the gauges of others no longer count."""
        self._live = frozenset(live)
        for worker in [w for w in self._workers if w not in self._live]:
            del self._workers[worker]

    def set_services(
        self, services: Collection[str], objectives: Mapping[str, Objective] = NO_OBJECTIVES
    ) -> None:
        """Set the services that exist. Others are forgotten; these are known, so that a service
        without requests is idle rather than unknown. `objectives`: of those that have one."""
        for name in self.totals.set_services(services, objectives):
            for second in self._seconds.values():
                second.services.pop(name, None)

    def services(self) -> list[str]:
        """Return the known services, sorted."""
        return self.totals.names()

    def second(self, now: float) -> Mapping[str, MergedService]:
        """Return the last complete second of every known service; `start` says which second it is.
        Empty if no worker has reported that second."""
        last = self._last_complete(now)
        found = self._seconds.get(last)
        if found is None or not found.covered:
            return {}
        return {name: self._merge(name, range(last, last + 1), now) for name in self.totals.names()}

    def window(self, service: str, seconds: int, now: float) -> Window:
        """Return the last complete `seconds` of a service, at most `HISTORY`."""
        last = self._last_complete(now)
        span = range(last + 1 - min(seconds, HISTORY), last + 1)
        endpoints = self.endpoints(service, now)
        return Window(
            merged=self._merge(service, span, now),
            in_flight=sum(endpoint.in_flight for endpoint in endpoints.values()),
            endpoints=endpoints,
        )

    def total(self, service: str) -> MergedService:
        """Return the counts of a service since it was first seen, without endpoints."""
        return self.totals.service(service)

    def endpoints(self, service: str, now: float) -> dict[str, EndpointNow]:
        """Return each endpoint of a service according to the last reports of the live workers."""
        found: dict[str, EndpointNow] = {}
        for report in self._last_reports(service, now):
            for endpoint in report.endpoints:
                before = found.get(endpoint.id, EndpointNow(0, 0))
                found[endpoint.id] = EndpointNow(
                    before.in_flight + endpoint.in_flight,
                    before.ejected_by + endpoint.ejected,
                    min(before.limit or endpoint.limit, endpoint.limit or before.limit),
                )
        return found

    def processes(self, now: float) -> dict[int, WorkerNow]:
        """Return the figures of every live worker process."""
        return {
            number: WorkerNow(
                worker.last.connections,
                worker.last.rss_bytes,
                worker.cpu_seconds,
                worker.last.end,
            )
            for number, worker in self._live_workers(now)
        }

    def _second(self, second: int) -> _Second:
        found = self._seconds.get(second)
        if found is None:
            found = self._seconds[second] = _Second()
        return found

    def _cover(self, second: _Second, report: Report, share: float) -> None:
        before = second.covered.get(report.worker, 0.0)
        second.covered[report.worker] = before + share * (report.end - report.start)
        for service in report.services:
            sums = second.service(service.name)
            sums.queue_seconds += share * service.queue_seconds
            sums.stream_seconds += share * service.stream_seconds
            sums.background_seconds += share * service.background_seconds
            for endpoint in service.endpoints:
                merged = sums.endpoint(endpoint.id)
                merged.revision = endpoint.revision
                merged.busy_seconds += share * endpoint.busy_seconds

    def _prune(self, end: float) -> None:
        """Forget seconds older than the history, and future ones after the clock was set back."""
        oldest, newest = floor(end) - HISTORY, floor(end) + HISTORY
        for second in [s for s in self._seconds if not oldest <= s <= newest]:
            del self._seconds[second]
        for number in [n for n, w in self._workers.items() if w.last.end < oldest]:
            del self._workers[number]

    def _live_workers(self, now: float) -> Iterable[tuple[int, _Worker]]:
        return [
            (number, worker)
            for number, worker in self._workers.items()
            if (number in self._live if self._live is not None else worker.last.end > now - SILENT)
        ]

    def _last_reports(self, service: str, now: float) -> list[ServiceReport]:
        return [
            worker.services[service]
            for _, worker in self._live_workers(now)
            if service in worker.services
        ]

    def _last_complete(self, now: float) -> int:
        reported = min((worker.last.end for _, worker in self._live_workers(now)), default=now)
        return floor(max(min(reported, now), now - PATIENCE) + EARLY) - 1

    def _merge(self, service: str, span: range, now: float) -> MergedService:
        merged = MergedService(start=float(span.start))
        for number in span:
            second = self._seconds.get(number)
            if second is None:
                continue
            if service in second.services:
                merged.add(second.services[service])
            merged.interval += second.interval
        last = self._last_reports(service, now)
        merged.parked = sum(report.parked for report in last)
        merged.queued = sum(report.queued for report in last)
        merged.streams = sum(report.streams for report in last)
        return merged


def _overlaps(report: Report) -> Iterable[tuple[int, float]]:
    """Yield (second, share of the report's time in it), for the last `HISTORY` seconds of it."""
    length = report.end - report.start
    if length <= 0.0:
        return
    for second in range(
        max(floor(report.start), floor(report.end) - HISTORY), floor(report.end) + 1
    ):
        inside = min(report.end, second + 1.0) - max(report.start, float(second))
        if inside > 0.0:
            yield second, inside / length
