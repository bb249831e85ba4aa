"""The request path of one worker: installs snapshots, creates client connections, reports.

`proxy.worker.worker` owns the only `DataPlane` of a process. The worker around it opens sockets
and talks to the supervisor; nothing outside `proxy.request` and `proxy.state` reaches connections
or endpoint state. The timers of the request path run here.
"""

import asyncio
import os
import random
import time
from collections.abc import Callable
from email.utils import formatdate
from typing import Final, cast

from proxy.ipc.shared_memory import WorkerRow
from proxy.observe.access_log import AccessLog
from proxy.observe.flight_ring import NEVER, FlightRing
from proxy.observe.limited_log import LimitedLog
from proxy.observe.spans import SpanQueue
from proxy.peer.routes import PeerRoutes
from proxy.policy import eject
from proxy.request import connection_pool, dispatch, mirror
from proxy.request.downstream import Downstream
from proxy.request.exchange import Exchange
from proxy.request.reachability import Probe
from proxy.request.reporter import Reporter
from proxy.request.sinks import ClientSink, ResponseSink, StreamPool
from proxy.request.upstream import Upstream
from proxy.state.descriptors import Descriptors
from proxy.state.endpoint_state import EndpointState
from proxy.state.head_cache import HeadCache
from proxy.state.routing_table import Routing
from proxy.state.service_state import ServiceState
from proxy.tls.counters import HandshakeCounters
from proxy.tls.session_info import TlsSession
from proxy.wire.report import Report
from proxy.wire.snapshot import Generation, Listener, Snapshot

TICK: Final = 0.1
"""Seconds between two checks of the clients' deadlines."""
REFRESH: Final = 0.01
"""Seconds between two looks at the numbers of the other workers, at least."""
REFRESH_PAUSE: Final = 20.0
"""The pause between two looks, as a multiple of the time that a look takes: with thousands of
endpoints a worker spends at most 5 % of its time on it."""
_HOUSEKEEPING: Final = 1.0
"""Seconds between two runs of the housekeeping."""
_HANDSHAKE_LOG_SECONDS: Final = 60.0
"""Seconds between two lines about failed handshakes: the internet is full of scanners."""
GIVEN_UP_SECONDS: Final = 1.5
"""Seconds for which requests that cannot be repeated, streams and tunnels may still end by
themselves at an endpoint that hangs. Its replica is stopped 2 s after it was given up."""
_HEAD_CACHE_REFRESH: Final = 60.0
"""Seconds after which the head cache finds out again which fields vary."""
_LAST_DIGITS: Final = tuple([b"%03x" % number for number in range(0x1000)])


def _join_ports(services: dict[str, ServiceState]) -> None:
    """Tell each service its other ports: a further port is named `PROJECT/SERVICE:PORT`."""
    groups: dict[str, list[ServiceState]] = {}
    for name, state in services.items():
        base = name.rpartition(":")[0]
        groups.setdefault(base if base in services else name, []).append(state)
    for group in groups.values():
        for state in group:
            if state.ports or len(group) > 1:
                state.set_ports(tuple(other for other in group if other is not state))


def _ignore_busy() -> None:
    """Do nothing: the default of `on_busy_changed`."""


def _ignore_wake(service: str, parked: int) -> None:
    """Do nothing: the default of `on_wake`."""


def _ignore_ejected(service: str, endpoint: str, until: float, cause: str) -> None:
    """Do nothing: the default of `on_ejected`."""


def _ignore_problem(text: str) -> None:
    """Do nothing: the default of `on_problem`."""


def _idle_since(upstream: Upstream) -> float:
    """Since when a connection is idle, in monotonic seconds."""
    return upstream.idle_since


CreateClient = Callable[["DataPlane", Listener, TlsSession | None], asyncio.Protocol]
"""Creates the protocol of a client's connection to a listener; the last argument is the outcome of
the TLS handshake, None in clear text."""


CreateStreamPool = Callable[["DataPlane", EndpointState], StreamPool]
"""Creates the connections of HTTP/2 to an endpoint."""


