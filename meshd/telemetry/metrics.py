"""`/metrics`: everything the mesh counts, as Prometheus reads it.

The label sets are bounded: services by the spec, methods by the standard, reasons, causes and
stages by the code that names them. Replicas and endpoints, which come and go, are no labels.
`docs/metrics.md` lists every family.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from meshd.api.dto import ServiceStatus, Status
from meshd.telemetry.counters import EventCounters
from meshd.telemetry.ingest import Ingest
from meshd.telemetry.service_metrics import ServiceMetrics

AT_ONCE: Final = 16
"""Services whose samples are made before the event loop has its turn: some 5 ms."""


class Metrics:
    """The registry behind `/metrics`.

    At each scrape it reads `counters`, `ingest`, `about` (the daemon without its services) and
    `services` (one after the other); `clock` gives Unix time.
    """

    def __init__(
        self,
        counters: EventCounters,
        ingest: Ingest,
        about: Callable[[], Status],
        services: Callable[[], Iterable[ServiceStatus]],
        clock: Callable[[], float],
    ) -> None:
        self._counters = counters
        self._ingest = ingest
        self._services = services
        self._clock = clock
        self.registry = CollectorRegistry(auto_describe=False)
        ProcessCollector(registry=self.registry)
        self.registry.register(_DaemonCollector(counters, ingest, about, clock))

    async def exposition(self) -> bytes:
        """Prometheus text format 0.0.4. With many services it takes long, and is made bit by bit,
        so that nothing else waits for it; each service's samples are as of one moment."""
        made, present = ServiceMetrics(), set()
        for number, status in enumerate(self._services()):
            if number % AT_ONCE == 0:
                await asyncio.sleep(0)
            key = f"{status.project}/{status.name}"
            present.add(key)
            made.add_replicas(status)
            counters = self._counters
            made.add_starts(key, counters.starts.get(key), counters.cold_starts.get(key))
        for number, key in enumerate(self._ingest.services()):
            if number % AT_ONCE == 0:
                await asyncio.sleep(0)
            now = self._ingest.window(key, 0, self._clock())
            made.add_traffic(key, self._ingest.total(key), now)
        self._add_told(made, present)
        parts = [generate_latest(self.registry)]
        for family in made.families:
            await asyncio.sleep(0)
            parts.append(family.encode())
        return b"".join(parts)

    def _add_told(self, made: ServiceMetrics, present: set[str]) -> None:
        """What was counted here, of services that still exist."""
        for (key, direction, cause), count in sorted(self._counters.scale_decisions.items()):
            if key in present:
                made.add_decisions(key, direction, cause, count)
        for name, counts in (
            ("rollouts_total", self._counters.rollouts),
            ("jobs_total", self._counters.jobs),
        ):
            for (key, result), count in sorted(counts.items()):
                if key in present:
                    made.add_counts(name, key, "result", {result: count})


class _DaemonCollector(Collector):
    """Everything that does not grow with the services, read afresh at each scrape."""

    def __init__(
        self,
        counters: EventCounters,
        ingest: Ingest,
        about: Callable[[], Status],
        clock: Callable[[], float],
    ) -> None:
        self._counters = counters
        self._ingest = ingest
        self._about = about
        self._clock = clock

    def collect(self) -> Iterator[Metric]:
        yield from _daemon(self._about())
        events = CounterMetricFamily("meshd_events", "Things that happened", labels=["kind"])
        for kind, count in sorted(self._counters.events.items()):
            events.add_metric([kind], count)
        yield events
        yield from self._workers(self._clock())

    def _workers(self, now: float) -> Iterator[Metric]:
        cpu = CounterMetricFamily("meshd_worker_cpu_seconds", "CPU used", labels=["worker"])
        rss = _gauge("worker_resident_memory_bytes", "Resident memory", "worker")
        connections = _gauge("worker_connections", "Open client connections", "worker")
        for number, worker in sorted(self._ingest.processes(now).items()):
            cpu.add_metric([str(number)], worker.cpu_seconds)
            rss.add_metric([str(number)], worker.rss_bytes)
            connections.add_metric([str(number)], worker.connections)
        missing = CounterMetricFamily("meshd_reports_missing", "Workers' reports that never came")
        missing.add_metric([], self._ingest.missing)
        yield from (cpu, rss, connections, missing)
        yield from self._observing()

    def _observing(self) -> Iterator[Metric]:
        """What became of log lines and spans, and of requests that were nobody's."""
        refused = CounterMetricFamily(
            "meshd_refused_requests",
            "Requests answered before it was known whose they are",
            labels=["reason"],
        )
        for reason, count in sorted(self._ingest.refused.items()):
            refused.add_metric([reason], count)
        dropped = CounterMetricFamily(
            "meshd_dropped", "What could not be written or sent fast enough", labels=["what"]
        )
        dropped.add_metric(["access_log"], self._ingest.log_dropped)
        dropped.add_metric(["spans"], self._ingest.spans_dropped)
        exported = CounterMetricFamily("meshd_spans_exported", "Spans taken by the collector")
        exported.add_metric([], self._ingest.spans_exported)
        yield from (refused, dropped, exported)


def _gauge(name: str, text: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"meshd_{name}", text, labels=labels)


def _daemon(status: Status) -> Iterator[Metric]:
    build = _gauge("build_info", "Version and runtime of this daemon", "version", "runtime")
    build.add_metric([status.version, status.runtime], 1)
    up = _gauge("runtime_up", "1 while the runtime answers")
    up.add_metric([], status.runtime_state == "ok")
    workers = _gauge("workers", "Worker processes of the proxy")
    workers.add_metric([], len(status.workers))
    generation = _gauge("snapshot_generation", "The snapshot published last", "part")
    generation.add_metric(["epoch"], status.generation[0])
    generation.add_metric(["number"], status.generation[1])
    yield from (build, up, workers, generation)
