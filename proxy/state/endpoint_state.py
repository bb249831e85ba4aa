"""The live state of one endpoint in a worker, kept by endpoint id from snapshot to snapshot.

`proxy.state.service_state` creates and updates it; the request path starts and finishes requests
on it. It alone writes its attributes, apart from the marked inlined code in
`proxy.request.fast_path`.
"""

from typing import TYPE_CHECKING, Final

from proxy.http1.response_template import ResponseTemplates
from proxy.ipc.shared_memory import WorkerRow
from proxy.observe.counters import EndpointCounters
from proxy.peer.routes import PeerRoute
from proxy.policy.eject import EndpointHealth
from proxy.policy.gradient import Gradient
from proxy.policy.idle_age import IdleAge
from proxy.policy.latency import LatencyAtLoad, PeakEwma
from proxy.transport.upstream_tls import TlsEndpoint
from proxy.wire.snapshot import Endpoint

if TYPE_CHECKING:
    from proxy.request.sinks import StreamPool
    from proxy.request.upstream import Upstream

NEVER: Final = float("inf")
POOL_SECONDS: Final = 60.0
"""Seconds for which idle connections are kept before the first snapshot says otherwise."""


class EndpointState:
    """The live state of one endpoint.

    - `service`, `id`: the service's name and the endpoint's id.
    - `endpoint`: its entry in the current snapshot; `node`: the node in it.
    - `serving`: whether the snapshot lets it take new requests.
    - `weight`: weight for balancing, with slow start applied.
    - `in_flight`: requests in flight of all workers; balancing uses this number.
    - `in_flight_elsewhere`: the part of `in_flight` that other workers have.
    - `latency_elsewhere`: mean latency of all workers in seconds, 0.0 while unknown.
    - `latency_estimate`: this worker's latency estimate.
    - `fast_failing`: whether its fast responses are failures.
    - `gradient`: its adaptive concurrency limit, or None.
    - `unreachable`: whether it accepts no connections, by this worker's own evidence.
    - `health`, `counters`: outlier detection, and what the next report says.
    - `idle`: open connections without a request, the last used at the end.
    - `idle_seconds`: seconds for which they are kept, unless the endpoint asks for less.
    - `idle_age`: for how long one may be idle before a request that must not be sent twice.
    - `connections`: connections that are open or being opened.
    - `accepting_host`: the address that accepted last, if the endpoint has several; empty before.
    - `opening`: the part of `connections` that are being opened.
    - `response_templates`: templates of the responses of its service.
    - `tls`: how connections to it are encrypted; None for connections in the clear.
    - `http_version`: version of HTTP that it speaks; `http2_tls`: encryption of its connections of
      HTTP/2, or None.
    - `streams`: its connections of HTTP/2; None if it has none.
    - `proxy_protocol`: version of the PROXY header that connections begin with; empty for none.
    - `peer`: the way through the proxy of its node; None if it is reached at its address.
    """

    __slots__ = (
        "_failed",
        "_failed_now",
        "_row",
        "_slot",
        "accepting_host",
        "connections",
        "counters",
        "endpoint",
        "fast_failing",
        "gradient",
        "health",
        "http2_tls",
        "http_version",
        "id",
        "idle",
        "idle_age",
        "idle_seconds",
        "in_flight",
        "in_flight_elsewhere",
        "latency_elsewhere",
        "latency_estimate",
        "node",
        "opening",
        "peer",
        "proxy_protocol",
        "response_templates",
        "service",
        "serving",
        "streams",
        "tls",
        "unreachable",
        "weight",
    )

    def __init__(
        self,
        service: str,
        endpoint: Endpoint,
        response_templates: ResponseTemplates,
        *,
        peak: bool,
        adaptive: bool,
        tls: TlsEndpoint | None = None,
        proxy_protocol: str = "",
        http_version: str = "http1",
        http2_tls: TlsEndpoint | None = None,
        peer: PeerRoute | None = None,
    ) -> None:
        self.service = service
        self.endpoint = endpoint
        self.id = endpoint.id
        self.node = endpoint.node
        self.weight = endpoint.weight
        self.in_flight = 0
        self.in_flight_elsewhere = 0
        self._row: WorkerRow | None = None
        self._slot = -1
        self._failed = self._failed_now = False
        self.latency_elsewhere = 0.0
        self.fast_failing = False
        self.latency_estimate: PeakEwma | LatencyAtLoad = PeakEwma() if peak else LatencyAtLoad()
        self.gradient = Gradient() if adaptive else None
        self.health = EndpointHealth(endpoint.id)
        self.counters = EndpointCounters()
        self.idle: list[Upstream] = []
        self.idle_seconds = POOL_SECONDS
        self.idle_age = IdleAge()
        self.connections = 0
        self.accepting_host = ""
        self.opening = 0
        self.unreachable = False
        self.serving = True
        self.response_templates = response_templates
        self.tls = tls
        self.proxy_protocol = proxy_protocol
        self.http_version = http_version
        self.http2_tls = http2_tls
        self.peer = peer
        self.streams: StreamPool | None = None

    # --- from the snapshot

    def update(self, endpoint: Endpoint, idle_seconds: float, *, adaptive: bool) -> None:
        """Take over the endpoint's entry in a new snapshot. `adaptive` says whether it has a
        concurrency limit that follows its latency."""
        self.endpoint = endpoint
        self.node = endpoint.node
        self.idle_seconds = idle_seconds
        self.serving = endpoint.state == "ready"
        self._failed_now = endpoint.state == "failed" and not self._failed
        self._failed = endpoint.state == "failed"
        if not adaptive:
            self.gradient = None
        elif self.gradient is None:
            self.gradient = Gradient()

    def hosts(self) -> tuple[str, ...]:
        """Return the addresses to connect to in order: the one that accepted last comes first."""
        where = self.endpoint
        known = (where.host, *where.alternatives)
        if self.accepting_host not in known:
            return known
        return (self.accepting_host, *(each for each in known if each != self.accepting_host))

    def record_accepting(self, host: str) -> None:
        """Remember the address that accepted a connection."""
        self.accepting_host = host

    def take_failure(self) -> bool:
        """Return whether the last snapshot says for the first time that the endpoint hangs."""
        failed, self._failed_now = self._failed_now, False
        return failed

    def retire(self) -> None:
        """Take no new requests: the endpoint is not in the snapshot any more."""
        self.serving = False

    def ramp(self, share: float) -> None:
        """Set the weight to `share`, 0.0 to 1.0, of the configured one (slow start)."""
        # A weight of zero would keep the endpoint from ever being picked.
        self.weight = max(self.endpoint.weight, 1e-6) * share

    # --- requests

    @property
    def latency(self) -> float:
        """Expected latency in seconds at the current load, 0.0 while unknown. The other workers'
        mean where this worker knows nothing."""
        return self.latency_estimate.at(self.in_flight) or self.latency_elsewhere

    def start(self, now: float) -> None:
        """Count the start of a request; `now` is in monotonic seconds."""
        # `EndpointCounters.start`, inlined: every request comes here, and the call costs 0.4 % of
        # the instructions of a request in plain Python.
        self.in_flight += 1
        counters = self.counters
        counters.in_flight += 1
        counters.started += 1
        counters.integral -= now
        if self._row is not None:
            self._row.in_flight[self._slot] = counters.in_flight

    def finish(self, now: float) -> None:
        """Count the end of a request, whatever its outcome."""
        self.in_flight -= 1
        counters = self.counters
        counters.in_flight -= 1
        counters.integral += now
        if self._row is not None:
            self._row.in_flight[self._slot] = counters.in_flight

    def record_success(self, seconds: float, now: float, load: int) -> bool:
        """Record a good response that took `seconds`, sent while `load` other requests were in
        flight. Return whether it ended an ejection of the endpoint."""
        self.latency_estimate.observe(seconds, now, load)
        if self.gradient is not None:
            self.gradient.observe(seconds, load + 1)
        health = self.health
        readmitted = health.record_success(seconds)
        self.fast_failing = health.failure_ewma > 0.0 and health.fast_failing
        return readmitted

    def record_connected(self, seconds: float) -> bool:
        """Record a TCP connection that was opened in `seconds`. It does not enter the latency that
        balancing uses: there, connections in progress count alone. Return whether it ended an
        ejection of the endpoint."""
        health = self.health
        readmitted = health.record_success(seconds)
        self.fast_failing = health.failure_ewma > 0.0 and health.fast_failing
        return readmitted

    def record_failure(self) -> None:
        """Update what balancing sees after a failure was counted in `health`."""
        self.fast_failing = self.health.fast_failing

    def has_answered_since(self, then: float) -> bool:
        """Return whether a good response arrived after `then`, in monotonic seconds."""
        return self.latency_estimate.observed_at() > then

    # --- connections

    def has_connection(self) -> bool:
        """Return whether one more request needs no new connection."""
        return bool(self.idle) or (self.streams is not None and self.streams.has_room())

    def use_streams(self, streams: "StreamPool") -> None:
        """Send requests on connections that carry several at once."""
        self.streams = streams

    def count_opening(self, change: int) -> None:
        """Count connections that begin to open (positive), are open or have failed (negative)."""
        self.opening += change

    def mark_unreachable(self, unreachable: bool) -> None:
        """Set whether it accepts no connections. `ServiceState.refresh` applies it."""
        self.unreachable = unreachable

    def count_connections(self, change: int) -> None:
        """Count connections that are opened (positive) or closed (negative)."""
        self.connections += change
        if self._row is not None:
            self._row.held[self._slot] = self.connections

    def take_expired(self, now: float) -> "list[Upstream]":
        """Remove and return the connections whose idle time is over at `now`."""
        expired = [upstream for upstream in self.idle if upstream.idle_until <= now]
        if expired:
            self.idle = [upstream for upstream in self.idle if upstream.idle_until > now]
        return expired

    # --- numbers shared with other workers

    def share(self, row: WorkerRow) -> None:
        """Publish this worker's numbers in `row`, and read those of the others from it."""
        if self._row is None:
            self._slot = row.claim(self.service, self.id)
            self._row = row if self._slot >= 0 else None
            self.publish()

    def stop_sharing(self) -> None:
        """Release the shared cells: the endpoint was removed and has no request in flight."""
        if self._row is not None:
            self._row.release(self._slot)
            self._row = None

    def publish(self) -> None:
        """Publish this worker's requests in flight and connections."""
        row = self._row
        if row is not None:
            row.in_flight[self._slot] = self.counters.in_flight
            row.held[self._slot] = self.connections

    def announce_requests(self, more: int) -> int:
        """Publish `more` requests than are in flight here. Return the sum over all workers."""
        row, total = self._row, self.counters.in_flight + more
        if row is None:
            return total
        row.in_flight[self._slot] = total
        row.sync()
        elsewhere = row.in_flight_elsewhere(self._slot)
        self.in_flight += elsewhere - self.in_flight_elsewhere
        self.in_flight_elsewhere = elsewhere
        return total + elsewhere

    def announce_connections(self, more: int) -> int:
        """Publish `more` connections than there are here. Return the sum over all workers."""
        row, total = self._row, self.connections + more
        if row is None:
            return total
        row.held[self._slot] = total
        row.sync()
        return total + row.held_elsewhere(self._slot)

    def connections_elsewhere(self) -> int:
        """Return the number of connections that other workers have to the endpoint."""
        return self._row.held_elsewhere(self._slot) if self._row is not None else 0

    def requests_everywhere(self) -> int:
        """Return the requests in flight of all workers, as they are now."""
        here, row = self.counters.in_flight, self._row
        return here if row is None else here + row.in_flight_elsewhere(self._slot)

    def refresh_shared_counts(self) -> None:
        """Read the other workers' requests in flight and latency, and publish this worker's
        latency. The caller syncs the row before."""
        row = self._row
        if row is None:
            return
        elsewhere = row.in_flight_elsewhere(self._slot)
        self.in_flight += elsewhere - self.in_flight_elsewhere
        self.in_flight_elsewhere = elsewhere
        row.latency[self._slot] = self.latency_estimate.at(self.in_flight)
        self.latency_elsewhere = row.mean_latency(self._slot)


Endpoints = tuple[EndpointState, ...]


NO_ENDPOINTS: Final[Endpoints] = ()
