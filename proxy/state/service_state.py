"""The live state of one service in a worker, kept by name from snapshot to snapshot.

`DataPlane.install` creates and updates it; `proxy.request` picks endpoints from it, queues
requests in it and counts in it.
"""

from collections import deque
from typing import TYPE_CHECKING, Final

from proxy.http1.response_template import ResponseTemplates
from proxy.ipc.shared_memory import WorkerRow
from proxy.observe.counters import ServiceCounters
from proxy.peer.routes import NO_PEERS, PeerRoutes
from proxy.policy import balance, eject, retry
from proxy.policy.backlog import NO_LIMIT, Backlog
from proxy.policy.split import Splitter
from proxy.state.concurrency_limits import ConcurrencyLimits
from proxy.state.endpoint_state import NEVER, NO_ENDPOINTS, Endpoints, EndpointState
from proxy.transport.upstream_tls import HTTP1_ALPN, TlsEndpoint, get_client
from proxy.wire.snapshot import Endpoint, Service

if TYPE_CHECKING:
    from proxy.request.dispatch import QueueEntry

_ALPN: Final = {
    "http1": HTTP1_ALPN,
    "h2c": HTTP1_ALPN,
    "h2": ("h2",),
    "auto": ("h2", *HTTP1_ALPN),
}
"""Protocols to offer by ALPN, by `Service.http_version`."""


