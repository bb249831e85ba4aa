"""One request's life: find who answers, send it, pass the answer on, try again where that is safe.

    start → (delayed) → (waiting) → connecting → sent → answering → over
                                        ↑___________|      or tunnel → over

An exchange holds one client connection and at most one origin connection. Their events come in
as calls; nothing here awaits. Whatever ends it, `_leave` gives back what it held, exactly once.
"""

from typing import TYPE_CHECKING, Final

from proxy import dispatch, entry, failure, pool, record
from proxy.entry import Refused
from proxy.exchange_phases import ANSWERING, CONNECTING, NEW, OVER, SENT, TUNNEL, WAITING
from proxy.failure import Failure
from proxy.http1.head import VIA, RequestHead, ResponseHead, via
from proxy.http1.rewrite import edit, request_head, response_head
from proxy.policy.retry import IDEMPOTENT, retryable

if TYPE_CHECKING:
    from proxy.data_plane import DataPlane
    from proxy.downstream import Downstream
    from proxy.endpoint_state import EndpointState
    from proxy.routing_table import Plan, ServiceState
    from proxy.upstream import Upstream

BODY_STALL: Final = 20.0
BODY_GRACE: Final = 30.0
BODY_RATE: Final = 500.0
TUNNEL_IDLE: Final = 3600.0
TUNNEL_HALF_CLOSED: Final = 60.0
HELD_BODY: Final = 64 * 1024


