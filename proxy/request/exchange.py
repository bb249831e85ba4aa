"""One request's life: find who answers, send it, pass the answer on, try again where that is safe.

    start → (delayed) → (waiting) → connecting → sent → answering → over
                                        ↑___________|      or tunnel → over

An exchange holds one client connection and at most one origin connection. Their events come in
as calls; nothing here awaits. Whatever ends it, `leave` gives back what it held, exactly once.
"""

from typing import TYPE_CHECKING, Final

from proxy.http1.request import RequestHead
from proxy.http1.response import ResponseHead
from proxy.policy.retry import IDEMPOTENT
from proxy.request import accounting, connection_pool, dispatch, failure, headers, resolve, retry
from proxy.request.failure import Failure
from proxy.request.hedge import Hedge
from proxy.request.phases import ANSWERING, CONNECTING, NEW, OVER, SENT, TUNNEL, WAITING
from proxy.request.resolve import RequestRefused

if TYPE_CHECKING:
    from proxy.observe.trace import TraceContext
    from proxy.request.data_plane import DataPlane
    from proxy.request.downstream import Downstream
    from proxy.request.mirror import DiscardClient
    from proxy.request.upstream import Upstream
    from proxy.state.endpoint_state import EndpointState
    from proxy.state.routing_table import CompiledRoute
    from proxy.state.service_state import ServiceState

BODY_GRACE: Final = 30.0
BODY_RATE: Final = 500.0
HELD_BODY: Final = 64 * 1024