class DataPlane:
    """All routing state and all connections of one worker.

    - `worker`: the worker's number in its reports; one of `workers`.
    - `loop`, `clock`, `random`: event loop, monotonic seconds, numbers in [0, 1).
    - `row`: this worker's row of the shared memory, or None.
    - `descriptors`: the file descriptors of this process.
    - `peers`: how endpoints of other nodes are reached.
    - `access_log`, `spans`, `flights`: where log lines, spans, and records of the flight recorder
      are collected; None for none.
    - `record_after`: duration in seconds from which on a request is recorded in `flights`.
    - `on_busy_changed()`: called when a draining or removed endpoint has no more requests.
    - `on_wake(service, parked)`: called when the first request is parked for a service, and the
      2nd, the 4th, the 8th, …
    - `on_ejected(service, endpoint, until, cause)`: called on an ejection; `until` in Unix time.
    - `on_problem(text)`: called with a line for the log, at most once a second.
    - `now`: monotonic seconds of the last event that asked the clock; for coarse deadlines.
    - `draining`: whether clients must end after their response.
    - `clients`: all client sides, connections as well as mirrors.
    - `paused_clients`: connections that are not read from at the moment.
    - `mirrors_in_flight`, `streams_in_flight`: number of mirrors and of HTTP/2 streams among
      `clients`: they have no descriptor.
    - `create_http2_client`: creates the HTTP/2 connection of a client; None if HTTP/2 is not
      available.
    - `create_stream_pool`: creates the connections to an endpoint that speaks HTTP/2; None if
      HTTP/2 is not available.
    - `handshakes`: counts of TLS handshakes.
    - `silent_since`: when endpoints were found silent, by node and id; of nodes that are not lost.
    - `services`, `routing`, `head_cache`: routing state, and the cache of parsed heads.
    """

    def __init__(
        self,
        worker: int,
        loop: asyncio.AbstractEventLoop,
        clock: Callable[[], float] = time.monotonic,
        random: Callable[[], float] = random.random,
        *,
        workers: int = 1,
        row: WorkerRow | None = None,
        descriptors: Descriptors | None = None,
        peers: PeerRoutes | None = None,
        access_log: AccessLog | None = None,
        spans: SpanQueue | None = None,
        flights: FlightRing | None = None,
        create_http2_client: "CreateClient | None" = None,
        create_stream_pool: "CreateStreamPool | None" = None,
        on_busy_changed: Callable[[], None] = _ignore_busy,
        on_wake: Callable[[str, int], None] = _ignore_wake,
        on_ejected: Callable[[str, str, float, str], None] = _ignore_ejected,
        on_problem: Callable[[str], None] = _ignore_problem,
    ) -> None:
        self.worker = worker
        self.loop = loop
        self.clock = clock
        self.random = random
        self.workers = workers
        self.row = row
        self.descriptors = descriptors or Descriptors()
        self.peers = peers or PeerRoutes()
        self.access_log = access_log
        self.spans = spans
        self.flights = flights
        self.record_after = NEVER if flights is None else 0.0
        self.on_wake = on_wake
        self._on_busy_changed = on_busy_changed
        self._on_ejected = on_ejected
        self._problems = LimitedLog(on_problem)
        self._handshake_problems = LimitedLog(on_problem, _HANDSHAKE_LOG_SECONDS)
        self.handshakes = HandshakeCounters(self._report_handshake, self.clock)
        self.now = 0.0
        self.draining = False
        self._drain_started = 0.0
        self._drain_seconds = float("inf")
        self._tunnel_seconds = float("inf")
        self.clients: set[ClientSink] = set()
        self.paused_clients: set[ClientSink] = set()
        self._opening = 0
        self.mirrors_in_flight = 0
        self.streams_in_flight = 0
        self.create_http2_client = create_http2_client
        self._create_stream_pool = create_stream_pool
        self.services: dict[str, ServiceState] = {}
        self.routing = Routing(Snapshot(Generation()), {}, {})
        self.head_cache = HeadCache()
        self._reporter = Reporter()
        self._probes: set[Probe] = set()
        self.silent_since: dict[str, dict[str, float]] = {}
        self._limited: tuple[ServiceState, ...] = ()
        self._removed_endpoints: dict[tuple[str, int], EndpointState] = {}
        self._removed_services: dict[str, ServiceState] = {}
        self._ramping = False
        self._id_prefix = os.urandom(8).hex().encode()
        self._ids = 0
        self._id_head = self._id_prefix + b"0" * 13
        self._timer: asyncio.TimerHandle | None = None
        self._refresh_timer: asyncio.TimerHandle | None = None
        self._balance_timer: asyncio.TimerHandle | None = None
        self._next_housekeeping = 0.0
        self._next_cache_refresh = 0.0
        self._next_sweep = 0.0

    # --- called by the worker

    def install(self, snapshot: Snapshot) -> None:
        """Route by `snapshot` from the next request on. Live state is kept by name and id."""
        now = self.clock()
        wall = time.time()
        services: dict[str, ServiceState] = {}
        removed: list[EndpointState] = []
        spans = self.spans is not None
        self.peers.install(snapshot)
        for service in snapshot.services:
            known = self.services.get(service.name)
            known = known or self._removed_services.pop(service.name, None)
            state = known or ServiceState(service, self.row, self.workers)
            removed += state.update(service, now, wall, spans=spans, peers=self.peers)
            services[service.name] = state
        for name, state in self.services.items():
            if name not in services:
                removed += state.retire()
                state.set_ports(())
                self._removed_services[name] = state
        _join_ports(services)
        self.services = services
        self.routing = Routing(snapshot, services, self.routing.limiters, self.row)
        if self.head_cache.send_via(snapshot.via):
            for client in self.clients:
                client.forget_forwarded_lines()
        self._ramping = any(service.balance.slow_start for service in snapshot.services)
        for endpoint in removed:
            connection_pool.close_idle(endpoint, float("inf"))
            self._removed_endpoints[(endpoint.id, id(endpoint))] = endpoint
            if not endpoint.counters.in_flight:
                endpoint.stop_sharing()
        for state in services.values():
            for endpoint in state.endpoints.values():
                if self.row is not None:
                    endpoint.share(self.row)
                if endpoint.http_version != "http1" and endpoint.streams is None:
                    self._use_streams(endpoint)
                if not endpoint.serving:
                    connection_pool.close_idle(endpoint, float("inf"))
            state.limits.publish()
            if state.waiting:
                dispatch.wake(state, now)
        self._give_up()
        self._limited = tuple(state for state in services.values() if state.has_limits)
        self.start_timers()

    def _use_streams(self, endpoint: EndpointState) -> None:
        if self._create_stream_pool is not None:
            endpoint.use_streams(self._create_stream_pool(self, endpoint))

    def _give_up(self) -> None:
        """End what is under way at endpoints that hang: at once if it can be repeated elsewhere,
        else after a moment."""
        failed = [
            endpoint
            for service in self.services.values()
            for endpoint in service.endpoints.values()
            if endpoint.take_failure()
        ]
        if failed:
            self._end_requests(failed, for_good=False)
            self.loop.call_later(GIVEN_UP_SECONDS, self._end_all_requests, failed)

    def give_up_endpoints(self, endpoints: list[EndpointState], cause: str) -> None:
        """End what is under way at endpoints whose machine does not answer, if it can be repeated
        elsewhere, and report them."""
        for endpoint in endpoints:
            connection_pool.close_idle(endpoint, float("inf"))
            self._on_ejected(endpoint.service, endpoint.id, time.time(), cause)
        if endpoints:
            # Not here: the connection that reports the silence has yet to report its own end.
            self.loop.call_soon(self._end_unreachable, endpoints)

    def _end_unreachable(self, endpoints: list[EndpointState]) -> None:
        self._end_requests([each for each in endpoints if each.unreachable], for_good=False)

    def _end_all_requests(self, failed: list[EndpointState]) -> None:
        self._end_requests(
            [endpoint for endpoint in failed if endpoint.endpoint.state == "failed"],
            for_good=True,
        )

    def _end_requests(self, failed: list[EndpointState], *, for_good: bool) -> None:
        for client in tuple(self.clients):
            exchange = client.exchange
            if exchange is None:
                continue
            if exchange.hedge is not None and exchange.hedge.endpoint in failed:
                exchange.hedge.drop(self.clock())
            if exchange.endpoint in failed:
                exchange.endpoint_given_up(for_good=for_good)

    def start_timers(self) -> None:
        """Look at deadlines from now on, unless that has begun: from the first snapshot on, and
        before that for handshakes."""
        if self._timer is None:
            self._tick()
            self._refresh_shared_counts()
        if self._balance_timer is None:
            self._share_room()

    def protocol_factory(self, listener: Listener) -> Callable[[], asyncio.Protocol]:
        """Return the protocol factory for `loop.create_server` on the sockets of `listener`."""
        return lambda: cast("asyncio.Protocol", Downstream(self, listener))

    def create_client(self, listener: Listener, tls: TlsSession | None) -> asyncio.Protocol:
        """Return the HTTP/1 protocol of one connection to `listener`; `tls` is the outcome of its
        handshake."""
        return cast("asyncio.Protocol", Downstream(self, listener, tls))

    def busy(self) -> tuple[str, ...]:
        """Return the ids of draining or removed endpoints that still have requests or tunnels."""
        busy = {e.id for e in self._removed_endpoints.values() if e.counters.in_flight}
        for service in self.services.values():
            for endpoint in service.endpoints.values():
                if not endpoint.serving and endpoint.counters.in_flight:
                    busy.add(endpoint.id)
        return tuple(sorted(busy))

    def active(self) -> int:
        """Return the number of clients with a request, a tunnel or unsent bytes. While draining,
        clients that may send another request count too."""
        return sum(
            client.exchange is not None
            or client.has_unsent_bytes()
            or (self.draining and client.may_send_request())
            for client in self.clients
        ) + (self._opening + self.handshakes.pending if self.draining else 0)

    def report(self, start: float, end: float, *, busy_only: bool = False) -> Report:
        """Return the counts since the last call, over (`start`, `end`] in Unix time. With
        `busy_only`, services and endpoints about which there is nothing to say are left out."""
        services = (*self.services.values(), *self._removed_services.values())
        removed = tuple(self._removed_endpoints.values())
        report = self._reporter.report(self, services, removed, start, end, busy_only=busy_only)
        self._forget_removed()
        return report

    def _forget_removed(self) -> None:
        """Forget removed endpoints and services without requests: a report had their last
        counts."""
        self._removed_endpoints = {
            key: endpoint
            for key, endpoint in self._removed_endpoints.items()
            if endpoint.counters.in_flight
        }
        for name, state in list(self._removed_services.items()):
            if not state.in_flight:
                state.limits.stop_sharing()
                del self._removed_services[name]

    def start_drain(self, seconds: float = float("inf")) -> None:
        """Stop keep-alive: answer with `Connection: close`, and close idle client connections. End
        requests after `seconds`, and tunnels after the time that their service sets."""
        self.draining = True
        self._drain_started = self.clock()
        self._drain_seconds = seconds
        for client in tuple(self.clients):
            client.drain()

    def limit_tunnels(self, seconds: float) -> None:
        """End tunnels `seconds` after the start of the drain at the latest."""
        self._tunnel_seconds = min(seconds, self._tunnel_seconds)

    def _end_overdue(self, now: float) -> None:
        """End the requests and tunnels that a drain waits for no longer."""
        waited = now - self._drain_started
        for client in tuple(self.clients):
            client.end_if_overdue(now, waited, self._drain_seconds, self._tunnel_seconds)

    def close(self) -> None:
        """Abort all connections and stop the timers."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._refresh_timer is not None:
            self._refresh_timer.cancel()
            self._refresh_timer = None
        if self._balance_timer is not None:
            self._balance_timer.cancel()
            self._balance_timer = None
        for probe in self._probes:
            probe.stop()
        self._probes.clear()
        for client in tuple(self.clients):
            client.abort()
        for service in self.services.values():
            for endpoint in service.endpoints.values():
                connection_pool.close_idle(endpoint, float("inf"))
                if endpoint.streams is not None:
                    endpoint.streams.close()

    # --- called by connections and exchanges

    def connect(
        self, endpoint: EndpointState, sink: ResponseSink, client: ClientSink | None = None
    ) -> Upstream:
        """Start to open a connection to an endpoint, which reports to `sink`. It carries requests
        of `client` only, if that is given, and begins with the PROXY header of the service."""
        endpoint.count_connections(1)
        self.descriptors.count_to_endpoints(1)
        upstream = Upstream(self, endpoint, sink, client)
        upstream.open()
        return upstream

    def probe_begun(self, probe: Probe) -> None:
        """Hold a probe, so that it ends with the data plane."""
        self._probes.add(probe)

    def probe_over(self, probe: Probe) -> None:
        """Remove a probe, which has ended."""
        self._probes.discard(probe)

    def mirror(self, exchange: Exchange, service: ServiceState) -> None:
        """Send a copy of a request to `service`, if it belongs to the mirrored share."""
        mirror.copy(exchange, service)

    def use_access_log(self, log: AccessLog | None) -> None:
        """Collect log lines in `log` from now on; None for none."""
        self.access_log = log

    def set_record_after(self, seconds: float) -> None:
        """Record requests in the flight recorder that take at least this long, if there is one."""
        if self.flights is not None:
            self.record_after = seconds

    def begin_filters(self, exchange: Exchange, delay: float) -> bool:
        """Start the filters of a request's route. Return whether they hold it for now."""
        from proxy.request_filters import begin

        return begin.begin_filters(exchange, delay)

    def mirror_begun(self, client: ClientSink) -> None:
        """Hold the client of a mirror, so that its deadline applies."""
        self.mirrors_in_flight += 1
        self.clients.add(client)

    def mirror_over(self, client: ClientSink) -> None:
        """Remove the client of a mirror, which has ended."""
        self.mirrors_in_flight -= 1
        self.clients.discard(client)

    def stream_begun(self, client: ClientSink) -> None:
        """Hold the client's side of an HTTP/2 stream, or of a question about another request, so
        that its deadline applies."""
        self.streams_in_flight += 1
        self.clients.add(client)

    def stream_over(self, client: ClientSink) -> None:
        """Remove the client's side of an HTTP/2 stream, which has ended."""
        self.streams_in_flight -= 1
        self.clients.discard(client)

    def date_line(self) -> bytes:
        """Return a Date field line for a response of the proxy's own."""
        return b"Date: %b\r\n" % formatdate(usegmt=True).encode()

    def next_id(self) -> bytes:
        """Return a request id: 32 hex digits, unique over workers and restarts."""
        number = self._ids = self._ids + 1
        last = number & 0xFFF
        if not last:
            self._id_head = b"%b%013x" % (self._id_prefix, number >> 12)
        return self._id_head + _LAST_DIGITS[last]

    def report_ejection(self, service: ServiceState, endpoint: EndpointState, cause: str) -> None:
        """Report that an endpoint was ejected."""
        until = time.time() + endpoint.health.ejected_until - self.clock()
        self._on_ejected(service.name, endpoint.id, until, cause)

    def report_shortage(self, service: ServiceState, error: OSError) -> None:
        """Log that a connection to an endpoint failed for lack of a descriptor or of local ports,
        and close an idle connection to make room for it."""
        now = self.clock()
        self.descriptors.count_shortage()
        text = (
            f"no file descriptor, memory or local port for a connection to {service.name}: "
            f"{error.strerror or error}; the limit of open files is {self.descriptors.limit}"
        )
        self._problems.add(text, now)
        self.close_idle_connections(1)

    def report_pause(self) -> None:
        """Log that no further clients are accepted for now."""
        self.descriptors.count_pause()
        text = (
            f"too few file descriptors are free (the limit of open files is "
            f"{self.descriptors.limit}): accepting connections is paused"
        )
        self._problems.add(text, self.clock())

    def room_for_clients(self) -> int:
        """Return how many more clients may be accepted; 0 or less for none."""
        return self.descriptors.room(self._connections())

    def count_opening(self, change: int) -> None:
        """Count the accepted connections whose first bytes are awaited: one more (1), or one fewer
        (-1)."""
        self._opening += change

    def _connections(self) -> int:
        """Number of open connections of clients, with those that are being opened."""
        clients = len(self.clients) - self.mirrors_in_flight - self.streams_in_flight
        return clients + self._opening + self.handshakes.pending

    def close_idle_connections(self, number: int) -> None:
        """Close the connections to endpoints that were idle for longest."""
        idle = [
            upstream
            for service in self.services.values()
            for endpoint in service.endpoints.values()
            for upstream in endpoint.idle
        ]
        for upstream in sorted(idle, key=_idle_since)[:number]:
            connection_pool.close_unused(upstream.endpoint, upstream)

    def report_problem(self, text: str) -> None:
        """Log a problem of the worker around the request path."""
        self._problems.add(text, self.clock())

    def _report_handshake(self, text: str) -> None:
        self._handshake_problems.add(text, self.clock())

    def report_bad_response(
        self, service: ServiceState, endpoint: EndpointState, reason: str
    ) -> None:
        """Log why a response of an endpoint cannot be passed on."""
        text = f"{service.name}: the response of {endpoint.id} is not valid: {reason}"
        self._problems.add(text, self.clock())

    def report_bad_header(self, listener: Listener, peer: str, reason: str) -> None:
        """Log why a connection has no valid PROXY header."""
        source = peer or "a Unix socket"
        text = f"{listener.address}: a connection from {source} has no PROXY header: {reason}"
        self._problems.add(text, self.clock())

    def report_no_tls(self, service: ServiceState, endpoint: EndpointState, reason: str) -> None:
        """Log why a TLS connection to an endpoint cannot be opened."""
        text = f"{service.name}: no TLS connection to {endpoint.id}: {reason}"
        self._problems.add(text, self.clock())

    def endpoint_idle(self, endpoint: EndpointState) -> None:
        """Note that a draining or removed endpoint has no more requests in this worker."""
        if (endpoint.id, id(endpoint)) in self._removed_endpoints:
            endpoint.stop_sharing()
        self._on_busy_changed()

    def count_refused(self, reason: str) -> None:
        """Count a response to a request that belonged to no known service."""
        self._reporter.count_refused(reason)

    # --- timers

    def _tick(self) -> None:
        now = self.now = self.clock()
        self._timer = self.loop.call_later(TICK, self._tick)
        expired = [client for client in self.clients if client.deadline <= now]
        for client in expired:
            client.expire(now)
        if self.handshakes.pending:
            self.handshakes.expire(now)
        if self.draining:
            self._end_overdue(now)
        if self.workers < 2 and self.row is not None:
            self._balance_limited(now)
        for service in self.services.values():
            if service.may_queue and service.update_backlog(now):
                dispatch.wake(service, now)
        if now >= self._next_housekeeping:
            self._next_housekeeping = now + _HOUSEKEEPING
            self._housekeeping(now)

    def _refresh_shared_counts(self) -> None:
        """Read the other workers' requests in flight of all endpoints."""
        if self.row is None or self.workers < 2:
            return
        begin = self.clock()
        self.row.sync()
        for service in self.services.values():
            for endpoint in service.ready:
                endpoint.refresh_shared_counts()
            if service.waiting and service.may_queue:
                # Requests that ended at other workers have made room.
                dispatch.wake(service, begin)
        pause = max(REFRESH, REFRESH_PAUSE * (self.clock() - begin))
        self._refresh_timer = self.loop.call_later(pause, self._refresh_shared_counts)

    def _share_room(self) -> None:
        """Do the same every 10 ms for services with limits, where it means free slots."""
        self._balance_timer = None
        if self.row is not None and self.workers > 1 and self._limited:
            self._balance_timer = self.loop.call_later(REFRESH, self._share_room)
            self.row.sync()
            self._balance_limited(self.clock())

    def _balance_limited(self, now: float) -> None:
        """Use slots that other workers freed for requests that wait here, and close idle
        connections whose slots requests at other workers wait for."""
        for service in self._limited:
            if service.waiting:
                for endpoint in service.ready:
                    endpoint.refresh_shared_counts()
                dispatch.wake(service, now)
            for endpoint in service.ready:
                if endpoint.idle and service.limits.blocks_another_worker(endpoint, now):
                    endpoint.idle.pop(0).discard()

    def _housekeeping(self, now: float) -> None:
        """Do what is due about once a second."""
        sweep = now >= self._next_sweep
        wall = time.time()
        self.head_cache.reset_quota()
        self.descriptors.measure(self._connections(), now)
        for client in tuple(self.paused_clients):
            # The event loop does not read from these, and so does not notice their end.
            if client.is_reset():
                client.abort()
        for service in self.services.values():
            service.response_templates.refresh()
            for endpoint in service.endpoints.values():
                connection_pool.close_idle(endpoint, now)
                if service.config.proxy_protocol:
                    connection_pool.close_orphaned(endpoint, self.clients)
            if self._ramping:
                service.apply_ramp(wall)
            if sweep:
                self._eject_outliers(service, now)
            if any(endpoint.health.ejected for endpoint in service.ready):
                service.refresh(now)
        if sweep:
            self._next_sweep = now + eject.INTERVAL
        if now >= self._next_cache_refresh:
            self._next_cache_refresh = now + _HEAD_CACHE_REFRESH
            self.head_cache.refresh()

    def _eject_outliers(self, service: ServiceState, now: float) -> None:
        by_health = {id(state.health): state for state in service.ready}
        peers = [state.health for state in service.ready]
        for health, cause in eject.eject_outliers(service.config.ejection, peers, now):
            service.counters.ejections += 1
            self.report_ejection(service, by_health[id(health)], cause)
        service.refresh(now)
