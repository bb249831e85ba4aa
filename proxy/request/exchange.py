"""The life of one request: find the service, pick an endpoint, send the request, pass the response
on, retry where that is safe.

`proxy.request.downstream` creates an `Exchange` for each request, `proxy.request.mirror` for each
copy. It writes to a `ClientSink` and is the `ResponseSink` of its upstream connection. Both report
events by calling methods; nothing here waits. The phases are those of `proxy.request.phases`. Every
exchange ends in `leave`, which returns what it holds exactly once, or on the fast path in
`proxy.request.fast_path`.
"""

from typing import TYPE_CHECKING, Final

from proxy.http1.request import RequestHead
from proxy.http1.request_body import BufferedBody
from proxy.http1.response import ResponseHead
from proxy.http1.websocket import GOING_AWAY, FrameTracker
from proxy.http2 import grpc
from proxy.observe.flight_ring import BALANCED, HEDGE
from proxy.policy.retry import IDEMPOTENT
from proxy.request import (
    accounting,
    connection_pool,
    dispatch,
    failure,
    grpc_call,
    headers,
    reachability,
    resolve,
    retry,
    tracing,
    tunnel,
)
from proxy.request.attempt import Attempt
from proxy.request.failure import Failure
from proxy.request.grpc_call import GrpcCall
from proxy.request.hedge import Hedge
from proxy.request.phases import (
    ANSWERING,
    CONNECTING,
    DELAYED,
    FIRST,
    OVER,
    PICKING,
    SENT,
    TRANSITIONS,
    TUNNEL,
    WAITING,
)
from proxy.request.resolve import RequestRefused
from proxy.request.sinks import AS_IS, IN_CHUNKS, NEVER, REJECTED, ClientSink
from proxy.state.descriptors import is_shortage

if TYPE_CHECKING:
    from proxy.observe.trace import TraceContext
    from proxy.request.data_plane import DataPlane
    from proxy.request.dispatch import QueueEntry
    from proxy.request.upstream import Upstream
    from proxy.state.endpoint_state import EndpointState
    from proxy.state.routing_table import CompiledRoute
    from proxy.state.service_state import ServiceState

BODY_GRACE: Final = 30.0
"""Seconds that an upload may take before its speed is checked."""
BODY_RATE: Final = 500.0
"""Bytes a second that an upload must reach after that: the minimum data rate of Kestrel is 240,
that of Apache's mod_reqtimeout 500."""
SHORTAGE_PAUSE: Final = 0.02
"""Seconds after which a request without a descriptor tries again; longer the longer it waits."""
LONGEST_PAUSE: Final = 0.25
"""Seconds between two of these tries at most."""
HELD_BODY: Final = 64 * 1024
"""Bytes of a request's body that are held before the client is paused."""


