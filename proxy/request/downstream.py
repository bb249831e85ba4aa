"""One client connection: reads requests one after the other, and ends well.

It knows how requests are framed and hands each to an exchange; requests that come early wait
here, bounded. Every way to end it that could lose an answer on its way lingers: our side is
closed first, and what still comes in is read and thrown away for a moment.
"""

import asyncio
from typing import TYPE_CHECKING, Final, cast

from proxy.http1 import limits
from proxy.http1.accept import prefers_json
from proxy.http1.chunked import ChunkedReader
from proxy.http1.fields import BadMessage
from proxy.http1.framing import CHUNKED
from proxy.http1.partial import check_first_line, check_partial, check_request_size
from proxy.http1.request import END, RequestHead, find_field, parse_request
from proxy.http1.request_template import RequestTemplates, add_template, match_templates
from proxy.http1.rewrite import ALLOW, build_response, extend_forwarded
from proxy.request import accounting, failure, fast_path, half_close, resolve, retry, tunnel
from proxy.request.exchange import Exchange
from proxy.request.failure import Failure
from proxy.request.phases import TUNNEL
from proxy.wire.snapshot import Listener

if TYPE_CHECKING:
    from proxy.request.data_plane import DataPlane
    from proxy.state.service_state import ServiceState

KEEP_ALIVE: Final = 75.0
LINGER: Final = 2.0
LINGER_MOST: Final = 30.0
"""A client that goes on sending is listened to for so long: many read nothing before they are
done, and would lose the answer to a reset."""
NEXT_REQUEST: Final = 1.0
"""A connection is not ended under a request that is on its way: while draining it has so long to
ask once more, and is told with the answer."""
FLUSH: Final = 60.0
AHEAD: Final = b"H"
"""How every answer begins."""
WRITE_HIGH: Final = 64 * 1024
READ_AHEAD: Final = 64 * 1024
LESSONS: Final = 16
"""So often a connection's shape is learned; one whose requests have none is not worth more."""
NEVER: Final = float("inf")
NO_LIMIT: Final = 1 << 62
_P: Final = ord("P")
"""So POST, PUT and PATCH begin."""