class Exchange:
    """See the module. Times are monotonic seconds; 0.0 stands for "not yet"."""

    service: "ServiceState"
    plan: "Plan | None" = None
    revision = ""
    endpoint: "EndpointState | None" = None
    upstream: "Upstream | None" = None
    phase = NEW
    attempts = 0
    tried: "tuple[EndpointState, ...]" = ()
    fresh = False
    reused = False
    counted = False
    request_complete = True
    replayable = True
    chunked_to_client = False
    status = 0
    failure: Failure | None = None
    edits_answer = False
    delay = 0.0
    sticky: bytes = b""
    parked = False
    half_finished = False
    held_up = False
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

    def __init__(
        self, plane: "DataPlane", client: "Downstream", head: RequestHead, now: float
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
                entry.by_route(plane, self, self.started)
            else:
                entry.by_name(plane, self, listener, self.client.peer)
        except Refused as refused:
            self.refuse(refused)
            return
        if head.max_forwards == 0:
            self.refuse(Refused(failure.MAX_FORWARDS))
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
        timeout = service.config.timeouts.request
        if timeout:
            self.last_deadline = self.started + timeout
        if self.delay:
            self.phase = WAITING
            self.client.deadline = float("inf")
            self.plane.loop.call_later(self.delay, self._delayed)
            return
        dispatch.dispatch(self, self.started)

    def _delayed(self) -> None:
        if self.phase == WAITING:
            dispatch.dispatch(self, self.plane.clock())

    def go_to(self, endpoint: "EndpointState", now: float) -> None:
        """Make an attempt at an endpoint."""
        endpoint.start(now)
        self.endpoint = endpoint
        self.sent_at = now
        if endpoint.health.ejected:
            endpoint.health.probing = True
            self.service.refresh(now)
        upstream = None
        if endpoint.idle and not self.fresh:
            upstream = pool.take(endpoint, idempotent=self.idempotent, now=now)
        if upstream is not None:
            self.reused = True
            self._send(upstream, now)
            return
        self.reused = False
        self.phase = CONNECTING
        self.until(now + (self.service.config.timeouts.connect or float("inf")))
        self.upstream = self.plane.connect(endpoint, self)

    def connected(self, upstream: "Upstream") -> None:
        """The connection asked for is there."""
        now = self.plane.clock()
        self.connect_seconds = now - self.sent_at
        self._send(upstream, now)

    def _send(self, upstream: "Upstream", now: float) -> None:
        self.upstream = upstream
        self.phase = SENT
        data = self._request_head()
        if self.body:
            data = b"".join((data, *self.body))
            if not self.idempotent or self.body_size > self.service.config.retries.body_limit:
                self.body = []
                self.replayable = False
        upstream.send(self, data)
        timeouts = self.service.config.timeouts
        if self.request_complete:
            self.until(now + (timeouts.first_byte or float("inf")))
        else:
            self.until(now + BODY_STALL)
            self.client.resume()

    def _request_head(self) -> bytes:
        head, plan = self.head, self.plan
        if head.has_id:
            self.request_id = head.field(b"x-request-id") or b""
            own_id = b""
        else:
            self.request_id = self.request_id or self.plane.next_id()
            own_id = b"X-Request-Id: %b\r\n" % self.request_id
        edited = None
        if plan is not None and plan.request is not None:
            edits = plan.request
            edited = edit(head.lines, put=edits.put, add=edits.add, remove=edits.remove)
        elif head.untouched and self.target is head.target:
            return b"%b\r\n%b%b%b\r\n" % (head.raw, self.client.forwarded_lines(head), VIA, own_id)
        host = b""
        if head.host is None:
            assert self.endpoint is not None
            where = self.endpoint.endpoint
            host = b"Host: %b:%d\r\n" % (where.host.encode() or b"localhost", where.port)
        forwarded = self.client.forwarded_lines(head)
        added = b"%b%b%b%b\r\n" % (host, forwarded, via(http10=head.http10), own_id)
        return request_head(head, added, edited, self.target)

    # --- the request's body

    def request_body(self, data: bytes, complete: bool) -> None:
        """More of the body came from the client, in the form in which it goes on."""
        self.bytes_in += len(data)
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
            if complete:
                self.until(now + (self.service.config.timeouts.first_byte or float("inf")))
            elif self.held_up:
                self.until(now + BODY_STALL)
            else:
                # Steady drops must not hold a replica for ever: some speed is asked for.
                slowest = self.started + BODY_GRACE + self.bytes_in / BODY_RATE
                self.until(min(now + BODY_STALL, slowest))

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
            self.client.write(head.kept + b"\r\n")
        self.until(self.plane.clock() + (self.service.config.timeouts.first_byte or float("inf")))

    def answer_whole(self, head: ResponseHead, body: bytes, *, reusable: bool) -> None:
        """A head and all of its body came at once."""
        now = self.plane.clock()
        if not self._accept(head, now):
            return
        client = self.client
        if client.usual and self.request_complete and not self.edits_answer:
            ready = head.ready
        else:
            ready = self._response_head(head, until_close=False)
        if body:
            self.bytes_out = len(body)
            ready += body
        client.write(ready)
        self._complete(now, reusable=reusable)

    def answer_head(self, head: ResponseHead, *, until_close: bool) -> bool:
        """A final head whose body follows; False when the answer is not wanted."""
        now = self.plane.clock()
        if not self._accept(head, now):
            return False
        self.phase = ANSWERING
        self.chunked_to_client = (head.chunked or until_close) and not self.head.http10
        self.client.write(self._response_head(head, until_close=until_close))
        if head.events:
            # A stream of events ends when somebody ends it.
            self.last_deadline = 0.0
        self.until(now + (self.service.config.timeouts.idle or float("inf")))
        return True

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
        self._complete(self.plane.clock(), reusable=reusable)

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
            if endpoint.answered(now - self.sent_at, now):
                self.service.refresh(now)
            return True
        self._blame(f"status {status}", now)
        listed = status in self.service.config.retries.status
        return not (listed and self.idempotent and self._try_again(failure.STATUS, now))

    def _response_head(self, head: ResponseHead, *, until_close: bool) -> bytes:
        client, request = self.client, self.head
        chunked = (head.chunked or until_close) and head.status not in (204, 304)
        if request.http10 and chunked:
            chunked = False
            client.persistent = client.persistent and self.bodyless
        if not self.request_complete or self.plane.draining:
            client.persistent = False
        connection = b""
        if not client.persistent:
            connection = b"Connection: close\r\n"
        elif request.http10:
            connection = b"Connection: keep-alive\r\n"
        extra = b""
        if self.sticky:
            extra = b"Set-Cookie: " + self.sticky + b"; Path=/; HttpOnly; SameSite=Lax\r\n"
        edited = None
        if self.plan is not None and self.plan.response is not None:
            edits = self.plan.response
            start, *lines = head.kept[:-2].split(b"\r\n")
            lines = edit(lines, put=edits.put, add=edits.add, remove=edits.remove)
            edited = b"\r\n".join([start, *lines, b""])
        return response_head(
            head, chunked=chunked, connection=connection, extra=extra, edited=edited
        )

    # --- tunnels

    def switched(self, head: ResponseHead) -> bool:
        """The origin switches protocols; False (and an end) when nobody asked it to."""
        asked = {name.lower() for name in self.head.upgrade}
        if not head.upgrade or not asked.issuperset(head.upgrade) or not self.request_complete:
            self.fail(failure.PROTOCOL, "a switch of protocols that was not asked for")
            return False
        now = self.plane.clock()
        assert self.endpoint is not None
        self.status = 101
        self.first_byte_at = now
        self.endpoint.answered(now - self.sent_at, now)
        self.phase = TUNNEL
        self.last_deadline = 0.0
        lines = b"Connection: Upgrade\r\nUpgrade: " + b", ".join(head.upgrade) + b"\r\n"
        self.client.write(
            response_head(head, chunked=False, connection=lines, extra=b"", edited=None)
        )
        self.until(now + TUNNEL_IDLE)
        self.client.open_tunnel()
        return True

    def to_client(self, data: bytes) -> None:
        """Tunnelled bytes from the origin."""
        self.bytes_out += len(data)
        self.client.write(data)
        self.until(self.plane.now + (TUNNEL_HALF_CLOSED if self.half_finished else TUNNEL_IDLE))

    def to_origin(self, data: bytes) -> None:
        """Tunnelled bytes from the client."""
        self.bytes_in += len(data)
        if self.upstream is not None and self.upstream.transport is not None:
            self.upstream.transport.write(data)
        self.until(self.plane.now + (TUNNEL_HALF_CLOSED if self.half_finished else TUNNEL_IDLE))

    def origin_finished(self) -> None:
        """The origin sends no more through the tunnel."""
        self.client.finish_tunnel()
        self._half_finished()

    def client_finished(self) -> None:
        """The client sends no more through the tunnel."""
        if self.upstream is not None:
            self.upstream.finish()
        self._half_finished()

    def _half_finished(self) -> None:
        now = self.plane.clock()
        if self.half_finished:
            self._complete(now, reusable=False)
            return
        self.half_finished = True
        self.until(now + TUNNEL_HALF_CLOSED)

    # --- backpressure

    def origin_is_full(self) -> None:
        """Stop reading what the origin cannot take."""
        self.held_up = True
        self.client.pause()

    def origin_has_room(self) -> None:
        """Read on."""
        self.client.resume()

    def client_is_full(self) -> None:
        """Stop reading what the client cannot take."""
        if self.upstream is not None:
            self.upstream.pause()

    def client_has_room(self) -> None:
        """Read on."""
        if self.upstream is not None:
            self.upstream.resume()
            self.until(self.plane.now + (self.service.config.timeouts.idle or float("inf")))

    # --- what goes wrong

    def connect_failed(self, error: OSError) -> None:
        """The endpoint took no connection."""
        self.fail(failure.CONNECT, error.strerror or str(error))

    def upstream_lost(self, *, answering: bool) -> None:
        """The origin's connection is gone before its answer was complete."""
        if self.phase == TUNNEL:
            self._complete(self.plane.clock(), reusable=False)
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
            self.endpoint.health.abandoned()
        self._leave(self.plane.clock())

    def expired(self, now: float) -> None:
        """The deadline of the phase has passed."""
        if self.last_deadline and now >= self.last_deadline:
            self.fail(failure.REQUEST_TIMEOUT)
            return
        if self.phase == WAITING:
            ready = bool(self.service.ready)
            self.fail(failure.QUEUED if ready else failure.PARKED)
        elif self.phase == CONNECTING:
            self.fail(failure.CONNECT_TIMEOUT)
        elif self.phase == SENT:
            self.fail(failure.FIRST_BYTE if self.request_complete else failure.SLOW_BODY)
        elif self.phase == ANSWERING:
            self.fail(failure.IDLE)
        else:
            self.client_gone()
            self.client.abort()

    def fail(self, why: Failure, detail: str = "") -> None:
        """Something went wrong: another attempt, an error answer, or a broken answer."""
        now = self.plane.clock()
        # That an idle connection had been closed says nothing against the endpoint.
        stale = self.reused and why is failure.CLOSED
        if why.blame and not stale and self.endpoint is not None:
            self._blame(detail or why.text, now)
        if self.phase < ANSWERING and why.cause is not None and self._try_again(why, now):
            return
        self.failure = why
        answering = self.phase == ANSWERING
        if answering:
            self._leave(now)
            self.client.break_off(abruptly=self.head.http10)
            return
        self.status = why.status
        self._leave(now)
        extra = b"Retry-After: 1\r\n" if why.status == 503 else b""
        self.client.answer(self.head, why, why.status, extra, complete=self.request_complete)

    def refuse(self, refused: Refused) -> None:
        """Answer without asking any origin."""
        self.status = refused.status
        self.failure = refused.why
        self._leave(self.started)
        self.client.answer(
            self.head,
            refused.why,
            refused.status,
            refused.extra,
            complete=self.request_complete,
        )

    def _blame(self, cause: str, now: float) -> None:
        endpoint = self.endpoint
        assert endpoint is not None
        endpoint.counters.failed += 1
        ejected = self.service.failed(endpoint, now)
        if ejected:
            self.plane.ejected(self.service, endpoint, f"{ejected} ({cause})")

    def _try_again(self, why: Failure, now: float) -> bool:
        """Makes another attempt, where that is safe, allowed, and there is someone to ask."""
        endpoint, service = self.endpoint, self.service
        if endpoint is None or why.cause is None:
            return False
        verdict = retryable(
            why.cause,
            written=self.phase >= SENT,
            reused=self.reused,
            idempotent=self.idempotent,
            replayable=self.replayable,
        )
        if verdict == "no":
            return False
        if verdict == "free":
            # The endpoint did nothing wrong, but an idle connection may meet the same end.
            self.fresh = True
        else:
            if self.attempts >= service.config.retries.attempts:
                return False
            others = (*self.tried, endpoint)
            if not dispatch.candidates(self, others) or not service.budget.withdraw(now):
                return False
            self.tried = others
            self.attempts += 1
            service.counters.retries += 1
        self._release(now)
        self.phase = NEW
        dispatch.dispatch(self, now)
        return True

    # --- the end

    def _complete(self, now: float, *, reusable: bool) -> None:
        """The answer is out. The client goes on to its next request, the origin's connection
        to the pool."""
        upstream, endpoint = self.upstream, self.endpoint
        assert upstream is not None
        assert endpoint is not None
        complete = self.request_complete
        if self.status < 500:
            endpoint.counters.succeeded += 1
        if reusable and complete and self.phase != TUNNEL:
            upstream.exchange = None
            upstream.reading = 0
            self.upstream = None
            if upstream.closing:
                upstream.discard()
            else:
                pool.give(endpoint, upstream, now)
        tunnel = self.phase == TUNNEL
        if tunnel and self.upstream is not None:
            self.upstream.close()
            self.upstream = None
        self._leave(now)
        if tunnel:
            self.client.close()
        else:
            self.client.exchange_over(now, complete=complete)

    def _release(self, now: float) -> None:
        """Gives back the endpoint and the connection of an attempt."""
        upstream, endpoint = self.upstream, self.endpoint
        if upstream is not None:
            self.upstream = None
            upstream.discard()
        if endpoint is not None:
            self.endpoint = None
            endpoint.finish(now)
            if not endpoint.serving and not endpoint.counters.in_flight:
                self.plane.endpoint_idle(endpoint)

    def _leave(self, now: float) -> None:
        if self.phase == OVER:
            return
        if self.phase == WAITING:
            dispatch.stop_waiting(self)
        self.phase = OVER
        record.ended(self, now)
        self._release(now)
        if self.counted:
            service = self.service
            service.in_flight -= 1
            if service.waiting:
                dispatch.wake(service, now)

    def until(self, deadline: float) -> None:
        """Sets the deadline of the phase; that of the whole request may come first."""
        last = self.last_deadline
        self.client.deadline = last if last and last < deadline else deadline