class Exchange:
    """See the module. Times are monotonic seconds; 0.0 stands for "not yet"."""

    service: "ServiceState"
    plan: "CompiledRoute | None" = None
    revision = ""
    endpoint: "EndpointState | None" = None
    upstream: "Upstream | None" = None
    hedge: Hedge | None = None
    phase = NEW
    attempts = 0
    load = 0
    tried: "tuple[EndpointState, ...]" = ()
    fresh = False
    reused = False
    counted = False
    caller = ""
    request_complete = True
    replayable = True
    chunked_to_client = False
    status = 0
    failure: Failure | None = None
    streaming = False
    edits_answer = False
    delay = 0.0
    sticky: bytes = b""
    parked = False
    half_finished = False
    held_up = False
    origin_full = False
    parked_bytes = 0
    body_size = 0
    bytes_in = 0
    bytes_out = 0
    queued_at = 0.0
    queue_seconds = 0.0
    sent_at = 0.0
    connect_seconds = 0.0
    first_byte_at = 0.0
    last_deadline = 0.0
    request_id = b""
    trace = b""
    span: "TraceContext | None" = None

    def __init__(
        self,
        plane: "DataPlane",
        client: "Downstream | DiscardClient",
        head: RequestHead,
        now: float,
    ) -> None:
        self.plane = plane
        self.client = client
        self.head = head
        self.target = head.target
        self.address = client.address
        self.started = now
        self.idempotent = head.method in IDEMPOTENT
        self.bodyless = head.method == b"HEAD"
        self.body: list[bytes] = []

    # --- before it goes out

    def start(self, piece: bytes, complete: bool) -> None:
        """Find out what the request is for, and send it. `piece` is what came of its body."""
        plane, head = self.plane, self.head
        if not complete:
            self.request_complete = False
        if piece:
            self.body.append(piece)
            self.body_size = self.bytes_in = len(piece)
        listener = self.client.listener
        try:
            if listener.kind == "public":
                resolve.by_route(plane, self, self.started)
            else:
                resolve.by_name(plane, self, listener, self.client.peer, self.started)
        except RequestRefused as refused:
            self.refuse(refused)
            return
        if head.max_forwards == 0:
            self.refuse(RequestRefused(failure.MAX_FORWARDS))
            return
        plan = self.plan
        if plan is not None and plan.mirror is not None and complete:
            plane.mirror(self, plan.mirror)
        self.admit()

    def admit(self) -> None:
        """The service is known: count the request, and send it on its way."""
        service = self.service
        service.counters.arrivals += 1
        service.in_flight += 1
        self.counted = True
        service.budget.deposit(self.started)
        largest = service.config.limits.body
        if largest and max(self.head.length, self.bytes_in) > largest:
            self.fail(failure.TOO_LARGE)
            return
        timeout = service.config.timeouts.request
        if timeout:
            self.last_deadline = self.started + timeout
        if self.delay:
            self.phase = WAITING
            self.until(float("inf"))
            self.plane.loop.call_later(self.delay, self._delayed)
            return
        dispatch.dispatch(self, self.started)

    def _delayed(self) -> None:
        if self.phase == WAITING:
            dispatch.dispatch(self, self.plane.clock())

    def go_to(self, endpoint: "EndpointState", now: float) -> None:
        """Make an attempt at an endpoint."""
        self.load = endpoint.in_flight
        endpoint.start(now)
        self.endpoint = endpoint
        self.sent_at = now
        if endpoint.health.ejected:
            endpoint.health.probing = True
            self.service.refresh(now)
        upstream = None
        if endpoint.idle and not self.fresh:
            upstream = connection_pool.take(endpoint, idempotent=self.idempotent, now=now)
        if upstream is not None:
            self.reused = True
            self._send(upstream, now)
            if self.service.hedges:
                self._arm()
            return
        self.reused = False
        self.phase = CONNECTING
        if self.service.hedges:
            self._arm()
        config = self.service.config
        self.until(now + (config.timeouts.connect or float("inf")))
        if config.limits.endpoint_connections:
            connection_pool.make_room(endpoint, self.service.bounds.connections_left(endpoint))
        self.upstream = self.plane.connect(endpoint, self)

    def _arm(self) -> None:
        """Has a second try made in a while, if the first has had no answer by then."""
        after = self.service.config.retries.hedge_after
        fit = self.idempotent and self.request_complete and not self.head.upgrade
        if after and fit and self.hedge is None and not self.attempts:
            self.hedge = Hedge(self, after)

    def connected(self, upstream: "Upstream") -> None:
        """The connection asked for is there."""
        now = self.plane.clock()
        self.connect_seconds = now - self.sent_at
        self._send(upstream, now)

    def _send(self, upstream: "Upstream", now: float) -> None:
        self.upstream = upstream
        self.phase = SENT
        data = headers.for_origin(self)
        if self.body:
            data = b"".join((data, *self.body))
            self.body_sent()
        upstream.send(self, data)
        timeouts = self.service.config.timeouts
        if self.request_complete:
            self.until(now + (timeouts.first_byte or float("inf")))
        else:
            self.until(now + timeouts.body)
            self.client.resume()

    # --- the request's body

    def body_sent(self) -> None:
        """What there was of the body is sent: it is kept only where it may be sent again."""
        if not self.idempotent or self.body_size > self.service.config.retries.body_limit:
            self.body = []
            self.replayable = False

    def request_body(self, data: bytes, complete: bool) -> None:
        """More of the body came from the client, in the form in which it goes on."""
        self.bytes_in += len(data)
        largest = self.service.config.limits.body
        if largest and self.bytes_in > largest:
            self.fail(failure.TOO_LARGE)
            return
        if complete:
            self.request_complete = True
        if self.phase < SENT:
            self.body.append(data)
            self.body_size += len(data)
            if self.body_size > HELD_BODY:
                self.client.pause()
            return
        upstream = self.upstream
        if upstream is None or upstream.transport is None:
            return
        if self.replayable:
            self._remember(data)
        if data:
            upstream.transport.write(data)
        if self.phase == SENT:
            now = self.plane.clock()
            timeouts = self.service.config.timeouts
            if complete:
                self.until(now + (timeouts.first_byte or float("inf")))
            elif self.origin_full:
                pass
            elif self.held_up:
                self.until(now + timeouts.body)
            else:
                # Steady drops must not hold a replica for ever: some speed is asked for.
                slowest = self.started + BODY_GRACE + self.bytes_in / BODY_RATE
                self.until(min(now + timeouts.body, slowest))
        elif self.phase == ANSWERING:
            self.until(self.plane.now + (self.service.config.timeouts.idle or float("inf")))

    def _remember(self, data: bytes) -> None:
        """Keeps a body that is being sent, as long as it can be sent again."""
        self.body_size += len(data)
        if self.idempotent and self.body_size <= self.service.config.retries.body_limit:
            self.body.append(data)
        else:
            self.body = []
            self.replayable = False

    # --- the answer

    def interim(self, head: ResponseHead) -> None:
        """A 1xx answer other than 101: for HTTP/1.1 clients alone."""
        if not self.head.http10:
            self.client.write(head.kept_head + b"\r\n")
        self.until(self.plane.clock() + (self.service.config.timeouts.first_byte or float("inf")))

    def answer_whole(self, head: ResponseHead, body: bytes, *, reusable: bool) -> None:
        """A head and all of its body came at once."""
        now = self.plane.clock()
        if not self._accept(head, now):
            return
        ready = self._ready(head, until_close=False)
        if body:
            self.bytes_out = len(body)
            ready += body
        self.client.write(ready)
        self.complete(now, reusable=reusable)

    def answer_head(self, head: ResponseHead, *, until_close: bool) -> bool:
        """A final head whose body follows; False when the answer is not wanted."""
        now = self.plane.clock()
        if not self._accept(head, now):
            return False
        self.phase = ANSWERING
        self.chunked_to_client = (head.chunked or until_close) and not self.head.http10
        self.client.write(self._ready(head, until_close=until_close))
        if head.is_event_stream:
            # A stream of events ends when somebody ends it.
            self.last_deadline = 0.0
            self.streaming = True
            accounting.stream_began(self, now)
        self.until(now + (self.service.config.timeouts.idle or float("inf")))
        return True

    def _ready(self, head: ResponseHead, *, until_close: bool) -> bytes:
        """A final head as it goes to the client."""
        if (
            self.client.usual
            and self.request_complete
            and not self.edits_answer
            and not until_close
        ):
            return head.client_head
        return headers.for_client(self, head, until_close=until_close)

    def answer_body(self, data: bytes) -> None:
        """A piece of the answer's body, in the form in which it goes on."""
        self.bytes_out += len(data)
        self.client.write(data)
        self.until(self.plane.now + (self.service.config.timeouts.idle or float("inf")))

    def answer_ended(self, last: bytes, *, reusable: bool) -> None:
        """The answer's body is complete with `last`."""
        if last:
            self.bytes_out += len(last)
            self.client.write(last)
        self.complete(self.plane.clock(), reusable=reusable)

    def answer_unclear(self, reason: str) -> None:
        """The origin's bytes have no single reading."""
        self.fail(failure.PROTOCOL, reason)

    def _accept(self, head: ResponseHead, now: float) -> bool:
        """Takes a final head as the answer; False when another attempt is made instead."""
        status = head.status
        endpoint = self.endpoint
        assert endpoint is not None
        self.status = status
        self.first_byte_at = now
        if status < 500:
            if self.hedge is not None:
                self.hedge.drop(now)
            if endpoint.answered(now - self.sent_at, now, self.load):
                self.service.refresh(now)
            return True
        retry.blame(self, f"status {status}", now)
        listed = status in self.service.config.retries.status
        return not (listed and self.idempotent and retry.try_again(self, failure.STATUS, now))

    # --- backpressure

    def origin_is_full(self) -> None:
        """Stop reading what the origin cannot take."""
        self.held_up = self.origin_full = True
        self.client.pause()
        if self.phase == SENT:
            # It is the origin now that is waited for.
            timeouts = self.service.config.timeouts
            self.until(self.plane.clock() + (timeouts.idle or float("inf")))

    def origin_has_room(self) -> None:
        """Read on."""
        self.origin_full = False
        self.client.resume()
        if self.phase == SENT and not self.request_complete:
            self.until(self.plane.clock() + self.service.config.timeouts.body)

    def client_is_full(self) -> None:
        """Stop reading what the client cannot take."""
        if self.upstream is not None:
            self.upstream.pause()

    def client_has_room(self) -> None:
        """Read on."""
        if self.upstream is not None:
            self.upstream.resume()
            if self.phase == ANSWERING:
                self.until(self.plane.now + (self.service.config.timeouts.idle or float("inf")))

    # --- what goes wrong

    def connect_failed(self, error: OSError) -> None:
        """The endpoint took no connection."""
        self.fail(failure.CONNECT, error.strerror or str(error))

    def upstream_lost(self, *, answering: bool) -> None:
        """The origin's connection is gone before its answer was complete."""
        if self.phase == TUNNEL:
            self.complete(self.plane.clock(), reusable=False)
            return
        self.fail(failure.BROKEN if answering else failure.CLOSED, "connection closed")

    def client_gone(self) -> None:
        """The client left: nothing is worth doing any more, and nobody is to blame."""
        if self.phase == OVER:
            return
        if self.phase != TUNNEL:
            self.status = 499
            self.failure = failure.CLIENT_GONE
        if self.endpoint is not None:
            self.endpoint.health.record_abandoned()
        self.leave(self.plane.clock())

    def fail(self, why: Failure, detail: str = "") -> None:
        """Something went wrong."""
        retry.failed(self, why, detail)

    def refuse(self, refused: RequestRefused) -> None:
        """Answer without asking any origin."""
        self.status = refused.status
        self.failure = refused.why
        self.leave(self.started)
        self.client.answer(
            self.head,
            refused.why,
            refused.status,
            refused.extra,
            complete=self.request_complete,
        )

    # --- the end

    def complete(self, now: float, *, reusable: bool) -> None:
        """The answer is out. The client goes on to its next request, the origin's connection
        to the pool."""
        upstream, endpoint = self.upstream, self.endpoint
        assert upstream is not None
        assert endpoint is not None
        complete = self.request_complete
        if self.status < 500:
            endpoint.counters.succeeded += 1
        # What an origin leaves unread would stand before the next request.
        if reusable and complete and not self.origin_full and self.phase != TUNNEL:
            upstream.exchange = None
            upstream.reading = 0
            self.upstream = None
            if upstream.closing:
                upstream.discard()
            else:
                connection_pool.give(endpoint, upstream, now)
        tunnel = self.phase == TUNNEL
        if tunnel and self.upstream is not None:
            self.upstream.close()
            self.upstream = None
        self.leave(now)
        if tunnel:
            self.client.close()
        else:
            self.client.exchange_over(now, complete=complete)

    def release(self, now: float) -> None:
        """Gives back the endpoint and the connection of an attempt."""
        upstream, endpoint = self.upstream, self.endpoint
        self.upstream = self.endpoint = None
        connection_pool.give_back(self.plane, endpoint, upstream, now)

    def leave(self, now: float) -> None:
        """The end, whatever it is: counts it, and gives back what is held."""
        if self.phase == OVER:
            return
        if self.phase == WAITING:
            dispatch.stop_waiting(self)
        self.phase = OVER
        if self.hedge is not None:
            self.hedge.drop(now)
        accounting.ended(self, now)
        self.release(now)
        if self.counted:
            service = self.service
            service.in_flight -= 1
            if service.limited:
                service.bounds.tell()
            if service.waiting:
                dispatch.wake(service, now)

    def until(self, deadline: float) -> None:
        """Sets the deadline of the phase; that of the whole request may come first."""
        last = self.last_deadline
        self.client.deadline = last if last and last < deadline else deadline
