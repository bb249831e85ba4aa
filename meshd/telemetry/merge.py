"""Sums of service reports, over workers and over time. Pure.

`meshd.telemetry.ingest` builds them; scaling, rollouts, metrics and the status read them. All of it
is addition, so merging in any order gives the same figures. A quantile is read from the merged
histogram and never averaged.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from proxy.wire import buckets
from proxy.wire.report import EndpointReport, Histogram, ServiceReport

ROUNDING: Final = 1e-6
"""Requests in flight that are none: two sums of monotonic times (up to 1e8 s, 1e-8 s exact) differ
by less."""


@dataclass(slots=True)
class Distribution:
    """A latency histogram with the buckets of `proxy.wire.buckets`; `sum` is exact, in seconds."""

    counts: dict[int, int] = field(default_factory=dict)
    sum: float = 0.0

    def add(self, more: "Histogram | Distribution") -> None:
        """Add all values of another histogram."""
        counts = self.counts
        for bucket, count in more.counts.items():
            counts[bucket] = counts.get(bucket, 0) + count
        self.sum += more.sum

    def observe(self, seconds: float) -> None:
        """Add one value."""
        bucket = buckets.index(seconds)
        self.counts[bucket] = self.counts.get(bucket, 0) + 1
        self.sum += seconds

    @property
    def count(self) -> int:
        """Number of values."""
        return sum(self.counts.values())

    @property
    def mean(self) -> float | None:
        """Mean in seconds; None without values."""
        count = self.count
        return self.sum / count if count else None

    def quantile(self, q: float) -> float | None:
        """Return a quantile in seconds; None without values."""
        return buckets.quantile(self.counts, q)

    def upper_bounds(self) -> tuple[tuple[float, int], ...]:
        """Return (upper bound in seconds, count) of every occupied bucket, ascending."""
        return tuple((buckets.upper_bound(b), self.counts[b]) for b in sorted(self.counts))


@dataclass(slots=True)
class MergedEndpoint:
    """The sums of one endpoint, or of all endpoints of a revision.

    - `busy_seconds`: requests in flight, integrated over time.
    - `started`, `succeeded`, `failed`: attempts.
    - `latency`: of the attempts.
    """

    revision: str = ""
    busy_seconds: float = 0.0
    started: int = 0
    succeeded: int = 0
    failed: int = 0
    latency: Distribution = field(default_factory=Distribution)

    def add_report(self, report: EndpointReport) -> None:
        """Add a report, except its busy time, which is spread over the seconds it covers."""
        self.revision = report.revision
        self.started += report.started
        self.succeeded += report.succeeded
        self.failed += report.failed
        self.latency.add(report.latency)

    def add(self, more: "MergedEndpoint") -> None:
        """Add other sums."""
        self.revision = more.revision or self.revision
        self.busy_seconds += more.busy_seconds
        self.started += more.started
        self.succeeded += more.succeeded
        self.failed += more.failed
        self.latency.add(more.latency)


@dataclass(slots=True)
class MergedService:
    """The sums of one service over workers and over `interval` seconds from `start` (Unix time).

    - `codes`: answers by `METHOD class`.
    - `failures`: answers made by the proxy itself, by reason.
    - `grpc`: calls of gRPC, by `METHOD CODE`.
    - `calls`, `call_seconds`, `uncovered`: calls of other services, the time they took, and those
      that `allow` does not cover, by caller.
    - `total` = `queue` + `connect` + `first_byte` + `body`: latencies; `failed` is the part of
      `total` that ended badly.
    - `parked`, `queued`: requests waiting at the end of the interval; `parked_total`: requests
      parked during it.
    - `queue_seconds`: waiting requests, integrated over time.
    - `other_node`: requests, retries included, sent to endpoints on other nodes than the proxy.
    - `streams`: open TCP connections, tunnels and event streams at the end of the interval;
      `stream_seconds`: the same, integrated over time.
    - `background_seconds`: requests of background routes in flight, integrated over time.
    """

    start: float = 0.0
    interval: float = 0.0
    arrivals: int = 0
    codes: dict[str, int] = field(default_factory=dict)
    failures: dict[str, int] = field(default_factory=dict)
    grpc: dict[str, int] = field(default_factory=dict)
    calls: dict[str, int] = field(default_factory=dict)
    call_seconds: dict[str, float] = field(default_factory=dict)
    uncovered: dict[str, int] = field(default_factory=dict)
    retries: int = 0
    ejections: int = 0
    shed: int = 0
    denied: int = 0
    other_node: int = 0
    parked: int = 0
    parked_total: int = 0
    queued: int = 0
    queue_seconds: float = 0.0
    streams: int = 0
    stream_seconds: float = 0.0
    background_seconds: float = 0.0
    bytes_in: int = 0
    bytes_out: int = 0
    total: Distribution = field(default_factory=Distribution)
    queue: Distribution = field(default_factory=Distribution)
    connect: Distribution = field(default_factory=Distribution)
    first_byte: Distribution = field(default_factory=Distribution)
    body: Distribution = field(default_factory=Distribution)
    failed: Distribution = field(default_factory=Distribution)
    endpoints: dict[str, MergedEndpoint] = field(default_factory=dict)

    def add_report(self, report: ServiceReport) -> None:
        """Add a report, except its gauges, and except its busy time, which is spread over the
        seconds it covers."""
        self.arrivals += report.arrivals
        self.parked_total += report.parked_total
        self._add_counts(report)
        for endpoint in report.endpoints:
            self.endpoint(endpoint.id).add_report(endpoint)

    def add(self, more: "MergedService") -> None:
        """Add the sums of another interval or of more workers; the gauges of `more` count."""
        self.interval += more.interval
        self.arrivals += more.arrivals
        self.parked_total += more.parked_total
        self.parked, self.queued, self.streams = more.parked, more.queued, more.streams
        self.queue_seconds += more.queue_seconds
        self.stream_seconds += more.stream_seconds
        self.background_seconds += more.background_seconds
        self._add_counts(more)
        for name, endpoint in more.endpoints.items():
            self.endpoint(name).add(endpoint)

    def _add_counts(self, more: "ServiceReport | MergedService") -> None:
        add_counts(self.codes, more.codes)
        add_counts(self.failures, more.failures)
        add_counts(self.grpc, more.grpc)
        add_counts(self.calls, more.calls)
        add_counts(self.uncovered, more.uncovered)
        for caller, seconds in more.call_seconds.items():
            self.call_seconds[caller] = self.call_seconds.get(caller, 0.0) + seconds
        self.retries += more.retries
        self.ejections += more.ejections
        self.shed += more.shed
        self.denied += more.denied
        self.other_node += more.other_node
        self.bytes_in += more.bytes_in
        self.bytes_out += more.bytes_out
        self.total.add(more.total)
        self.queue.add(more.queue)
        self.connect.add(more.connect)
        self.first_byte.add(more.first_byte)
        self.body.add(more.body)
        self.failed.add(more.failed)

    def endpoint(self, name: str) -> MergedEndpoint:
        """Return the sums of one endpoint, which start empty."""
        found = self.endpoints.get(name)
        if found is None:
            found = self.endpoints[name] = MergedEndpoint()
        return found

    @property
    def completions(self) -> int:
        """Requests with a final answer, from a replica or from the proxy itself."""
        return sum(self.codes.values())

    @property
    def errors(self) -> int:
        """Answers with a 5xx status."""
        return sum(count for code, count in self.codes.items() if code.endswith("5xx"))

    @property
    def in_flight(self) -> float:
        """Mean number of requests at the endpoints or waiting for one."""
        if not self.interval:
            return 0.0
        busy = sum(endpoint.busy_seconds for endpoint in self.endpoints.values())
        return (busy + self.queue_seconds) / self.interval

    @property
    def load_in_flight(self) -> float:
        """The part of `in_flight` that is load: without requests of background routes."""
        if not self.interval:
            return 0.0
        load = self.in_flight - self.background_seconds / self.interval
        return load if load > ROUNDING else 0.0

    @property
    def mean_streams(self) -> float:
        """Mean number of open TCP connections, tunnels and event streams: the part of `in_flight`
        for which no answer is awaited."""
        return self.stream_seconds / self.interval if self.interval else 0.0

    def revisions(self) -> dict[str, MergedEndpoint]:
        """Return the sums of the endpoints by revision."""
        found: dict[str, MergedEndpoint] = {}
        for endpoint in self.endpoints.values():
            found.setdefault(endpoint.revision, MergedEndpoint()).add(endpoint)
        return found


def add_counts(to: dict[str, int], more: Mapping[str, int]) -> None:
    """Add the counts of `more` to `to`, key by key."""
    for key, count in more.items():
        to[key] = to.get(key, 0) + count
