"""The life of one TCP connection through the mesh: pick an endpoint, connect, pass bytes on.

`proxy.tcp.sessions` creates a `TcpSession` for each connection. To the data plane it is a client
like any other (`ClientSink`): it has a deadline, and counts as active until it has ended. Nothing
is read from the client before an endpoint is connected, so that every attempt that fails can be
repeated at another endpoint, and a client that waits holds no memory here. The phases are those of
`proxy.tcp.phases`. Every session ends in `_leave`, which returns what it holds exactly once.
"""

import os
import socket
from typing import TYPE_CHECKING, Final

from proxy.request import connection_pool, failure, reachability, retry
from proxy.request import dispatch as queue
from proxy.request.failure import Failure
from proxy.request.sinks import NEVER, ClientSink
from proxy.state.descriptors import is_shortage
from proxy.tcp import accounting, dispatch, sockets
from proxy.tcp.direction import Direction, SharedBuffers
from proxy.tcp.peer_dial import PeerDial
from proxy.tcp.phases import (
    CONNECTING,
    FIRST,
    HALF_CLOSED,
    OPEN,
    OVER,
    PICKING,
    TRANSITIONS,
    WAITING,
)
from proxy.tcp.poller import LOST, READABLE, RESET, WRITABLE, Poller
from proxy.transport.proxy_header import ProxiedAddress, build_header
from proxy.wire.snapshot import Listener

if TYPE_CHECKING:
    from proxy.request.data_plane import DataPlane
    from proxy.state.endpoint_state import EndpointState
    from proxy.state.service_state import ServiceState

ENDED_SECONDS: Final = 60.0
"""Seconds without traffic for which a client may keep its side open after the endpoint has ended
its own. The other way round the idle timeout applies: a client may wait long for its result."""
SHORTAGE_PAUSE: Final = 0.1
"""Seconds after which a session without a file descriptor for its endpoint tries again."""


