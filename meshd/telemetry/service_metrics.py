"""The families of `/metrics` that have samples of each service, service by service.

All of a service's samples are read in one go, so that they fit together; between two services
the caller may do something else.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Final, Literal

from meshd.api.dto import ServiceStatus
from meshd.telemetry.exposition import Family, label
from meshd.telemetry.ingest import Window
from meshd.telemetry.merge import Distribution, MergedService

START_EDGES: Final = (0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 40.0, 60.0, 120.0)
STAGES: Final = ("queue", "connect", "first_byte", "body")
_FAMILIES: Final[tuple[tuple[Literal["counter", "gauge", "histogram"], str, str], ...]] = (
    ("counter", "requests_total", "Requests answered, by the class of the status clients got"),
    ("counter", "proxy_failures_total", "Answers the proxy made itself"),
    ("counter", "calls_total", "Requests from other services"),
    ("counter", "uncovered_calls_total", "Calls that allow does not cover"),
    ("counter", "arrivals_total", "Requests that came"),
    ("counter", "retries_total", "Tries after the first"),
    ("counter", "ejections_total", "Times an endpoint was taken out for its failures"),
    ("counter", "shed_total", "Requests refused for overload"),
    ("counter", "denied_total", "Calls refused because the caller is not allowed"),
    ("counter", "parked_requests_total", "Requests that had to wait for a first replica"),
    ("counter", "received_bytes_total", "Bytes of requests"),
    ("counter", "sent_bytes_total", "Bytes of answers"),
    (
        "histogram",
        "request_duration_seconds",
        "From a request's first byte to its answer's last; of a stream of events, to its first",
    ),
    ("histogram", "request_stage_seconds", "A request's time split by what it was spent on"),
    ("gauge", "in_flight", "Requests at replicas now"),
    ("gauge", "parked", "Requests waiting for a first ready replica"),
    ("gauge", "queued", "Requests waiting because replicas are at their limit"),
    ("gauge", "ejected_endpoints", "Endpoints that a worker has ejected"),
    ("gauge", "adaptive_limit", "Requests at once that adaptive limits allow"),
    ("gauge", "replicas", "Replicas wanted, running, ready, and paused for later"),
    ("gauge", "replicas_bound", "Fewest and most replicas"),
    ("gauge", "service_state", "1 for the state that a service is in"),
    ("gauge", "scale_override", "1 while the number is set by hand"),
    ("gauge", "cpu_cores", "CPU that a service's replicas use"),
    ("gauge", "memory_bytes", "Memory that a service's replicas use"),
    ("counter", "scale_decisions_total", "Decisions of the autoscaler"),
    ("counter", "rollouts_total", "Rollouts, by what became of them"),
    ("counter", "jobs_total", "One-off jobs, by what became of them"),
    ("histogram", "replica_start_seconds", "From ordering a replica to its first good probe"),
    (
        "histogram",
        "cold_start_seconds",
        "From the request that woke a service at zero to its first ready replica",
    ),
)
_COUNTERS: Final[tuple[tuple[str, Callable[[MergedService], int]], ...]] = (
    ("arrivals_total", lambda total: total.arrivals),
    ("retries_total", lambda total: total.retries),
    ("ejections_total", lambda total: total.ejections),
    ("shed_total", lambda total: total.shed),
    ("denied_total", lambda total: total.denied),
    ("parked_requests_total", lambda total: total.parked_total),
    ("received_bytes_total", lambda total: total.bytes_in),
    ("sent_bytes_total", lambda total: total.bytes_out),
)


class ServiceMetrics:
    """One scrape's worth; `families` is empty before anything was added but for the heads."""

    def __init__(self) -> None:
        self._families = {
            name: Family(kind, f"meshd_{name}", text) for kind, name, text in _FAMILIES
        }

    @property
    def families(self) -> Iterable[Family]:
        """What was added so far."""
        return self._families.values()

    def add_traffic(self, key: str, total: MergedService, now: Window) -> None:
        """What a service was asked since it was first seen, and what waits or is at it now."""
        of, service = self._families, label("service", key)
        for code, count in sorted(total.codes.items()):
            method, _, kind = code.partition(" ")
            of["requests_total"].add(
                f"{service},{label('method', method)},{label('code', kind)}", count
            )
        self.add_counts("proxy_failures_total", key, "reason", total.failures)
        self.add_counts("calls_total", key, "caller", total.calls)
        self.add_counts("uncovered_calls_total", key, "caller", total.uncovered)
        for name, value in _COUNTERS:
            of[name].add(service, value(total))
        of["request_duration_seconds"].add_histogram(service, total.total)
        for stage in STAGES:
            part: Distribution = getattr(total, stage)
            of["request_stage_seconds"].add_histogram(f'{service},stage="{stage}"', part)
        endpoints = now.endpoints.values()
        if allowed := sum(endpoint.limit for endpoint in endpoints):
            of["adaptive_limit"].add(service, allowed)
        of["in_flight"].add(service, now.in_flight)
        of["parked"].add(service, now.merged.parked)
        of["queued"].add(service, now.merged.queued)
        of["ejected_endpoints"].add(service, sum(e.ejected_by > 0 for e in endpoints))

    def add_counts(self, name: str, key: str, what: str, counts: Mapping[str, int]) -> None:
        """Counts of a service by one label."""
        for word, count in sorted(counts.items()):
            self._families[name].add(f"{label('service', key)},{label(what, word)}", count)

    def add_decisions(self, key: str, direction: str, cause: str, count: int) -> None:
        """Decisions of the autoscaler for a service."""
        labels = f"{label('service', key)},{label('direction', direction)},{label('cause', cause)}"
        self._families["scale_decisions_total"].add(labels, count)

    def add_replicas(self, status: ServiceStatus) -> None:
        """The replicas that a service has and is to have."""
        of, service = self._families, label("service", f"{status.project}/{status.name}")
        for word, number in (
            ("wanted", status.desired),
            ("running", status.running),
            ("ready", status.ready),
            ("paused", status.paused),
        ):
            of["replicas"].add(f'{service},state="{word}"', number)
        of["replicas_bound"].add(f'{service},bound="min"', status.minimum)
        of["replicas_bound"].add(f'{service},bound="max"', status.maximum)
        of["service_state"].add(f"{service},{label('state', status.state)}", 1)
        of["scale_override"].add(service, status.override is not None)
        of["cpu_cores"].add(service, sum(r.cores or 0.0 for r in status.replicas))
        of["memory_bytes"].add(service, sum(r.memory or 0 for r in status.replicas))

    def add_starts(self, key: str, took: Distribution | None, cold: Distribution | None) -> None:
        """How long a service's replicas take to start; None where none did."""
        service = label("service", key)
        if took is not None:
            self._families["replica_start_seconds"].add_histogram(service, took, START_EDGES)
        if cold is not None:
            self._families["cold_start_seconds"].add_histogram(service, cold, START_EDGES)