class Exchange(Attempt):
    """One request and its response. It is also its own current attempt, see `Attempt`.

    Times are monotonic seconds; 0.0 means "not yet".

    Request:
    - `client`, `head`: where it came from, and its head.
    - `target`: its target for the upstream.
    - `idempotent`: whether it may be sent twice.
    - `body`: the part of its body that is kept; None if none arrived.
    - `request_complete`: whether it was read to its end.
    - `own_fields`, `own_removed`: fields that filters of its route add, and lower-case names of
      those that they remove or replace; None for none.
    - `request_id`, `trace`, `span`: its id, its `traceparent` for the upstream (empty: unchanged),
      and its span (None: not decided).

    Destination:
    - `route`: the matched route; None for calls between services.
    - `service`, `revision`: the service, and the revision (empty: any).
    - `caller`: the calling service in counts; empty on public listeners.
    - `counted`: whether the service counts it, which is so from admission on.
    - `background`: whether its route says that it does not count as load of the service.

    Progress:
    - `phase`: see `proxy.request.phases`.
    - `queue_entry`: its place in the service's queue, or None.
    - `hedge`: its second attempt, or None.
    - `choice`, `candidates`: how its endpoint was chosen, see `proxy.observe.flight_ring`, and of
      how many.
    - `retries`, `tried`: number of further attempts, and the endpoints that failed.
    - `new_connection`: whether the next attempt must not use an idle connection.
    - `upstream_is_full`, `upstream_was_full`: backpressure of the upstream, now and ever.
    - `half_finished`: whether one side of the tunnel has ended.
    - `frames`: the frames that a WebSocket sent to the client; None for other tunnels.
    - `ending`: whether this worker is ending the tunnel.
    - `call`: the call of gRPC that it is, to a service with HTTP/2, or None. If its status code is
      not OK, `status` is the HTTP equivalent.
    - `said_goodbye`: whether the client was sent a close frame, after which nothing may follow.
    - `last_deadline`: the deadline of the whole request; 0.0 for none.

    Outcome:
    - `status`, `failure`: the status sent to the client, and the failure, or None.
    - `streaming`: whether the response is an event stream.
    - `sticky_cookie`: name and value of a cookie to set; empty for none.
    - `bytes_in`, `bytes_out`: body bytes received and sent.
    - `started`, `first_byte_at`, `queue_seconds`: times, and seconds spent in the queue.
    """

    body: BufferedBody | None = None
    request_complete = True
    request_id = b""
    own_fields: tuple[tuple[bytes, bytes], ...] = ()
    own_removed: frozenset[bytes] | None = None
    trace = b""
    span: "TraceContext | None" = None

    route: "CompiledRoute | None" = None
    service: "ServiceState"
    revision = ""
    caller = ""
    counted = False
    background = False

    phase = FIRST
    queue_entry: "QueueEntry | None" = None
    hedge: Hedge | None = None
    choice = BALANCED
    candidates = 0
    retries = 0
    tried: "tuple[EndpointState, ...]" = ()
    new_connection = False
    upstream_is_full = False
    upstream_was_full = False
    half_finished = False
    frames: FrameTracker | None = None
    ending = False
    said_goodbye = False
    call: GrpcCall | None = None
    last_deadline = 0.0

    status = 0
    failure: Failure | None = None
    streaming = False
    sticky_cookie = b""
    bytes_in = 0
    bytes_out = 0
    first_byte_at = 0.0
    queue_seconds = 0.0

    def __init__(
        self, plane: "DataPlane", client: ClientSink, head: RequestHead, now: float
    ) -> None:
        self.plane = plane
        self.client = client
        self.head = head
        self.target = head.target
        self.started = now
        self.idempotent = head.method in IDEMPOTENT
        self.bodyless = head.method == b"HEAD"

    def _enter(self, phase: int) -> None:
        assert phase in TRANSITIONS[self.phase], (self.phase, phase)
        self.phase = phase

    # --- until it is sent

    def start(self, piece: bytes, complete: bool) -> None:
        """Find the service and send the request there. `piece` is what arrived of the body."""
        plane, head, client = self.plane, self.head, self.client
        if not complete:
            self.request_complete = False
        if piece:
            self.body = BufferedBody(piece)
            self.bytes_in = len(piece)
        try:
            if client.listener.kind == "public":
                self.route = route = resolve.find_route(plane.routing, head, client.listener)
                found = resolve.apply_route(plane, route, head, client, self.started)
            else:
                found = resolve.find_called_service(plane, head, client, self.started)
        except RequestRefused as refused:
            self.refuse(refused)
            return
        self.service, self.revision = found.service, found.revision
        self.target, self.caller = found.target, found.caller
        if self.route is not None:
            self.background = self.route.route.background
            if self.route.filters is not None and plane.begin_filters(self, found.delay):
                return
        self.proceed(found.delay)

    def proceed(self, delay: float) -> None:
        """Continue a request that the filters of its route let pass."""
        plane, head = self.plane, self.head
        if head.max_forwards == 0:
            self.refuse(RequestRefused(failure.MAX_FORWARDS))
            return
        if self.route is not None and self.route.mirror is not None and self.request_complete:
            plane.mirror(self, self.route.mirror)
        self.admit(delay)

    def replace_client(self, client: ClientSink) -> None:
        """Send the response to `client`, which passes it on to the previous one."""
        self.client = client

    def put_request_field(self, name: bytes, value: bytes) -> None:
        """Replace a field of the request for the endpoint. Only for routes whose filters edit
        requests; the value is on one line."""
        self.own_fields = (*self.own_fields, (name, value))
        self.remove_request_fields(frozenset((name.lower().replace(b"_", b"-"),)))

    def remove_request_fields(self, names: frozenset[bytes]) -> None:
        """Remove fields of the request by their lower-case names with `-`; those with `_` in its
        place are removed too, because CGI programs take them for the same."""
        self.own_removed = names if self.own_removed is None else self.own_removed | names

    def copy(self, client: ClientSink, service: "ServiceState") -> "Exchange":
        """Return a new exchange that sends the same request to `service`. The request must be
        complete."""
        made = Exchange(self.plane, client, self.head, self.started)
        made.target = self.target
        made.service = service
        made.background = self.background
        if self.body is not None:
            made.body = BufferedBody(b"".join(self.body.pieces))
            made.bytes_in = made.body.size
        return made

    def admit(self, delay: float = 0.0) -> None:
        """Count the request for its service, and dispatch it after `delay` seconds."""
        service = self.service
        if self.background:
            service.counters.start_background(self.started)
        else:
            service.counters.arrivals += 1
        service.in_flight += 1
        self.counted = True
        service.budget.deposit(self.started)
        if max(self.head.length, self.bytes_in) > service.max_body:
            self.fail(failure.TOO_LARGE)
            return
        if service.request_timeout:
            self.last_deadline = self.started + service.request_timeout
        if service.may_refuse and grpc.is_grpc(self.head):
            self.call = call = GrpcCall(self)
            self.last_deadline = call.last_deadline(self.last_deadline)
        if delay:
            self._enter(DELAYED)
            self.set_deadline(NEVER)
            self.plane.loop.call_later(delay, self._delay_over)
            return
        dispatch.dispatch(self, self.started)

    def _delay_over(self) -> None:
        if self.phase == DELAYED:
            dispatch.dispatch(self, self.plane.clock())

    def wait(self, entry: "QueueEntry", deadline: float) -> None:
        """Wait in the service's queue until `deadline`."""
        self._enter(WAITING)
        self.queue_entry = entry
        self.set_deadline(deadline)

    def leave_queue(self, now: float) -> None:
        """Note that the request is taken from the queue, to be sent."""
        if self.queue_entry is not None:
            self.queue_seconds += now - self.queue_entry.since
            self.queue_entry = None

    def fail_unsent(self) -> None:
        """Fail a request that was taken from the queue because no further attempt is allowed."""
        if self.phase == WAITING:
            self.fail(failure.CLOSED)

    def note_choice(self, choice: int, candidates: int) -> None:
        """Note how the endpoint was chosen, for the flight recorder."""
        self.choice = choice
        self.candidates = candidates

    def stick_to(self, cookie: bytes) -> None:
        """Set `cookie`, name and value, with the response."""
        self.sticky_cookie = cookie

    def go_to(self, endpoint: "EndpointState", now: float) -> None:
        """Make an attempt at an endpoint."""
        service = self.service
        self.begin_attempt(endpoint, now)
        if endpoint.health.ejected:
            endpoint.health.probing = True
            service.refresh(now)
        upstream = None
        owner = self.client if service.config.proxy_protocol else None
        if endpoint.idle and not self.new_connection:
            if owner is not None:
                connection_pool.prefer(endpoint, owner)
            upstream = connection_pool.take(
                endpoint, idempotent=self.idempotent, now=now, client=owner
            )
        stream = None
        if upstream is None and endpoint.streams is not None and not self.head.upgrade:
            stream = endpoint.streams.open(self)
            if stream.requests:
                upstream = stream
        if upstream is not None:
            # A probe's connection has carried none.
            self.reused = upstream.requests > 0
            self._send(upstream, now)
            if service.hedges:
                self._start_hedge()
            return
        self.reused = False
        self._enter(CONNECTING)
        if service.hedges:
            self._start_hedge()
        self.set_deadline(now + service.connect_timeout)
        if stream is not None:
            self.upstream = stream
            return
        if service.config.limits.endpoint_connections:
            connection_pool.make_room(endpoint, service.limits.connections_left(endpoint))
        self.upstream = self.plane.connect(endpoint, self, owner)

    def _start_hedge(self) -> None:
        """Start the timer of a second attempt, if the request may have one."""
        after = self.service.config.retries.hedge_after
        fit = self.idempotent and self.request_complete and not self.head.upgrade
        if after and fit and self.hedge is None and not self.retries:
            self.hedge = Hedge(self, after)

    def connected(self, upstream: "Upstream") -> None:
        now = self.plane.clock()
        self.connect_seconds = now - self.sent_at
        service = self.service
        if service.parks_on_refusal and self.endpoint is not None:
            service.include(self.endpoint, now)
        self._send(upstream, now)
        if service.parks_on_refusal and service.waiting:
            dispatch.wake(service, now)

    def _send(self, upstream: "Upstream", now: float) -> None:
        self.upstream = upstream
        self._enter(SENT)
        data = self.request_bytes()
        if self.body is not None:
            self.body_sent()
        upstream.send(self, data)
        if self.request_complete:
            self.set_deadline(now + self.service.first_byte_timeout)
        else:
            self.set_deadline(now + self._body_timeout())
            self.client.resume()

    def _body_timeout(self) -> float:
        """Seconds for which the client may send nothing of its body. A call of gRPC may be a
        conversation, in which it waits for the endpoint."""
        service = self.service
        return service.idle_timeout if self.call is not None else service.config.timeouts.body

    def request_bytes(self) -> bytes:
        """Return the request for the endpoint, as far as it was received. It gets its id and its
        trace here, which later attempts keep."""
        if self.head.has_id:
            self.request_id = self.head.request_id
        elif not self.request_id:
            self.request_id = self.plane.next_id()
        if self.service.traces and not self.trace:
            self.trace, self.span = tracing.begin(self)
        data = headers.request_head(self)
        return data if self.body is None else b"".join((data, *self.body.pieces))

    # --- the request's body

    def is_replayable(self) -> bool:
        """Return whether everything received of the body can be sent again."""
        return self.body is None or self.body.replayable

    def _replay_limit(self) -> int:
        """Bytes of the body to keep for a retry."""
        is_kept = self.idempotent or self.service.may_refuse
        return self.service.config.retries.body_limit if is_kept else -1

    def body_sent(self) -> None:
        """Note that what was received of the body is sent."""
        if self.body is not None:
            self.body.sent(self._replay_limit())

    def request_data(self, data: bytes, complete: bool) -> None:
        """Take more of the body from the client, in the form in which it is sent on."""
        self.bytes_in += len(data)
        if self.bytes_in > self.service.max_body:
            self.fail(failure.TOO_LARGE)
            return
        if complete:
            self.request_complete = True
        if self.phase < SENT:
            self._hold_body(data)
            return
        upstream = self.upstream
        if upstream is None:
            return
        if data:
            if self.body is None:
                self.body = BufferedBody(b"")
            self.body.add_sent(data, self._replay_limit())
            upstream.write(data)
        if self.phase == SENT:
            self._wait_for_rest(complete)
        elif self.phase == ANSWERING:
            self.set_deadline(self.plane.now + self.service.idle_timeout)

    def _hold_body(self, data: bytes) -> None:
        if self.body is None:
            self.body = BufferedBody(data)
        else:
            self.body.add(data)
        if self.body.size > HELD_BODY:
            self.client.pause()

    def _wait_for_rest(self, complete: bool) -> None:
        """Set the deadline after a piece of the body, by what is waited for next."""
        now = self.plane.clock()
        timeout = self._body_timeout()
        if complete:
            self.set_deadline(now + self.service.first_byte_timeout)
        elif self.upstream_is_full:
            pass
        elif self.upstream_was_full or self.call is not None:
            self.set_deadline(now + timeout)
        else:
            # A client that sends a byte now and then must not hold a replica for ever.
            slowest = self.started + BODY_GRACE + self.bytes_in / BODY_RATE
            self.set_deadline(min(now + timeout, slowest))

    # --- the response

    def interim_response(self, head: ResponseHead) -> None:
        if not self.head.http10:
            self.client.send_head(head.kept_head + b"\r\n")
        self.set_deadline(self.plane.clock() + self.service.first_byte_timeout)

    def whole_response(self, head: ResponseHead, body: bytes, *, reusable: bool) -> None:
        now = self.plane.clock()
        if not self._accept(head, now):
            return
        if self.call is not None:
            self._settle_last(self.call, grpc.find_status(head.client_head), now)
        if body:
            self.bytes_out = len(body)
        self.client.respond(self._client_head(head, until_close=False), body)
        self._complete(now, reusable=reusable)

    def response_head(self, head: ResponseHead, *, until_close: bool) -> int:
        now = self.plane.clock()
        if not self._accept(head, now):
            return REJECTED
        self._enter(ANSWERING)
        self.client.send_head(self._client_head(head, until_close=until_close))
        if head.is_event_stream:
            # A stream of events does not end by itself: the timeout of requests does not apply.
            self.last_deadline = 0.0
            self.streaming = True
            accounting.record_stream_start(self, now)
        self.set_deadline(now + self.service.idle_timeout)
        return IN_CHUNKS if (head.chunked or until_close) and self.head.takes_chunks else AS_IS

    def _client_head(self, head: ResponseHead, *, until_close: bool) -> bytes:
        """The response's head for the client. If the end of the body will have to be the end of
        the connection, the client takes no further request."""
        client, route = self.client, self.route
        if (
            client.fast_path_ok
            and self.request_complete
            and not until_close
            and not self.sticky_cookie
            and (route is None or route.response_edits is None)
        ):
            return head.client_head
        chunked = (head.chunked or until_close) and head.status not in (204, 304)
        unframed = chunked and self.head.http10
        if (unframed and not self.bodyless) or not self.request_complete or self.plane.draining:
            client.end_after_response()
        return headers.response_head(self, head, chunked=chunked and not unframed)

    def response_data(self, data: bytes) -> None:
        self.bytes_out += len(data)
        if self.phase == TUNNEL:
            self._pass_to_client(data)
            return
        self.client.write(data)
        self.set_deadline(self.plane.now + self.service.idle_timeout)

    def response_trailers(self, lines: bytes) -> None:
        if self.call is not None:
            self._settle_last(self.call, grpc.find_status(lines), self.plane.clock())
        self.client.send_trailers(lines)

    def response_end(self, last: bytes, *, reusable: bool) -> None:
        now = self.plane.clock()
        if self.call is not None:
            self._settle_last(self.call, grpc.find_status(last), now)
        if last:
            self.bytes_out += len(last)
            self.client.write(last)
        self._complete(now, reusable=reusable)

    def bad_response(self, reason: str) -> None:
        self.fail(failure.PROTOCOL, reason)

    def _accept(self, head: ResponseHead, now: float) -> bool:
        """Take a response head as the answer. Return False if another attempt is made instead."""
        status = head.status
        endpoint = self.endpoint
        assert endpoint is not None
        self.status = status
        self.first_byte_at = now
        if self.call is not None and status < 500:
            return self._accept_call(self.call, head, now)
        if status < 500:
            if self.hedge is not None:
                self.hedge.drop(now)
            if endpoint.record_success(now - self.sent_at, now, self.load):
                self.service.refresh(now)
            return True
        retry.blame(self.plane, self.service, endpoint, f"status {status}", now)
        listed = status in self.service.config.retries.status
        return not (listed and self.idempotent and self._retry(failure.STATUS, now))

    def _accept_call(self, call: GrpcCall, head: ResponseHead, now: float) -> bool:
        """Take a response head as the answer to a call. Return False if another attempt is made
        instead. Without a status in it the trailers decide about success."""
        code = grpc.find_status(head.client_head)
        if code is not None:
            blamed = call.is_to_retry(code, now)
            if blamed and self._retry(grpc_call.RETRIED, now):
                return False
            self._settle(call, code, now, blamed=blamed)
        return True

    def _settle(
        self, call: GrpcCall, code: int | None, now: float, *, blamed: bool = False
    ) -> None:
        """Count the outcome of a call."""
        status = call.settle(code, now, blamed=blamed)
        if status and self.status < 500:
            self.status = status

    def _settle_last(self, call: GrpcCall, code: int | None, now: float) -> None:
        """Count the outcome of a call at the end of its response, unless its head did so. The
        endpoint was blamed for a head with a status of 500 or more when it arrived."""
        self._settle(call, code, now, blamed=self.status >= 500)

    # --- a tunnel

    def switch_protocols(self, head: ResponseHead) -> bool:
        if not self.request_complete or not tunnel.was_requested(self.head, head):
            self.fail(failure.PROTOCOL, "a switch of protocols that was not asked for")
            return False
        now = self.plane.clock()
        assert self.endpoint is not None
        self.status = 101
        self.first_byte_at = now
        self.endpoint.record_success(now - self.sent_at, now, self.load)
        self._enter(TUNNEL)
        accounting.begin_stream(self, now)
        self.last_deadline = 0.0
        if tunnel.is_websocket(head):
            self.frames = FrameTracker()
        self.client.send_head(headers.switch_head(self, head))
        self.set_deadline(now + tunnel.idle_timeout(self))
        self.client.open_tunnel()
        return True

    def tunnel_data(self, data: bytes) -> None:
        """Pass bytes of the client through the tunnel."""
        self.bytes_in += len(data)
        if self.upstream is not None:
            self.upstream.write(data)
        self._expect_more(self.plane.now)

    def _pass_to_client(self, data: bytes) -> None:
        """Pass bytes of the upstream through the tunnel."""
        if self.said_goodbye:
            return
        self.client.write(data)
        if self.frames is not None:
            self.frames.feed(data)
            if self.ending:
                self._say_goodbye()
        self._expect_more(self.plane.now)

    def _expect_more(self, now: float) -> None:
        """Set the deadline of a tunnel after it has passed something on."""
        if not self.ending:
            self.set_deadline(now + tunnel.idle_timeout(self))

    def end_tunnel(self, now: float) -> None:
        """End a tunnel because the worker must go: a WebSocket by a close frame between two of the
        endpoint's frames, any other one at once. The client's answer still goes through."""
        if self.phase != TUNNEL or self.ending:
            return
        self.ending = True
        if self.frames is None or self.half_finished:
            self._complete(now, reusable=False)
            return
        self.set_deadline(now + tunnel.CLOSING)
        self._say_goodbye()

    def _say_goodbye(self) -> None:
        if self.frames is not None and self.frames.at_boundary:
            self.client.write(GOING_AWAY)
            self.said_goodbye = True

    def client_finished(self) -> None:
        """Note that the client has ended its side of the tunnel."""
        if self.upstream is not None:
            self.upstream.finish()
        self._finish_half()

    def upstream_finished(self) -> None:
        self.client.finish_tunnel()
        self._finish_half()

    def _finish_half(self) -> None:
        now = self.plane.clock()
        if self.half_finished:
            self._complete(now, reusable=False)
            return
        self.half_finished = True
        self._expect_more(now)

    # --- backpressure

    def upstream_full(self) -> None:
        self.upstream_is_full = self.upstream_was_full = True
        self.client.pause()
        if self.phase == SENT:
            # From now on the upstream is waited for, and not the client.
            self.set_deadline(self.plane.clock() + self.service.idle_timeout)

    def upstream_writable(self) -> None:
        self.upstream_is_full = False
        self.client.resume()
        if self.phase == SENT and not self.request_complete:
            self.set_deadline(self.plane.clock() + self._body_timeout())

    def client_full(self) -> None:
        """Stop reading from the upstream: the client takes no more bytes for now."""
        if self.upstream is not None:
            self.upstream.pause()

    def client_writable(self) -> None:
        """Read from the upstream again."""
        if self.upstream is not None:
            self.upstream.resume()
            if self.phase == ANSWERING:
                self.set_deadline(self.plane.now + self.service.idle_timeout)

    # --- failures

    def connect_failed(self, error: OSError) -> None:
        answered = self.endpoint is not None and self.endpoint.has_answered_since(0.0)
        if is_shortage(error, answered=answered):
            self._wait_for_descriptor(error)
            return
        self.fail(failure.from_connect_error(error), error.strerror or str(error))

    def _wait_for_descriptor(self, error: OSError) -> None:
        """Make the attempt again in a moment. The proxy has no descriptor for it, which is not the
        endpoint's fault; connections end all the time, and each leaves one."""
        now = self.plane.clock()
        service = self.service
        self.plane.report_shortage(service, error)
        if self.endpoint is not None:
            self.endpoint.health.record_abandoned()
        waited = now - self.started
        if waited >= service.config.limits.pending_timeout:
            self.fail(failure.NO_DESCRIPTOR, error.strerror or str(error))
            return
        pause = min(SHORTAGE_PAUSE + waited, LONGEST_PAUSE)
        self.end_attempt(now)
        self._enter(PICKING)
        self._enter(DELAYED)
        self.set_deadline(NEVER)
        self.queue_seconds += now - self.sent_at + pause
        self.plane.loop.call_later(pause, self._delay_over)

    def connection_full(self) -> None:
        """Dispatch the request again, of which nothing was sent: the endpoint allows fewer streams
        on a connection than was thought."""
        now = self.plane.clock()
        if self.endpoint is not None:
            self.endpoint.health.record_abandoned()
        self.end_attempt(now)
        self._enter(PICKING)
        dispatch.dispatch(self, now)

    def request_refused(self) -> None:
        self.fail(failure.REFUSED)

    def upstream_lost(self, *, answering: bool) -> None:
        if self.phase == TUNNEL:
            self._complete(self.plane.clock(), reusable=False)
            return
        self.fail(failure.BROKEN if answering else failure.CLOSED, "connection closed")

    def client_gone(self) -> None:
        """End the exchange: the client has closed its connection. No endpoint is to blame."""
        if self.phase == OVER:
            return
        if self.phase != TUNNEL:
            self.status = 499
            self.failure = failure.CLIENT_GONE
        if self.endpoint is not None:
            self.endpoint.health.record_abandoned()
        self.leave(self.plane.clock())

    def endpoint_given_up(self, *, for_good: bool) -> None:
        """Act on an endpoint that hangs: make another attempt, if that is safe. `for_good`: end
        the exchange if it is not."""
        if self.phase == TUNNEL:
            if for_good:
                self._complete(self.plane.clock(), reusable=False)
        elif for_good or (
            self.phase < ANSWERING
            and (self.phase < SENT or self.idempotent)
            and self.is_replayable()
            and self.retries < self.service.config.retries.attempts
        ):
            self.fail(failure.GIVEN_UP)

    def expire(self, now: float) -> None:
        """Act on a deadline that has passed."""
        why = retry.failure_by_timeout(self, now)
        if why is not None:
            upstream = self.upstream
            if upstream is not None and why is not failure.SLOW_BODY:
                since = self.sent_at + self.connect_seconds
                if self.phase == ANSWERING:
                    since = now - self.service.idle_timeout
                upstream.timed_out(since)
            self.fail(why)
        else:
            self.client_gone()
            self.client.abort()

    def fail(self, why: Failure, detail: str = "") -> None:
        """Make another attempt, or answer with an error, or break off the response."""
        now = self.plane.clock()
        endpoint = self.endpoint
        if endpoint is not None:
            if why is failure.PROTOCOL:
                self.plane.report_bad_response(self.service, endpoint, detail)
            elif why is failure.TLS:
                self.plane.report_no_tls(self.service, endpoint, detail)
            elif why.cause == "connect":
                reachability.connect_failed(
                    self.plane, self.service, endpoint, why, self.sent_at, now
                )
            # An idle connection that was closed says nothing about the endpoint.
            stale = self.reused and why is failure.CLOSED
            if why.blame and not stale:
                retry.blame(self.plane, self.service, endpoint, detail or why.text, now)
            else:
                endpoint.health.record_abandoned()
        if self.phase < ANSWERING and why.cause is not None and self._retry(why, now):
            return
        self.failure = why._replace(detail=detail) if detail else why
        if self.phase == ANSWERING:
            call = self.call
            if call is not None and self.head.http2:
                self.status = call.break_off(why)
                self.leave(now)
                self.client.send_trailers(call.last_lines(why))
                self.client.exchange_over(now, complete=self.request_complete)
                return
            self.leave(now)
            self.client.break_off(abruptly=self.head.http10)
            return
        self.status = why.status
        self.leave(now)
        extra = b"Retry-After: 1\r\n" if why.status == 503 else b""
        if grpc.is_grpc(self.head):
            grpc_call.answer_failure(self, why, extra, now)
            return
        self.client.send_error(self.head, why, why.status, extra, complete=self.request_complete)

    def refuse(self, refused: RequestRefused) -> None:
        """Answer without an attempt at any endpoint."""
        self.status = refused.status
        self.failure = refused.why
        self.leave(self.started)
        if refused.status >= 400 and grpc.is_grpc(self.head):
            grpc_call.answer_failure(self, refused.why, refused.extra, self.plane.now)
            return
        self.client.send_error(
            self.head,
            refused.why,
            refused.status,
            refused.extra,
            complete=self.request_complete,
        )

    def answer(self, why: Failure, status: int, head: bytes, body: bytes) -> None:
        """Answer with a whole response that a filter of the route has, without an attempt at any
        endpoint."""
        self.status = status
        self.failure = why
        now = self.plane.clock()
        self.leave(now)
        complete = self.request_complete
        if not complete:
            self.client.end_after_response()
            head = head[:-2] + b"Connection: close\r\n\r\n"
        self.client.respond(headers.own_response(self, head), body)
        self.client.exchange_over(now, complete=complete)

    def _retry(self, why: Failure, now: float) -> bool:
        """Continue with the hedge or make another attempt. Return False if neither is possible."""
        endpoint = self.endpoint
        if endpoint is None or why.cause is None:
            return False
        if self.adopt_hedge(now):
            self.first_byte_at = 0.0
            self.set_deadline(now + self.service.first_byte_timeout)
            return True
        decision = retry.decide(self, why, now)
        if decision == retry.NO:
            return False
        if decision == retry.ON_NEW_CONNECTION:
            # Another idle connection may be closed too.
            self.new_connection = True
        elif decision == retry.WAIT:
            self._retry_when_reachable(endpoint, why, now)
            return True
        else:
            self.tried = (*self.tried, endpoint)
            self.count_retry()
            endpoint.counters.retried += 1
        self.end_attempt(now)
        self._enter(PICKING)
        self.first_byte_at = 0.0
        dispatch.dispatch(self, now)
        return True

    def _retry_when_reachable(self, endpoint: "EndpointState", why: Failure, now: float) -> None:
        """Make another attempt at any endpoint as soon as one accepts connections."""
        suspect = None
        if why.cause != "connect":
            # It was sent, so that the number of its attempts is limited.
            self.count_retry()
            endpoint.counters.retried += 1
        if why.cause == "closed":
            suspect = endpoint
            reachability.suspect(self.plane, self.service, endpoint, now)
        self.end_attempt(now)
        self._enter(PICKING)
        self.first_byte_at = 0.0
        self.tried = ()
        self.new_connection = False
        dispatch.dispatch_again(self, now, suspect)

    def count_retry(self) -> None:
        """Count one more attempt."""
        self.retries += 1
        self.service.counters.retries += 1

    def adopt_hedge(self, now: float) -> bool:
        """Continue with the hedge's attempt, because the own one has failed or lost. Return False
        if the hedge has not made one."""
        hedge = self.hedge
        if hedge is None or hedge.endpoint is None or hedge.upstream is None:
            return False
        if self.endpoint is not None:
            self.tried = (*self.tried, self.endpoint)
        self.end_attempt(now)
        self.take_over(hedge)
        self.choice = HEDGE
        phase = SENT if hedge.written else CONNECTING
        if phase != self.phase:
            self._enter(phase)
        self.hedge = None
        return True

    def forget_hedge(self) -> None:
        """Note that the hedge has ended."""
        self.hedge = None

    # --- the end

    def _complete(self, now: float, *, reusable: bool) -> None:
        """End after a complete response: the client takes its next request, and the upstream
        connection returns to the pool if it may."""
        upstream, endpoint = self.upstream, self.endpoint
        assert upstream is not None
        assert endpoint is not None
        complete = self.request_complete
        if self.status < 500:
            endpoint.counters.succeeded += 1
        in_tunnel = self.phase == TUNNEL
        # Bytes of the request that the upstream has yet to take would precede the next request.
        if reusable and complete and not self.upstream_is_full and not in_tunnel:
            self.upstream = None
            connection_pool.keep(endpoint, upstream, now)
        if in_tunnel and self.upstream is not None:
            self.upstream.close()
            self.upstream = None
        self.leave(now)
        if in_tunnel:
            self.client.close()
        else:
            self.client.exchange_over(now, complete=complete)

    def leave(self, now: float) -> None:
        """End the exchange, whatever its outcome: count it, and return what it holds."""
        if self.phase == OVER:
            return
        if self.phase == WAITING:
            dispatch.stop_waiting(self.service, self.queue_entry)
        # OVER may follow every other phase, so this needs no check.
        self.phase = OVER
        if self.hedge is not None:
            self.hedge.drop(now)
        accounting.record(self, now)
        self.end_attempt(now)
        if self.counted:
            dispatch.request_over(self.service, now)

    def set_deadline(self, deadline: float) -> None:
        """Set the deadline of the phase, unless that of the whole request comes first."""
        last = self.last_deadline
        self.client.expire_at(last if last and last < deadline else deadline)