class ServiceState:
    """The live state of one service.

    - `config`: its entry in the current snapshot.
    - `counters`: what the next report says.
    - `budget`: this worker's part of the retry budget.
    - `picker`: the balancing algorithm; `prefers_node`: whether it prefers the own node.
    - `endpoints`: all endpoints of the snapshot by id.
    - `ready`: those that take new requests.
    - `candidates`: those of `ready` that are neither ejected nor unreachable.
    - `waiting`: parked and queued requests, the oldest first.
    - `parked_bytes`: request body bytes that parked requests hold.
    - `fast_candidates`: the same for the fast path; none while requests may have to wait.
    - `backlog`: the limit of requests in flight at each endpoint while they are saturated;
      `may_queue` says whether the service may have one.
    - `refused_at`: monotonic seconds at which an endpoint last refused a connection.
    - `in_flight`: requests of this worker, waiting ones included.
    - `response_templates`: templates of its responses.
    - `limits`: its concurrency limits; `has_limits` says whether any is set.
    - `hedges`, `traces`: whether requests are hedged, and whether each is asked for its trace.
    - `ports`: the other ports of the same service; limits hold for all of them together.
    - `splitter`: the traffic split between revisions, or None.
    - `request_timeout`: seconds; 0.0 for none.
    - `connect_timeout`, `first_byte_timeout`, `idle_timeout`, `keep_alive_timeout`,
      `tunnel_timeout`: seconds; infinity for none.
    - `max_body`: largest request body in bytes, infinity for no limit.
    - `fast_path_ok`: whether its requests may take the fast path.
    - `may_refuse`: whether endpoints can say that they did not process a request.
    - `parks_on_refusal`: whether requests wait while no endpoint accepts a connection.
    - `probes_endpoints`: whether an endpoint that accepts no connection gets no requests until a
      probe of it succeeds.

    `row` is where this worker, one of `workers`, shares numbers with the others.
    """

    def __init__(self, service: Service, row: WorkerRow | None = None, workers: int = 1) -> None:
        self.name = service.name
        self.config = service
        self.counters = ServiceCounters()
        self.budget = _make_budget(service, workers)
        self.picker = balance.make_picker(service.balance, service.endpoints)
        self.prefers_node = False
        self.endpoints: dict[str, EndpointState] = {}
        self.ready: Endpoints = NO_ENDPOINTS
        self.candidates: Endpoints = NO_ENDPOINTS
        self.fast_candidates: Endpoints = NO_ENDPOINTS
        self.backlog = Backlog()
        self.may_queue = False
        self._by_revision: dict[str, Endpoints] = {}
        self.waiting: deque[QueueEntry] = deque()
        self.parked_bytes = 0
        self.refused_at = 0.0
        self.in_flight = 0
        self.response_templates = ResponseTemplates()
        self.limits = ConcurrencyLimits(self, row, workers)
        self.has_limits = False
        self.ports: tuple[ServiceState, ...] = ()
        self.hedges = False
        self.traces = False
        self.fast_path_ok = False
        self.parks_on_refusal = False
        self.probes_endpoints = False
        self.may_refuse = False
        self.splitter: Splitter | None = None
        self.request_timeout = 0.0
        self.connect_timeout = NEVER
        self.first_byte_timeout = NEVER
        self.idle_timeout = NEVER
        self.keep_alive_timeout = NEVER
        self.tunnel_timeout = NEVER
        self.max_body = NEVER

    def update(
        self,
        service: Service,
        now: float,
        wall: float,
        *,
        spans: bool = False,
        peers: PeerRoutes = NO_PEERS,
    ) -> list[EndpointState]:
        """Take over a new definition. Return the endpoint states that it has no longer.

        `now` is in monotonic seconds, `wall` in Unix time; `spans` says whether the worker
        records spans, `peers` how endpoints of other nodes are reached.
        """
        old = self.config
        self.config = service
        if old.retries != service.retries:
            self.budget = _make_budget(service, self.limits.workers)
        hashed = service.balance.algorithm in ("ring-hash", "maglev")
        node = peers.own_node
        prefers_node = balance.prefers_node(service.balance, service.endpoints, node)
        if (
            old.balance != service.balance
            or prefers_node != self.prefers_node
            or (hashed and old.endpoints != service.endpoints)
        ):
            self.picker = balance.make_picker(service.balance, service.endpoints, node)
            self.prefers_node = prefers_node
        limits = service.limits
        self.hedges = service.retries.hedge_after > 0.0
        self.traces = spans or service.trace is not None
        self.has_limits = bool(
            limits.service_in_flight
            or limits.endpoint_in_flight
            or limits.endpoint_connections
            or limits.adaptive
        )
        # Every request needs these: they are copied to save the lookups through the policy.
        self.request_timeout = service.timeouts.request
        self.connect_timeout = service.timeouts.connect or NEVER
        self.first_byte_timeout = service.timeouts.first_byte or NEVER
        self.idle_timeout = service.timeouts.idle or NEVER
        self.keep_alive_timeout = service.timeouts.keep_alive
        self.tunnel_timeout = service.timeouts.tunnel or NEVER
        self.max_body = limits.body or NEVER
        self.splitter = Splitter(service.split) if service.split is not None else None
        self.fast_path_ok = not (
            self.has_limits
            or self.hedges
            or service.trace is not None
            or hashed
            or service.balance.sticky_cookie
            or service.split
            or service.proxy_protocol
            or service.http_version != "http1"
        )
        parking = service.parking
        self.parks_on_refusal = parking.on_refusal and parking.timeout > 0.0
        self.probes_endpoints = self.parks_on_refusal or any(
            endpoint.node for endpoint in service.endpoints
        )
        self.may_queue = (
            limits.queue
            and not (self.has_limits or hashed or service.balance.sticky_cookie or service.split)
            and service.protocol == "http"
        )
        if not self.may_queue:
            self.backlog.clear()
        removed = self._update_endpoints(service, peers, is_same=_connects_like(old, service))
        self.may_refuse = service.http_version != "http1"
        self.ready = tuple(state for state in self.endpoints.values() if state.serving)
        self.apply_ramp(wall)
        self.refresh(now)
        return removed

    def set_ports(self, ports: "tuple[ServiceState, ...]") -> None:
        """Set the other ports of the same service."""
        self.ports = ports

    def _update_endpoints(
        self, service: Service, peers: PeerRoutes, *, is_same: bool
    ) -> list[EndpointState]:
        """Keep the states of known endpoints, create new ones; return those that are gone. An
        endpoint that kept its id but not its address or the way to it is a new one, and so are all
        unless connections to them are opened as before (`is_same`)."""
        previous = self.endpoints
        self.endpoints = {}
        adaptive = service.limits.adaptive
        for endpoint in service.endpoints:
            state = previous.pop(endpoint.id, None)
            peer = peers.find(endpoint) if endpoint.node else None
            if state is not None and not (
                is_same and state.peer is peer and _has_address(state, endpoint)
            ):
                previous[endpoint.id] = state
                state = None
            if state is None:
                peak = service.balance.algorithm == "peak-ewma"
                state = EndpointState(
                    self.name,
                    endpoint,
                    self.response_templates,
                    peak=peak,
                    adaptive=adaptive,
                    tls=_make_tls(service, endpoint),
                    proxy_protocol=service.proxy_protocol,
                    http_version=_http_version(service),
                    http2_tls=_make_tls(service, endpoint, _ALPN[service.http_version]),
                    peer=peer,
                )
            state.update(endpoint, service.timeouts.pool, adaptive=adaptive)
            self.endpoints[endpoint.id] = state
        for state in previous.values():
            state.retire()
        return list(previous.values())

    def retire(self) -> list[EndpointState]:
        """Drop all endpoints: the service is not in the snapshot any more. Return them; they
        finish their requests."""
        removed = list(self.endpoints.values())
        for state in removed:
            state.retire()
        self.endpoints = {}
        return removed

    def apply_ramp(self, wall: float) -> bool:
        """Set the weights by slow start. Return whether any endpoint is still in it."""
        window = self.config.balance.slow_start
        ramping = False
        for state in self.ready:
            share = 1.0
            if window and state.endpoint.ready_since:
                share = balance.slow_start_factor(wall - state.endpoint.ready_since, window)
            ramping = ramping or share < 1.0
            state.ramp(share)
        return ramping

    def refresh(self, now: float) -> None:
        """Work out the candidates again, after an endpoint was added, removed, ejected or
        re-admitted, or may be probed now, or after it became reachable or unreachable."""
        reachable = self.ready
        if self.probes_endpoints:
            reachable = tuple(state for state in reachable if not state.unreachable)
        healthy = tuple(
            state for state in reachable if not state.health.ejected or state.health.may_probe(now)
        )
        panic = self.config.balance.panic
        if not healthy or balance.in_panic(len(healthy), len(reachable), panic):
            healthy = reachable
        if healthy != self.candidates:
            # The picker keeps what it derives from the tuple for as long as it is the same.
            self.candidates = healthy
        self._set_fast_candidates()
        self._by_revision = {}

    def _set_fast_candidates(self) -> None:
        """The fast path asks no endpoint for room."""
        limited = self.backlog.limit != NO_LIMIT
        self.fast_candidates = NO_ENDPOINTS if limited else self.candidates

    def update_backlog(self, now: float) -> bool:
        """Set the limit of requests in flight by the endpoint that has the most. Return whether
        requests that wait may be sent now."""
        if not self.candidates:
            return False
        before = self.backlog.limit
        busiest = self.candidates[0]
        for state in self.candidates:
            if state.in_flight > busiest.in_flight:
                busiest = state
        if self.counters.streams:
            # Tunnels and event streams are in flight for as long as they like.
            self.backlog.clear()
        else:
            self.backlog.update(
                busiest.latency_estimate, busiest.in_flight, now, waiting=bool(self.waiting)
            )
        if self.backlog.limit == before:
            return False
        self._set_fast_candidates()
        return self.backlog.limit > before and bool(self.waiting)

    def candidates_of(self, revision: str) -> Endpoints:
        """Return the candidates of one revision; all candidates for the empty revision."""
        if not revision:
            return self.candidates
        found = self._by_revision.get(revision)
        if found is None:
            found = tuple(s for s in self.candidates if s.endpoint.revision == revision)
            self._by_revision[revision] = found
        return found

    def exclude(self, state: EndpointState, now: float, *, refused: bool) -> None:
        """Send no requests to an endpoint until it accepts a connection. `refused` says whether
        it refused one; if not, this is only suspected."""
        if refused:
            self.refused_at = now
        if not state.unreachable:
            state.mark_unreachable(True)
            self.refresh(now)

    def include(self, state: EndpointState, now: float) -> None:
        """Send requests to an endpoint again: it accepted a connection."""
        if state.unreachable:
            state.mark_unreachable(False)
            self.refresh(now)

    def allows(self, caller: str) -> bool:
        """Return whether a caller is on the service's allow list, or there is no list."""
        allow = self.config.allow
        return allow is None or caller in allow

    def record_failure(self, state: EndpointState, now: float) -> str | None:
        """Count a failure of an endpoint. Return the cause if that ejected it, else None."""
        peers = [peer.health for peer in self.ready]
        cause = eject.record_failure(self.config.ejection, state.health, peers, now)
        state.record_failure()
        if cause:
            self.counters.ejections += 1
            self.refresh(now)
        return cause