class TcpSession(ClientSink):
    """One TCP connection. Times are monotonic seconds; 0.0 means "not yet".

    - `plane`, `service`, `caller`: the data plane, the called service, the caller in counts.
    - `revision`: the revision that is to serve it; empty for any.
    - `phase`: see `proxy.tcp.phases`.
    - `endpoint`: the endpoint that it counts at, or None; `last_endpoint` is kept for the log.
    - `retries`, `tried`: number of further attempts, and the endpoints that failed.
    - `bytes_in`, `bytes_out`: bytes passed on from the client and to it.
    - `started`, `sent_at`, `connected_at`: its start, the start of the last attempt, and the end
      of the one that succeeded.
    - `queue_seconds`: seconds spent in the queue.
    - `failure`: why it ended; None for an orderly end.
    """

    __slots__ = (
        "_buffers",
        "_client",
        "_client_events",
        "_dial",
        "_down",
        "_entry",
        "_kept_alive",
        "_poller",
        "_up",
        "_upstream",
        "bytes_in",
        "bytes_out",
        "caller",
        "connected_at",
        "endpoint",
        "failure",
        "last_endpoint",
        "phase",
        "plane",
        "queue_seconds",
        "retries",
        "revision",
        "sent_at",
        "service",
        "started",
        "tried",
    )

    def __init__(
        self,
        plane: "DataPlane",
        poller: Poller,
        buffers: SharedBuffers,
        listener: Listener,
        service: "ServiceState",
        caller: str,
        client: socket.SocketType,
        peer: str,
    ) -> None:
        super().__init__(listener, peer, peer.encode() or b"unknown")
        self.plane = plane
        self.service = service
        self.caller = caller
        self.revision = ""
        self.phase = FIRST
        self.endpoint: EndpointState | None = None
        self.last_endpoint: EndpointState | None = None
        self.retries = 0
        self.tried: tuple[EndpointState, ...] = ()
        self.bytes_in = 0
        self.bytes_out = 0
        self.started = 0.0
        self.sent_at = 0.0
        self.connected_at = 0.0
        self.queue_seconds = 0.0
        self.failure: Failure | None = None
        self._poller = poller
        self._buffers = buffers
        self._client = client
        self._client_events = 0
        self._kept_alive = False
        self._upstream: socket.SocketType | None = None
        self._up: Direction | None = None
        self._down: Direction | None = None
        self._entry: queue.QueueEntry | None = None
        self._dial: PeerDial | None = None

    def _enter(self, phase: int) -> None:
        assert phase in TRANSITIONS[self.phase], (self.phase, phase)
        self.phase = phase

    # --- until it is connected

    def start(self) -> None:
        """Count the session for its service and find an endpoint."""
        plane, service = self.plane, self.service
        now = self.started = plane.clock()
        plane.clients.add(self)
        accounting.record_arrival(self, now)
        if service.splitter is not None:
            self.revision = service.splitter.choose(lambda _: None, plane.random())
        try:
            self._poller.watch(self._client, self._client_event)
        except OSError:
            self.fail(failure.CLIENT_GONE)
            return
        dispatch.dispatch(self, now)

    def wait(self, entry: queue.QueueEntry, deadline: float) -> None:
        """Wait in the service's queue until `deadline`."""
        self._enter(WAITING)
        self._entry = entry
        self.deadline = deadline

    def leave_queue(self, now: float) -> None:
        """Note that the session was taken from the queue, to be connected."""
        if self._entry is not None:
            self.queue_seconds += now - self._entry.since
            self._entry = None

    def go_to(self, endpoint: "EndpointState", now: float) -> None:
        """Connect to an endpoint."""
        self._enter(CONNECTING)
        endpoint.start(now)
        endpoint.count_connections(1)
        endpoint.count_opening(1)
        self.plane.descriptors.count_to_endpoints(1)
        self.endpoint = self.last_endpoint = endpoint
        self.sent_at = now
        if endpoint.health.ejected:
            endpoint.health.probing = True
            self.service.refresh(now)
        self.deadline = now + self.service.connect_timeout
        if endpoint.peer is not None:
            self._dial = PeerDial(self.plane.loop, endpoint, self)
            return
        try:
            upstream = sockets.connect(endpoint.endpoint)
        except OSError as error:
            self._connect_failed(error)
            return
        self._upstream = upstream
        # Waiting sessions may be connected in turn here; those have their turn after an event.
        if not self.service.parks_on_refusal and sockets.is_connected(upstream, endpoint.endpoint):
            self._poller.watch(upstream, self._upstream_event)
            self._open(upstream, 0)
        else:
            self._poller.watch(upstream, self._upstream_event, writable=True)

    def peer_connected(self, upstream: socket.socket) -> None:
        """Take the connection through the proxy of another node."""
        self._upstream = upstream
        self._poller.watch(upstream, self._upstream_event)
        self._open(upstream, 0)

    def peer_failed(self, error: OSError) -> None:
        """Take note that the proxy of another node, or the endpoint there, accepts nothing."""
        self._dial = None
        self._connect_failed(error)

    def peer_broke(self) -> None:
        """End the session: the connection to the other node has broken."""
        if CONNECTING < self.phase < OVER:
            self.source_lost(upward=False)

    def _connect_done(self, events: int) -> None:
        upstream = self._upstream
        assert upstream is not None
        error = sockets.connect_error(upstream) if events & LOST else 0
        if error:
            self._connect_failed(OSError(error, os.strerror(error)))
        else:
            self._open(upstream, events)

    def _connect_failed(self, failed: OSError) -> None:
        """Make another attempt, or end the session: it was not connected."""
        answered = self.endpoint is not None and self.endpoint.connections > 1
        if is_shortage(failed, answered=answered):
            self._wait_for_descriptor(failed)
        else:
            if self.endpoint is not None:
                reachability.connection_ended(self.plane, self.endpoint, failed)
            text = failed.strerror or str(failed)
            self._attempt_failed(failure.from_connect_error(failed), text)

    def _wait_for_descriptor(self, error: OSError) -> None:
        """Make the attempt again in a moment: it failed for lack of a descriptor here, and other
        connections end all the time."""
        now, endpoint = self.plane.clock(), self.endpoint
        self.plane.report_shortage(self.service, error)
        if endpoint is not None:
            endpoint.health.record_abandoned()
        if now - self.started >= self.service.config.limits.pending_timeout:
            self.fail(failure.NO_DESCRIPTOR)
            return
        self._close_upstream(reset=True)
        self._end_attempt(now)
        self._enter(PICKING)
        self.deadline = NEVER
        self.plane.loop.call_later(SHORTAGE_PAUSE, self._try_again)

    def _try_again(self) -> None:
        if self.phase == PICKING:
            dispatch.dispatch(self, self.plane.clock())

    def _attempt_failed(self, why: Failure, detail: str) -> None:
        now, endpoint, service = self.plane.clock(), self.endpoint, self.service
        assert endpoint is not None
        reachability.connect_failed(self.plane, service, endpoint, why, self.sent_at, now)
        retry.blame(self.plane, service, endpoint, detail, now)
        self.tried = (*self.tried, endpoint)
        decision = dispatch.decide_retry(self, now)
        if decision == retry.NO:
            self.fail(why)
            return
        if decision == retry.WAIT:
            # Any endpoint will do that accepts connections again.
            self.tried = ()
        else:
            self.retries += 1
            service.counters.retries += 1
            endpoint.counters.retried += 1
        self._close_upstream(reset=True)
        self._end_attempt(now)
        self._enter(PICKING)
        dispatch.dispatch(self, now)

    # --- passing bytes

    def _open(self, upstream: socket.SocketType, events: int) -> None:
        """Pass bytes on. `events` are those of the endpoint's socket. Those of both sockets say
        whether there is something to read: later bytes cause further events."""
        endpoint, plane, service = self.endpoint, self.plane, self.service
        assert endpoint is not None
        if endpoint.proxy_protocol:
            try:
                # A new connection takes far more bytes at once than the header has.
                upstream.send(build_header(endpoint.proxy_protocol, self.proxied_address()))
            except OSError as error:
                self._connect_failed(error)
                return
        endpoint.count_opening(-1)
        self._enter(OPEN)
        now = self.connected_at = plane.clock()
        accounting.record_connected(self, endpoint, now)
        if service.parks_on_refusal:
            service.include(endpoint, now)
        self.deadline = now + service.tunnel_timeout
        loop, buffers = plane.loop, self._buffers
        self._up = Direction(self, loop, buffers, self._client, upstream, upward=True)
        self._down = Direction(self, loop, buffers, upstream, self._client, upward=False)
        if self._client_events & READABLE:
            self._up.pump(self._client_events)
        if events & READABLE and self.phase < OVER:
            self._down.pump(events)
        if service.parks_on_refusal and service.waiting:
            queue.wake(service, now)

    def proxied_address(self) -> ProxiedAddress:
        port = self.listener.client[1]
        try:
            peer, own = self._client.getpeername(), self._client.getsockname()
        except OSError:
            return ProxiedAddress(self.peer, port)
        if not isinstance(peer, tuple) or not isinstance(own, tuple):
            return ProxiedAddress(self.peer, port)
        local = own[0].removeprefix("::ffff:")
        return ProxiedAddress(self.peer, port or peer[1], local, own[1])

    def _client_event(self, events: int) -> None:
        up, down = self._up, self._down
        if up is None or down is None:
            # Before an endpoint is connected, only a reset matters.
            self._client_events |= events
            if events & RESET:
                self.source_lost(upward=True)
            return
        if events & RESET and up.ended:
            # No read follows that would say so, and perhaps no write either.
            self.source_lost(upward=True)
            return
        if events & WRITABLE:
            down.target_writable()
        if events & READABLE and self.phase < OVER:
            up.pump(events)

    def _upstream_event(self, events: int) -> None:
        up, down = self._up, self._down
        if up is None or down is None:
            if events & WRITABLE:
                self._connect_done(events)
            return
        if events & RESET and down.ended:
            self.source_lost(upward=False)
            return
        if events & WRITABLE:
            up.target_writable()
        if events & READABLE and self.phase < OVER:
            down.pump(events)

    def target_full(self, target: socket.SocketType) -> None:
        """Have an event reported once a socket takes bytes again."""
        self._poller.watch_writable(target)

    def is_half_closed(self) -> bool:
        """Return whether one direction has ended before."""
        return self.phase == HALF_CLOSED

    def keep_alive(self) -> None:
        """Have the kernel notice that the other ends have vanished, from now on."""
        if not self._kept_alive and self._upstream is not None and self.endpoint is not None:
            self._kept_alive = True
            try:
                sockets.keep_alive(self._client)
                sockets.keep_alive(self._upstream, remote=bool(self.endpoint.endpoint.node))
            except OSError:
                return  # one of them is gone already, which its next event says

    def bytes_passed(self, count: int, *, upward: bool) -> None:
        """Count bytes that were passed on, and put the idle timeout off."""
        counters = self.service.counters
        if upward:
            self.bytes_in += count
            counters.bytes_in += count
        else:
            self.bytes_out += count
            counters.bytes_out += count
        self.deadline = self.plane.now + self._idle_seconds()

    def _idle_seconds(self) -> float:
        seconds = self.service.tunnel_timeout
        if self.phase == HALF_CLOSED and self._down is not None and self._down.ended:
            return min(seconds, ENDED_SECONDS)
        return seconds

    def direction_ended(self) -> None:
        """Note that one direction has ended; end the session if both have."""
        up, down = self._up, self._down
        assert up is not None
        assert down is not None
        if up.ended and down.ended:
            self._leave(reset=up.broken or down.broken)
            return
        self._enter(HALF_CLOSED)
        self.deadline = self.plane.clock() + self._idle_seconds()

    def source_lost(self, *, upward: bool) -> None:
        """End the session: a peer has reset its connection, and the other one must see that."""
        if self.phase == CONNECTING and self.endpoint is not None:
            self.endpoint.health.record_abandoned()
        self._record_failure(failure.CLIENT_GONE if upward else failure.BROKEN)
        self._leave(reset=True)

    # --- the end

    def fail(self, why: Failure) -> None:
        """End the session, which was not connected."""
        self._record_failure(why)
        self._leave(reset=True)

    def _record_failure(self, why: Failure) -> None:
        self.failure = why
        accounting.record_failure(self, why)

    def expire(self, now: float) -> None:
        del now
        if self.phase == WAITING:
            parked = self._entry is None or self._entry.parked
            self.fail(failure.PARKED if parked else failure.QUEUED)
        elif self.phase == CONNECTING:
            why = failure.CONNECT_TIMEOUT
            self._attempt_failed(why, why.text)
        elif self.phase < OVER:
            self._record_failure(failure.IDLE)
            self._leave(reset=True)

    def abort(self) -> None:
        if self.phase < OVER:
            self._leave(reset=True)

    def end_if_overdue(self, now: float, waited: float, requests: float, tunnels: float) -> None:
        del now
        limit = requests
        if self.phase > CONNECTING:
            limit = min(self.service.config.drain_tunnels, tunnels)
        if waited >= limit:
            self.abort()

    def has_unsent_bytes(self) -> bool:
        """Return whether the session has not ended: it may send bytes at any time."""
        return self.phase < OVER

    def _leave(self, *, reset: bool) -> None:
        """End the session, whatever its outcome: close its sockets, log it, and return what it
        holds."""
        now, plane, service = self.plane.clock(), self.plane, self.service
        if self.phase == WAITING:
            queue.stop_waiting(service, self._entry)
        self._enter(OVER)
        plane.clients.discard(self)
        for direction in (self._up, self._down):
            if direction is not None and not direction.ended:
                direction.stop()
        self._close_upstream(reset=reset)
        self._poller.forget(self._client)
        sockets.close(self._client, reset=reset)
        accounting.record_end(self, now)
        self._end_attempt(now)
        queue.request_over(service, now)

    def _close_upstream(self, *, reset: bool) -> None:
        dial, self._dial = self._dial, None
        if dial is not None:
            dial.end(reset=reset)
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            self._poller.forget(upstream)
            sockets.close(upstream, reset=reset)

    def _end_attempt(self, now: float) -> None:
        endpoint, self.endpoint = self.endpoint, None
        if endpoint is not None:
            if not self.connected_at:
                endpoint.count_opening(-1)
            endpoint.count_connections(-1)
            self.plane.descriptors.count_to_endpoints(-1)
            connection_pool.end_attempt(self.plane, endpoint, None, now)
