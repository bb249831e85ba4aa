"""`/metrics`: all figures of the mesh in the formats that Prometheus reads.

`meshd.api` serves it; the daemon makes one `Metrics`, and so does `meshd proxy`. The number of time
series is bounded: services come from the spec, methods from the standard; reasons, causes and
stages from the code that names them; `totals` caps the rest. Replicas and endpoints come and go, so
they are not labels.
`docs/metrics.md` lists every family.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from meshd.api.dto import Exposition, ServiceStatus, Status
from meshd.model.certificate import CertificateStatus
from meshd.telemetry.counters import ROLLOUT_RESULTS, EventCounters
from meshd.telemetry.exposition.formats import choose_format
from meshd.telemetry.ingest import Ingest
from meshd.telemetry.service_metrics import ServiceMetrics

BATCH: Final = 16
"""Services added before the event loop gets a turn: about 5 ms of work."""


class Metrics:
    """The registry behind `/metrics`.

    At each scrape it reads `counters`, `ingest`, `about` (the daemon without its services) and
    `services` (one after the other), and `certificates`; `clock` gives Unix time.
    """

    def __init__(
        self,
        counters: EventCounters,
        ingest: Ingest,
        about: Callable[[], Status],
        services: Callable[[], Iterable[ServiceStatus]],
        clock: Callable[[], float],
        certificates: Callable[[], Sequence[CertificateStatus]] = tuple,
    ) -> None:
        self._counters = counters
        self._ingest = ingest
        self._services = services
        self._clock = clock
        self.registry = CollectorRegistry(auto_describe=False)
        ProcessCollector(registry=self.registry)
        self.registry.register(_DaemonCollector(counters, ingest, about, clock, certificates))

    async def exposition(self, accept: str = "") -> Exposition:
        """Return all metrics in the format that an Accept field prefers; without one, in the text
        format 0.0.4.

        With many services this takes long, so it yields to the event loop in between. The samples
        of one service are of one moment.
        """
        output = choose_format(accept)
        found, present = ServiceMetrics(output), set()
        counters = self._counters
        for number, status in enumerate(self._services()):
            if number % BATCH == 0:
                await asyncio.sleep(0)
            key = f"{status.project}/{status.name}"
            present.add(key)
            found.add_replicas(status)
            found.add_starts(key, counters.starts.get(key), counters.cold_starts.get(key))
        for number, key in enumerate(self._ingest.services()):
            if number % BATCH == 0:
                await asyncio.sleep(0)
            now, totals = self._ingest.window(key, 0, self._clock()), self._ingest.totals
            found.add_traffic(key, totals.service(key), now, totals.exemplars(key))
            found.add_counts("calls_total", key, "caller", totals.exposed_calls(key))
            found.add_counts("uncovered_calls_total", key, "caller", totals.exposed_uncovered(key))
            found.add_objective(key, totals.objective(key))
        self._add_counters(found, present)
        parts = [output.encode_registry(self.registry)]
        for family in found.families:
            await asyncio.sleep(0)
            parts.append(family.encode())
        return Exposition(output.content_type, b"".join((*parts, output.end)))

    def _add_counters(self, found: ServiceMetrics, present: set[str]) -> None:
        """Add the counters of services that still exist."""
        for (key, direction, cause), count in sorted(self._counters.scale_decisions.items()):
            if key in present:
                found.add_decisions(key, direction, cause, count)
        rollouts = Counter({(key, result): 0 for key in present for result in ROLLOUT_RESULTS})
        rollouts.update(self._counters.rollouts)
        for name, counts in (
            ("rollouts_total", rollouts),
            ("jobs_total", self._counters.jobs),
        ):
            for (key, result), count in sorted(counts.items()):
                if key in present:
                    found.add_counts(name, key, "result", {result: count})


class _DaemonCollector(Collector):
    """The families that do not grow with the services, read at each scrape."""

    def __init__(
        self,
        counters: EventCounters,
        ingest: Ingest,
        about: Callable[[], Status],
        clock: Callable[[], float],
        certificates: Callable[[], Sequence[CertificateStatus]],
    ) -> None:
        self._counters = counters
        self._ingest = ingest
        self._about = about
        self._clock = clock
        self._certificates = certificates

    def collect(self) -> Iterator[Metric]:
        yield from _daemon_families(self._about())
        events = CounterMetricFamily("meshd_events", "Events, by kind", labels=["kind"])
        for kind, count in sorted(self._counters.events.items()):
            events.add_metric([kind], count)
        yield events
        notifications = CounterMetricFamily(
            "meshd_notifications", "Messages to webhooks, by outcome", labels=["outcome"]
        )
        for outcome, count in sorted(self._counters.notifications.items()):
            notifications.add_metric([outcome], count)
        yield notifications
        overflows = CounterMetricFamily(
            "meshd_label_overflows",
            "Counts under an overflow label, because a metric has too many label values",
            labels=["metric"],
        )
        counts = {**self._counters.overflows, **self._ingest.totals.overflows()}
        for metric, count in sorted(counts.items()):
            overflows.add_metric([metric], count)
        yield overflows
        yield from self._worker_families(self._clock())
        yield from _certificate_families(self._certificates())

    def _worker_families(self, now: float) -> Iterator[Metric]:
        cpu = CounterMetricFamily(
            "meshd_worker_cpu_seconds", "CPU seconds used by a worker", labels=["worker"]
        )
        rss = _gauge("worker_resident_memory_bytes", "Resident memory of a worker", "worker")
        connections = _gauge("worker_connections", "Open client connections of a worker", "worker")
        for number, worker in sorted(self._ingest.processes(now).items()):
            cpu.add_metric([str(number)], worker.cpu_seconds)
            rss.add_metric([str(number)], worker.rss_bytes)
            connections.add_metric([str(number)], worker.connections)
        missing = CounterMetricFamily(
            "meshd_reports_missing", "Reports of workers that never arrived"
        )
        missing.add_metric([], self._ingest.missing)
        yield from (cpu, rss, connections, missing)
        yield from self._loss_families()

    def _loss_families(self) -> Iterator[Metric]:
        """Yield the counts of dropped log lines and spans, and of requests without a service."""
        refused = CounterMetricFamily(
            "meshd_refused_requests",
            "Requests answered before their service was known, by reason",
            labels=["reason"],
        )
        for reason, count in sorted(self._ingest.refused.items()):
            refused.add_metric([reason], count)
        handshakes = CounterMetricFamily(
            "meshd_tls_handshakes", "TLS handshakes of clients, by outcome", labels=["outcome"]
        )
        for outcome, count in sorted(self._ingest.handshakes.items()):
            handshakes.add_metric([outcome], count)
        dropped = CounterMetricFamily(
            "meshd_dropped",
            "Access log lines and spans dropped because they could not be written or sent in time",
            labels=["what"],
        )
        dropped.add_metric(["access_log"], self._ingest.log_dropped)
        dropped.add_metric(["spans"], self._ingest.spans_dropped)
        exported = CounterMetricFamily("meshd_spans_exported", "Spans accepted by the collector")
        exported.add_metric([], self._ingest.spans_exported)
        short = CounterMetricFamily(
            "meshd_descriptor_shortages",
            "What workers could not do for lack of file descriptors: connect, accept",
            labels=["what"],
        )
        short.add_metric(["connect"], self._ingest.descriptor_shortages)
        short.add_metric(["accept"], self._ingest.accept_pauses)
        yield from (refused, handshakes, dropped, exported, short)


def _gauge(name: str, text: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"meshd_{name}", text, labels=labels)


def _certificate_families(found: Sequence[CertificateStatus]) -> Iterator[Metric]:
    """Yield the families of certificates; none without a certificate."""
    if not found:
        return
    expiry = _gauge(
        "certificate_expiry_timestamp_seconds",
        "End of the certificate of a host name, as Unix time; 0 while there is none",
        "name",
        "source",
    )
    failures = _gauge(
        "certificate_failures", "Failed attempts in a row to get a certificate", "name"
    )
    for each in found:
        for name in each.names:
            expiry.add_metric([name, each.source], each.expires_at)
            if each.source == "acme":
                failures.add_metric([name], each.failures)
    yield from (expiry, failures)


def _daemon_families(status: Status) -> Iterator[Metric]:
    build = _gauge("build_info", "Version and runtime of this daemon", "version", "runtime")
    build.add_metric([status.version, status.runtime], 1)
    writable = _gauge("state_writable", "1 while the state directory can be written")
    writable.add_metric([], status.store_state == "ok")
    up = _gauge("runtime_up", "1 while the runtime answers")
    up.add_metric([], status.runtime_state == "ok")
    workers = _gauge("workers", "Number of worker processes of the proxy")
    workers.add_metric([], len(status.workers))
    generation = _gauge("snapshot_generation", "Generation of the last published snapshot", "part")
    generation.add_metric(["epoch"], status.generation[0])
    generation.add_metric(["number"], status.generation[1])
    yield from (build, up, writable, workers, generation)
