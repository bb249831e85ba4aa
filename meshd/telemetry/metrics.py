"""`/metrics`: everything the mesh counts, as Prometheus reads it.

The label sets are bounded: services by the spec, methods by the standard, reasons, causes and
stages by the code that names them. Replicas and endpoints, which come and go, are no labels.
`docs/metrics.md` lists every family.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from math import inf
from typing import Final

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from meshd.api.model import Event, Status
from meshd.telemetry.events import JOB, ROLLOUT, Kind
from meshd.telemetry.ingest import Ingest
from meshd.telemetry.merge import Distribution, MergedService
from proxy.wire import buckets

EDGES: Final = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
)  # fmt: skip
"""Upper bounds in seconds of the exposed histograms. The proxy's own are finer: a request is
counted under the first edge that its bucket, at most 3 % wide, lies wholly below."""
START_EDGES: Final = (0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 40.0, 60.0, 120.0)
MOST_CAUSES: Final = 32


def exposed_buckets(
    merged: Distribution, edges: tuple[float, ...] = EDGES
) -> list[tuple[str, float]]:
    """Cumulative (upper edge, count), as the exposition format wants them."""
    sums = [0] * (len(edges) + 1)
    for bucket, count in merged.counts.items():
        bound = buckets.upper_bound(bucket) * (1 - 1e-9)
        place = next((i for i, edge in enumerate(edges) if bound <= edge), len(edges))
        sums[place] += count
    found: list[tuple[str, float]] = []
    total = 0
    for edge, count in zip((*edges, inf), sums, strict=True):
        total += count
        found.append(("+Inf" if edge == inf else repr(edge), float(total)))
    return found


class Metrics:
    """The registry behind `/metrics`.

    `ingest` and `status` are asked at each scrape, with `clock` for Unix time; what no one
    keeps (decisions, rollouts, start-up times) is told through the methods below.
    """

    def __init__(
        self, ingest: Ingest, status: Callable[[], Status], clock: Callable[[], float]
    ) -> None:
        self.scale_decisions: Counter[tuple[str, str, str]] = Counter()
        self.rollouts: Counter[tuple[str, str]] = Counter()
        self.jobs: Counter[tuple[str, str]] = Counter()
        self._causes: set[str] = set()
        self.events: Counter[str] = Counter()
        self.starts: dict[str, Distribution] = {}
        self.cold_starts: dict[str, Distribution] = {}
        self.registry = CollectorRegistry(auto_describe=False)
        ProcessCollector(registry=self.registry)
        self.registry.register(_MeshCollector(self, ingest, status, clock))

    def count_scale(self, service: str, direction: str, cause: str) -> None:
        """One decision of the autoscaler for `PROJECT/SERVICE`: `up`, `down` or `hold`, and
        its cause, a word of a small vocabulary."""
        if len(self._causes) < MOST_CAUSES:
            self._causes.add(cause)
        word = cause if cause in self._causes else "other"
        self.scale_decisions[service, direction, word] += 1

    def observe_start(self, service: str, seconds: float) -> None:
        """A replica of `PROJECT/SERVICE` took its first good probe `seconds` after its order."""
        self.starts.setdefault(service, Distribution()).observe(seconds)

    def observe_cold_start(self, service: str, seconds: float) -> None:
        """`seconds` from the request that woke `PROJECT/SERVICE` to its first ready replica."""
        self.cold_starts.setdefault(service, Distribution()).observe(seconds)

    def observe_event(self, event: Event) -> None:
        """Counts what happened; kinds that `Kind` does not know are counted as `other`."""
        known = event.kind in Kind.__members__.values()
        self.events[event.kind if known else "other"] += 1
        if known and event.kind.startswith(ROLLOUT):
            result = event.kind.removeprefix(ROLLOUT)
            self.rollouts[f"{event.project}/{event.service}", result] += 1
        if known and event.kind.startswith(JOB):
            result = event.kind.removeprefix(JOB)
            self.jobs[f"{event.project}/{event.service}", result] += 1

    def exposition(self) -> bytes:
        """Prometheus text format 0.0.4."""
        return generate_latest(self.registry)


class _MeshCollector(Collector):
    """Reads everything afresh at each scrape."""

    def __init__(
        self,
        told: Metrics,
        ingest: Ingest,
        status: Callable[[], Status],
        clock: Callable[[], float],
    ) -> None:
        self._told = told
        self._ingest = ingest
        self._status = status
        self._clock = clock

    def collect(self) -> Iterator[Metric]:
        status, now = self._status(), self._clock()
        yield from self._traffic()
        yield from self._now(now)
        yield from _replicas(status)
        yield from _daemon(status)
        yield from self._decisions(status)
        yield from self._workers(now)

    def _traffic(self) -> Iterator[Metric]:
        totals = {name: self._ingest.total(name) for name in self._ingest.services()}
        requests = CounterMetricFamily(
            "meshd_requests",
            "Requests answered, by the class of the status clients got",
            labels=["service", "method", "code"],
        )
        for name, total in totals.items():
            for key, count in sorted(total.codes.items()):
                method, _, code = key.partition(" ")
                requests.add_metric([name, method, code], count)
        yield requests
        yield _labelled(totals, "meshd_proxy_failures", "Answers the proxy made itself", "reason",
                        lambda total: total.failures)  # fmt: skip
        yield _labelled(totals, "meshd_calls", "Requests from other services", "caller",
                        lambda total: total.calls)  # fmt: skip
        yield _labelled(totals, "meshd_uncovered_calls", "Calls that allow does not cover",
                        "caller", lambda total: total.uncovered)  # fmt: skip
        for what, text, value in _COUNTERS:
            family = CounterMetricFamily(f"meshd_{what}", text, labels=["service"])
            for name, total in totals.items():
                family.add_metric([name], value(total))
            yield family
        duration = HistogramMetricFamily(
            "meshd_request_duration_seconds",
            "From a request's first byte to its answer's last; of a stream of events, to its first",
            labels=["service"],
        )
        stages = HistogramMetricFamily(
            "meshd_request_stage_seconds",
            "A request's time split by what it was spent on",
            labels=["service", "stage"],
        )
        for name, total in totals.items():
            duration.add_metric([name], exposed_buckets(total.total), total.total.sum)
            for stage in ("queue", "connect", "first_byte", "body"):
                part: Distribution = getattr(total, stage)
                stages.add_metric([name, stage], exposed_buckets(part), part.sum)
        yield duration
        yield stages

    def _now(self, now: float) -> Iterator[Metric]:
        in_flight = _gauge("in_flight", "Requests at replicas now", "service")
        parked = _gauge("parked", "Requests waiting for a first ready replica", "service")
        queued = _gauge("queued", "Requests waiting because replicas are at their limit", "service")
        ejected = _gauge("ejected_endpoints", "Endpoints that a worker has ejected", "service")
        limit = _gauge("adaptive_limit", "Requests at once that adaptive limits allow", "service")
        for name in self._ingest.services():
            window = self._ingest.window(name, 1, now)
            if allowed := sum(endpoint.limit for endpoint in window.endpoints.values()):
                limit.add_metric([name], allowed)
            in_flight.add_metric([name], window.in_flight)
            parked.add_metric([name], window.merged.parked)
            queued.add_metric([name], window.merged.queued)
            out = sum(endpoint.ejected_by > 0 for endpoint in window.endpoints.values())
            ejected.add_metric([name], out)
        yield from (in_flight, parked, queued, ejected, limit)

    def _decisions(self, status: Status) -> Iterator[Metric]:
        present = {f"{service.project}/{service.name}" for service in status.services}
        decisions = CounterMetricFamily(
            "meshd_scale_decisions",
            "Decisions of the autoscaler",
            labels=["service", "direction", "cause"],
        )
        for (service, direction, cause), count in sorted(self._told.scale_decisions.items()):
            if service in present:
                decisions.add_metric([service, direction, cause], count)
        rollouts = CounterMetricFamily(
            "meshd_rollouts", "Rollouts, by what became of them", labels=["service", "result"]
        )
        for (service, result), count in sorted(self._told.rollouts.items()):
            if service in present:
                rollouts.add_metric([service, result], count)
        jobs = CounterMetricFamily(
            "meshd_jobs", "One-off jobs, by what became of them", labels=["service", "result"]
        )
        for (service, result), count in sorted(self._told.jobs.items()):
            if service in present:
                jobs.add_metric([service, result], count)
        starts = HistogramMetricFamily(
            "meshd_replica_start_seconds",
            "From ordering a replica to its first good probe",
            labels=["service"],
        )
        for service, took in sorted(self._told.starts.items()):
            if service in present:
                starts.add_metric([service], exposed_buckets(took, START_EDGES), took.sum)
        cold = HistogramMetricFamily(
            "meshd_cold_start_seconds",
            "From the request that woke a service at zero to its first ready replica",
            labels=["service"],
        )
        for service, took in sorted(self._told.cold_starts.items()):
            if service in present:
                cold.add_metric([service], exposed_buckets(took, START_EDGES), took.sum)
        events = CounterMetricFamily("meshd_events", "Things that happened", labels=["kind"])
        for kind, count in sorted(self._told.events.items()):
            events.add_metric([kind], count)
        yield from (decisions, rollouts, jobs, starts, cold, events)

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


_COUNTERS: Final[tuple[tuple[str, str, Callable[[MergedService], int]], ...]] = (
    ("arrivals", "Requests that came", lambda total: total.arrivals),
    ("retries", "Tries after the first", lambda total: total.retries),
    ("ejections", "Times an endpoint was taken out for its failures", lambda t: t.ejections),
    ("shed", "Requests refused for overload", lambda total: total.shed),
    ("denied", "Calls refused because the caller is not allowed", lambda total: total.denied),
    ("parked_requests", "Requests that had to wait for a first replica", lambda t: t.parked_total),
    ("received_bytes", "Bytes of requests", lambda total: total.bytes_in),
    ("sent_bytes", "Bytes of answers", lambda total: total.bytes_out),
)


def _gauge(name: str, text: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"meshd_{name}", text, labels=labels)


def _labelled(
    totals: dict[str, MergedService],
    name: str,
    text: str,
    label: str,
    counts: Callable[[MergedService], dict[str, int]],
) -> Metric:
    family = CounterMetricFamily(name, text, labels=["service", label])
    for service, total in totals.items():
        for key, count in sorted(counts(total).items()):
            family.add_metric([service, key], count)
    return family


def _replicas(status: Status) -> Iterator[Metric]:
    text = "Replicas wanted, running, ready, and paused for later"
    replicas = _gauge("replicas", text, "service", "state")
    bounds = _gauge("replicas_bound", "Fewest and most replicas", "service", "bound")
    state = _gauge("service_state", "1 for the state that a service is in", "service", "state")
    override = _gauge("scale_override", "1 while the number is set by hand", "service")
    cores = _gauge("cpu_cores", "CPU that a service's replicas use", "service")
    memory = _gauge("memory_bytes", "Memory that a service's replicas use", "service")
    for service in status.services:
        key = f"{service.project}/{service.name}"
        cores.add_metric([key], sum(r.cores or 0.0 for r in service.replicas))
        memory.add_metric([key], sum(r.memory or 0 for r in service.replicas))
        replicas.add_metric([key, "wanted"], service.wanted)
        replicas.add_metric([key, "running"], service.running)
        replicas.add_metric([key, "ready"], service.ready)
        replicas.add_metric([key, "paused"], service.paused)
        bounds.add_metric([key, "min"], service.minimum)
        bounds.add_metric([key, "max"], service.maximum)
        state.add_metric([key, service.state], 1)
        override.add_metric([key], service.override is not None)
    yield from (replicas, bounds, state, override, cores, memory)


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