def _make_budget(service: Service, workers: int) -> retry.RetryBudget:
    """Return this worker's part of the retry budget: the ratio applies to its own requests, the
    reserve is divided between the workers."""
    return retry.RetryBudget(service.retries.budget, service.retries.reserve / workers)


def _has_address(state: EndpointState, endpoint: Endpoint) -> bool:
    known = state.endpoint
    return (known.host, known.port, known.server_name) == (
        endpoint.host,
        endpoint.port,
        endpoint.server_name,
    )


def _connects_like(old: Service, new: Service) -> bool:
    """Return whether connections to endpoints are opened in the same manner by both."""
    return (old.tls, old.proxy_protocol, old.http_version) == (
        new.tls,
        new.proxy_protocol,
        new.http_version,
    )


def _http_version(service: Service) -> str:
    """Return the version of HTTP to endpoints: only ALPN can find out one."""
    if service.http_version == "auto" and service.tls is None:
        return "http1"
    return service.http_version


def _make_tls(
    service: Service, endpoint: Endpoint, alpn: tuple[str, ...] = HTTP1_ALPN
) -> TlsEndpoint | None:
    """Return how connections to an endpoint are encrypted; None for connections in the clear."""
    tls = service.tls
    if tls is None:
        return None
    return TlsEndpoint(get_client(tls, alpn), endpoint.server_name or tls.server_name)