class Downstream:
    """See the module. `deadline` is looked at by the data plane's clock, a few times a second.

    An `asyncio.Protocol` by its methods, without the base class, so that it can be compiled to
    a native one.
    """

    __slots__ = (
        "_advancing",
        "_ahead",
        "_body_left",
        "_body_shapes",
        "_buffer",
        "_complete_at",
        "_ended",
        "_full",
        "_half_closed",
        "_lessons",
        "_lines",
        "_lines_host",
        "_linger_end",
        "_paused",
        "_plane",
        "_public",
        "_reader",
        "_shapes",
        "_trusted",
        "_unread",
        "address",
        "deadline",
        "exchange",
        "listener",
        "peer",
        "persistent",
        "transport",
        "usual",
    )

    def __init__(self, plane: "DataPlane", listener: Listener) -> None:
        self._plane = plane
        self.listener = listener
        self.transport: asyncio.Transport | None = None
        self.exchange: Exchange | None = None
        self.peer = ""
        self.address = b""
        self.deadline = NEVER
        self.persistent = True
        self.usual = True
        self._trusted = False
        self._buffer = b""
        self._body_left = 0
        self._reader: ChunkedReader | None = None
        self._complete_at = 0.0
        self._ended = False
        self._paused = False
        self._full = False
        self._half_closed = False
        self._ahead = 0
        self._advancing = False
        self._unread = NO_LIMIT
        self._linger_end = 0.0
        self._lines = b""
        self._lines_host: bytes | None = None
        self._public = listener.kind == "public"
        self._shapes: RequestTemplates = ()
        self._body_shapes: RequestTemplates = ()
        self._lessons = LESSONS

    # --- the connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.transport.set_write_buffer_limits(high=WRITE_HIGH)
        peer = transport.get_extra_info("peername")
        if isinstance(peer, tuple):
            self.peer = peer[0].removeprefix("::ffff:")
        self.address = self.peer.encode() or b"unknown"
        plane = self._plane
        self._trusted = plane.routing.trusted.has(self.peer)
        if not self._trusted:
            # What others ask is what this one will ask, more often than not.
            self._shapes, self._body_shapes = plane.recall.shapes, plane.recall.body_shapes
        self.deadline = plane.clock() + plane.routing.head_seconds
        plane.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._plane.connections.discard(self)
        self._plane.held.discard(self)
        self._ended = True
        self.transport = None
        self._buffer = b""
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            exchange.client_gone()

    def eof_received(self) -> bool:
        exchange = self.exchange
        if self._ended:
            return False
        if exchange is None:
            self._half_closed = END in self._buffer
            return self._half_closed
        if exchange.phase == TUNNEL:
            tunnel.client_finished(exchange)
            return True
        if not exchange.request_complete:
            return False
        # Of the requests that came before the end, the last ends the connection.
        self._half_closed = True
        self.persistent = self.persistent and bool(self._buffer)
        self.usual = False
        half_close.HalfCloseWatcher(self, exchange).start()
        return True

    # --- reading

    def data_received(self, data: bytes) -> None:
        exchange = self.exchange
        if exchange is None:
            if self._ended:
                self.deadline = min(self._linger_end, self._plane.clock() + LINGER)
                return
            shapes = self._shapes if data[0] != _P else self._body_shapes
            if shapes and not self._buffer and not self._full:
                head = match_templates(shapes, data)
                if head is not None:
                    self._begin_usual(head, data)
                    return
            if self._buffer:
                data = self._buffer + data
                self._buffer = b""
            if self._full:
                # It has to read its last answer before it gets another.
                self._hold(data)
            else:
                self._advance(data)
        elif not exchange.request_complete:
            self._read_body(exchange, data)
        elif exchange.phase == TUNNEL:
            tunnel.to_origin(exchange, data)
        else:
            self._hold(self._buffer + data)

    def _hold(self, data: bytes) -> None:
        """Keeps requests that come before their turn, not too many of them."""
        self._buffer = data
        if len(data) > READ_AHEAD:
            self.pause()

    def _advance(self, data: bytes) -> None:
        """Takes up requests until one of them has to wait for its answer."""
        self._advancing = True
        while True:
            end = data.find(END)
            if data[:2] == b"\r\n":
                data = self._skip_empty_lines(data)
                end = data.find(END)
            if end < 0:
                self._keep_partial(data)
                break
            try:
                if end > limits.REQUEST_HEAD:
                    check_request_size(data[:end])
                head = parse_request(data[:end], self._plane.recall.requests)
                self._learn(head)
                self._begin(head, data[end + 4 :])
            except BadMessage as bad:
                self._refuse(bad, data)
                break
            if self.exchange is not None or self._ended or self._full:
                break
            data, self._buffer = self._buffer, b""
            if not data:
                break
        self._advancing = False

    def _skip_empty_lines(self, data: bytes) -> bytes:
        """A few empty lines before a request are harmless (RFC 9112, section 2.2)."""
        for _ in range(limits.LEADING_EMPTY_LINES):
            data = data.removeprefix(b"\r\n")
        return data

    def _keep_partial(self, data: bytes) -> None:
        if self._half_closed:
            self.close()
            return
        if not data:
            return
        try:
            check_partial(data)
            check_first_line(data)
            check_request_size(data)
        except BadMessage as bad:
            self._refuse(bad, data)
            return
        if not self._buffer and self._complete_at:
            # The first bytes of another request: its head has its own deadline.
            self.deadline = self._plane.clock() + self._plane.routing.head_seconds
        self._buffer = data

    def _begin(self, head: RequestHead, rest: bytes) -> None:
        plane = self._plane
        now = plane.clock()
        plane.now = now
        piece = b""
        complete = True
        length = head.length
        if length > 0:
            piece, rest = rest[:length], rest[length:]
            self._body_left = length - len(piece)
            complete = not self._body_left
        elif length == CHUNKED:
            reader = ChunkedReader()
            piece = reader.feed(rest)
            complete, rest = reader.done, reader.surplus
            self._reader = None if complete else reader
        self._buffer = rest
        self._complete_at = now
        last = plane.draining or (self._half_closed and not rest)
        self.persistent = persistent = head.persistent and not last
        self.usual = persistent and not head.http10 and not self._half_closed
        exchange = self.exchange = Exchange(plane, self, head, now)
        if self._half_closed:
            half_close.HalfCloseWatcher(self, exchange).start()
        exchange.start(piece, complete)

    def _begin_usual(self, head: RequestHead, data: bytes) -> None:
        """As `_begin`, for a request that is of the shape of those before it."""
        body = b""
        if head.length:
            body = data[len(head.raw) + 4 :]
            if len(body) != head.length:
                self._begin(head, body)
                return
        plane = self._plane
        now = plane.now = self._complete_at = plane.clock()
        exchange = self.exchange = Exchange(plane, self, head, now)
        self.persistent = self.usual = not plane.draining
        service: ServiceState | None = None
        if self._public:
            plan = exchange.plan = plane.routing.straight(head.host or b"")
            if plan is not None and plan.only is not None:
                service = plan.only if head.length <= plan.only.largest_body else None
        else:
            service = resolve.straight_call(plane, exchange, self.listener, self.peer, now)
        if service is None:
            exchange.start(body, True)
            return
        if body:
            exchange.body.append(body)
            exchange.body_size = exchange.bytes_in = head.length
        fast_path.start(exchange, service, now)

    def _learn(self, head: RequestHead) -> None:
        """From its second request on, a connection shows in what its requests are alike; those
        that mostly have a body are a kind of their own."""
        if self._complete_at and self._lessons and not (self._trusted and head.forwarded):
            self._lessons -= 1
            recall = self._plane.recall
            if head.raw[0] != _P:
                self._shapes = recall.shapes = recall.shared(add_template(self._shapes, head))
            else:
                shapes = recall.shared(add_template(self._body_shapes, head))
                self._body_shapes = recall.body_shapes = shapes

    def _read_body(self, exchange: Exchange, data: bytes) -> None:
        reader = self._reader
        if reader is None:
            left = self._body_left
            if len(data) > left:
                self._buffer = data[left:]
                data = data[:left]
            self._body_left = left - len(data)
            complete = not self._body_left
        else:
            try:
                data = reader.feed(data)
            except BadMessage as bad:
                self._body_unclear(exchange, bad)
                return
            complete = reader.done
            if complete:
                self._buffer = reader.surplus
                self._reader = None
        if complete:
            self._complete_at = self._plane.clock()
        exchange.request_body(data, complete)

    def _body_unclear(self, exchange: Exchange, bad: BadMessage) -> None:
        why = failure.BAD_REQUEST._replace(text=bad.reason, status=bad.status)
        exchange.fail(why)

    # --- writing

    def write(self, data: bytes) -> None:
        """Sends bytes to the client."""
        if self._ahead:
            data = data[self._ahead :]
            self._ahead = 0
        if self.transport is not None:
            self.transport.write(data)

    def send_ahead(self) -> None:
        """Sends how any answer begins, before there is one."""
        if self.transport is not None and not self._ahead:
            self._ahead = len(AHEAD)
            self.transport.write(AHEAD)

    def forwarded_lines(self, head: RequestHead) -> bytes:
        """What tells the origin who asks."""
        host = head.host or b""
        if head.forwarded and self._trusted:
            return extend_forwarded(head, self.address, b"http", host)
        if host != self._lines_host:
            self._lines = self._plane.recall.forwarded_lines(self.address, host)
            self._lines_host = host
        return self._lines

    def answer(
        self, head: RequestHead, why: Failure, status: int, extra: bytes, *, complete: bool
    ) -> None:
        """Sends an answer of the proxy's own, and goes on or ends."""
        if self.transport is None:
            return
        exchange = self.exchange
        # It is made with the head that goes on; where none did, the client's own is told.
        request_id = exchange.request_id if exchange is not None else b""
        request_id = request_id or head.field(b"x-request-id") or b""
        accept = head.field(b"accept") or b""
        self.persistent = self.persistent and complete and status not in (400, 408)
        self.write(
            build_response(
                status,
                why.text,
                request_id=request_id,
                as_json=prefers_json(accept),
                bodyless=head.method == b"HEAD",
                close=not self.persistent,
                extra=extra + self._plane.date_line(),
            )
        )
        self.exchange_over(self._plane.now, complete=complete)

    def _refuse(self, bad: BadMessage, data: bytes) -> None:
        """Answers what is not even a request, as far as `data` tells how, and ends the
        connection."""
        if self.transport is None:
            return
        accounting.refused(self._plane, self.peer, bad.status, data)
        accept = find_field(data[: limits.REQUEST_HEAD].partition(END)[0].split(b"\r\n"), b"accept")
        self.transport.write(
            build_response(
                bad.status,
                bad.reason,
                as_json=prefers_json(accept or b""),
                bodyless=data.startswith(b"HEAD "),
                close=True,
                extra=(ALLOW if bad.status == 405 else b"") + self._plane.date_line(),
            )
        )
        self._linger()

    def pause_writing(self) -> None:
        self._full = True
        if self.exchange is not None:
            self.exchange.client_is_full()

    def resume_writing(self) -> None:
        self._full = False
        if self.exchange is not None:
            self.exchange.client_has_room()
        elif self._buffer and not self._ended:
            self.resume()
            self._next()

    def pause(self) -> None:
        """Stop reading from the client."""
        transport = self.transport
        if not self._paused and transport is not None and not transport.is_closing():
            self._paused = True
            self._plane.held.add(self)
            transport.pause_reading()

    def resume(self) -> None:
        """Read from the client again."""
        transport = self.transport
        if self._paused and transport is not None and not transport.is_closing():
            self._paused = False
            self._plane.held.discard(self)
            transport.resume_reading()

    # --- from one request to the next, and the end

    def exchange_over(self, now: float, *, complete: bool) -> None:
        """The answer is out: take up the next request, or end the connection."""
        exchange, self.exchange = self.exchange, None
        if self._paused:
            self.resume()
        if not self.persistent or not complete:
            if complete and not self._buffer:
                self.close()
            else:
                self._linger()
            return
        keep = KEEP_ALIVE
        if exchange is not None and exchange.counted:
            keep = exchange.service.keep_alive
        self.deadline = now + keep
        if self._buffer and not self._advancing:
            self._plane.loop.call_soon(self._next)

    def _next(self) -> None:
        if self.exchange is None and self._buffer and not self._ended and not self._full:
            data, self._buffer = self._buffer, b""
            self._advance(data)

    def open_tunnel(self) -> None:
        """From here on bytes pass as they are; those that came early go first."""
        self.persistent = False
        self.resume()
        if self._buffer and self.exchange is not None:
            data, self._buffer = self._buffer, b""
            tunnel.to_origin(self.exchange, data)

    def finish_tunnel(self) -> None:
        """The origin's side of a tunnel has ended."""
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write_eof()

    def unsent(self) -> bool:
        """Whether bytes for the client have not left yet."""
        return self.transport is not None and self.transport.get_write_buffer_size() > 0

    def expected(self) -> bool:
        """Whether a request may be on its way that must not be lost."""
        return not self._ended

    def drain(self) -> None:
        """Has the next answer say that the connection ends; it ends soon if none is asked for."""
        self.usual = False
        if self.exchange is None:
            self.deadline = min(self.deadline, self._plane.clock() + NEXT_REQUEST)

    def close(self) -> None:
        """Ends the connection once everything written has gone out."""
        self._ended = True
        self.exchange = None
        self.deadline = self._plane.now + FLUSH
        if self.transport is not None:
            self.transport.close()

    def break_off(self, *, abruptly: bool) -> None:
        """Ends the connection so that the client sees that the answer is not whole. A clean
        end is an end of the body to HTTP/1.0: it gets a reset."""
        self.exchange = None
        if abruptly and self.transport is not None:
            half_close.end_by_reset(self.transport)
            self.abort()
            return
        self.close()

    def abort(self) -> None:
        """Ends the connection at once."""
        self._ended = True
        if self.transport is not None:
            self.transport.abort()

    def _linger(self) -> None:
        """Ends our side; the client's is read for a moment, so that no reset overtakes the
        answer on its way."""
        self._ended = True
        self.exchange = None
        self._buffer = b""
        now = self._plane.clock()
        self.deadline, self._linger_end = now + LINGER, now + LINGER_MOST
        if self.transport is not None and not self.transport.is_closing():
            self.resume()
            self.transport.write_eof()

    def expired(self, now: float) -> None:
        """The deadline has passed."""
        exchange = self.exchange
        self.deadline = NEVER
        if exchange is not None:
            retry.expired(exchange, now)
        elif self._ended:
            self.abort()
        elif self._buffer:
            late = BadMessage(failure.SLOW_HEAD.status, failure.SLOW_HEAD.text)
            self._refuse(late, self._buffer)
        elif not self._still_reading():
            self.close()

    def _still_reading(self) -> bool:
        """Whether a slow client took some of its last answer since it was looked at."""
        size = self.transport.get_write_buffer_size() if self.transport is not None else 0
        slow = 0 < size < self._unread
        self._unread = size if slow else NO_LIMIT
        if slow:
            self.deadline = self._plane.now + KEEP_ALIVE
        return slow
