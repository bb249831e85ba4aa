"""One HTTP/1 connection of a client: reads its requests one after another, writes the responses,
ends in an orderly way.

`DataPlane.protocol_factory` creates one for each accepted connection. It knows how requests are
framed and gives each to an `Exchange`; it is the `ClientSink` of its exchanges. Requests that
arrive before their turn wait here, bounded. An end that could lose a response on its way lingers:
our side is closed first, and what still arrives is read and dropped for a moment.
"""

import asyncio
from typing import TYPE_CHECKING, Final

from proxy.http1 import limits
from proxy.http1.accept import prefers_json
from proxy.http1.chunked import ChunkedReader
from proxy.http1.fields import BadMessage
from proxy.http1.framing import CHUNKED
from proxy.http1.partial import check_first_line, check_partial, check_request_size
from proxy.http1.request import END, RequestHead, find_field, parse_request
from proxy.http1.request_template import RequestTemplates, add_template, match_templates
from proxy.http1.rewrite import ALLOW, build_response
from proxy.request import accounting, failure, fast_path, half_close
from proxy.request.client_connection import UNKNOWN, ClientConnection
from proxy.request.exchange import Exchange
from proxy.request.failure import CHALLENGE, Failure
from proxy.request.headers import own_response
from proxy.request.phases import TUNNEL
from proxy.request.sinks import NEVER
from proxy.tls.session_info import TlsSession
from proxy.wire.snapshot import Listener

if TYPE_CHECKING:
    from proxy.request.data_plane import DataPlane

KEEP_ALIVE: Final = 75.0
"""Seconds between two requests if the last one belonged to no service: the default of nginx."""
LINGER: Final = 2.0
"""Seconds without a byte after which a lingering connection is closed."""
LINGER_MAX: Final = 30.0
"""Seconds for which a connection lingers at most. Many clients read nothing before they have sent
everything, and would lose the response to a reset."""
NEXT_REQUEST: Final = 1.0
"""Seconds for which an idle connection stays open while draining: a request may be on its way, and
its response announces the end to the client."""
FLUSH: Final = 60.0
"""Seconds for which unsent bytes may delay a close."""
HTTP2_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\n"
"""The first bytes of HTTP/2 up to the first empty line (RFC 9113, section 3.4). No parser of
HTTP/1.1 accepts them."""
FIRST_BYTE: Final = b"H"
"""The first byte of every response."""
READ_AHEAD: Final = 64 * 1024
"""Bytes of further requests that are held before reading is paused."""
MAX_LEARNED: Final = 16
"""Heads of a connection from which templates are made. More are not worth the time: requests that
match none by then have little in common."""
NO_LIMIT: Final = 1 << 62
"""Bytes: more than any body has."""
_P: Final = ord("P")
"""The first byte of POST, PUT and PATCH."""


class Downstream(ClientConnection):
    """An HTTP/1 connection of a client.

    It has the methods of an `asyncio.Protocol` without the base class, so that it can be compiled
    to a native class.
    """

    __slots__ = (
        "_advancing",
        "_body_left",
        "_body_templates",
        "_buffer",
        "_complete_at",
        "_ended",
        "_full",
        "_half_closed",
        "_learned",
        "_linger_end",
        "_paused",
        "_reader",
        "_sent_early",
        "_templates",
        "_unsent",
    )

    def __init__(
        self, plane: "DataPlane", listener: Listener, tls: TlsSession | None = None
    ) -> None:
        super().__init__(plane, listener, tls)
        self._buffer = b""
        self._body_left = 0
        self._reader: ChunkedReader | None = None
        self._complete_at = 0.0
        self._ended = False
        self._paused = False
        self._full = False
        self._half_closed = False
        self._sent_early = 0
        self._advancing = False
        self._unsent = NO_LIMIT
        self._linger_end = 0.0
        self._templates: RequestTemplates = ()
        self._body_templates: RequestTemplates = ()
        self._learned = 0

    # --- the connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.take_transport(transport)
        plane = self.plane
        if self.listener.https_port:
            # Each head is parsed: none is sent to a service.
            self._learned = MAX_LEARNED
        elif not self.trusted:
            # Its requests will mostly look like those of other clients.
            cache = plane.head_cache
            self._templates, self._body_templates = cache.templates, cache.body_templates
        if plane.draining:
            # Its handshake was under way when the drain began.
            self.drain()

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self.drop_transport()
        self._ended = True
        self._buffer = b""
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            exchange.client_gone()

    def eof_received(self) -> bool:
        exchange = self.exchange
        if self._ended or self.tls is not None:
            # With TLS the client has ended both sides (RFC 5246, section 7.2.1).
            return False
        if exchange is None:
            self._half_closed = END in self._buffer
            return self._half_closed
        if exchange.phase == TUNNEL:
            exchange.client_finished()
            return True
        if not exchange.request_complete:
            return False
        # The last of the requests that arrived before the end will end the connection.
        self._half_closed = True
        self.persistent = self.persistent and bool(self._buffer)
        self.fast_path_ok = False
        half_close.HalfCloseWatcher(self, exchange).start()
        return True

    # --- reading

    def data_received(self, data: bytes) -> None:
        exchange = self.exchange
        if exchange is None:
            if self._ended:
                self.deadline = min(self._linger_end, self.plane.clock() + LINGER)
                return
            templates = self._templates if data[0] != _P else self._body_templates
            if templates and not self._buffer and not self._full:
                raw, body = data.removesuffix(END), b""
                if len(raw) == len(data):
                    raw, _, body = data.partition(END)
                if len(raw) != len(data):
                    head = match_templates(templates, raw)
                    if head is not None:
                        self._begin_fast_path(head, body)
                        return
            if self._buffer:
                data = self._buffer + data
                self._buffer = b""
            if self._full:
                # The client has to read its last response before it gets another.
                self._hold(data)
            else:
                self._advance(data)
        elif not exchange.request_complete:
            self._read_body(exchange, data)
        elif exchange.phase == TUNNEL:
            exchange.tunnel_data(data)
        else:
            self._hold(self._buffer + data)

    def _hold(self, data: bytes) -> None:
        """Hold requests that arrived before their turn; pause reading if they are many."""
        self._buffer = data
        if len(data) > READ_AHEAD:
            self.pause()

    def _advance(self, data: bytes) -> None:
        """Start requests until one has to wait for its response."""
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
                head = parse_request(data[:end], self.plane.head_cache.requests)
                self._learn(head)
                self._begin(head, data[end + 4 :])
            except BadMessage as bad:
                if not self._begin_http2(data):
                    self._reject(bad, data)
                break
            if self.exchange is not None or self._ended or self._full:
                break
            data, self._buffer = self._buffer, b""
            if not data:
                break
        self._advancing = False

    def _skip_empty_lines(self, data: bytes) -> bytes:
        """Skip a few empty lines before a request (RFC 9112, section 2.2)."""
        for _ in range(limits.LEADING_EMPTY_LINES):
            data = data.removeprefix(b"\r\n")
        return data

    def _keep_partial(self, data: bytes) -> None:
        """Keep the beginning of a head, unless it is invalid already."""
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
            self._reject(bad, data)
            return
        if not self._buffer and self._complete_at:
            # The first bytes of a further request: its head has its own deadline.
            self.deadline = self.plane.clock() + self.plane.routing.head_seconds
        self._buffer = data

    def _begin_http2(self, data: bytes) -> bool:
        """Hand the connection over if its first bytes are those of HTTP/2 with prior knowledge
        (RFC 9113, section 3.3). Return whether they are, and HTTP/2 is available."""
        create, transport = self.plane.create_http2_client, self.transport
        if create is None or transport is None or self.tls is not None or self._complete_at:
            return False
        if not data.startswith(HTTP2_PREFACE):
            return False
        self.plane.clients.discard(self)
        self._ended = True
        self.transport = None
        client = create(self.plane, self.listener, None)
        transport.set_protocol(client)
        client.connection_made(transport)
        client.data_received(data)
        return True

    def _begin(self, head: RequestHead, rest: bytes) -> None:
        """Start an exchange; `rest` is what arrived after the head."""
        plane = self.plane
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
        self.fast_path_ok = (
            persistent and not head.http10 and not self._half_closed and self.plain_heads
        )
        if self.trusted:
            self._identify(head)
        exchange = self.exchange = Exchange(plane, self, head, now)
        if self._half_closed:
            half_close.HalfCloseWatcher(self, exchange).start()
        exchange.start(piece, complete)

    def _identify(self, head: RequestHead) -> None:
        """Note which client sent a request through this trusted proxy."""
        source = self.peer
        if head.forwarded:
            source = self.plane.routing.find_client(source, head.forwarded)
            # The fast path does not ask again: from now on each head is parsed.
            self._templates = self._body_templates = ()
            self._learned = MAX_LEARNED
        self.source = source
        self.address = source.encode() or UNKNOWN

    def _begin_fast_path(self, head: RequestHead, body: bytes) -> None:
        """Start an exchange whose head matched a template; `body` is what arrived after it."""
        if len(body) != head.length:
            self._begin(head, body)
            return
        plane = self.plane
        now = plane.now = self._complete_at = plane.clock()
        exchange = self.exchange = Exchange(plane, self, head, now)
        self.persistent = not plane.draining
        self.fast_path_ok = self.persistent and self.plain_heads
        fast_path.start(exchange, body, now, self.public)

    def _learn(self, head: RequestHead) -> None:
        """Make a template of a head that was parsed. The first request of a connection does not
        count: clients often send it only once. Requests that mostly have a body have separate
        templates."""
        if not self._complete_at or self._learned >= MAX_LEARNED:
            return
        if self.trusted and head.forwarded:
            return
        self._learned += 1
        cache = self.plane.head_cache
        if head.raw[0] != _P:
            self._templates = cache.keep_templates(add_template(self._templates, head))
        else:
            self._body_templates = cache.keep_body_templates(
                add_template(self._body_templates, head)
            )

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
                why = failure.BAD_REQUEST._replace(text=bad.reason, status=bad.status)
                exchange.fail(why)
                return
            complete = reader.done
            if complete:
                self._buffer = reader.surplus
                self._reader = None
        if complete:
            self._complete_at = self.plane.clock()
        exchange.request_data(data, complete)

    def pause(self) -> None:
        transport = self.transport
        if not self._paused and transport is not None and not transport.is_closing():
            self._paused = True
            self.plane.paused_clients.add(self)
            transport.pause_reading()

    def resume(self) -> None:
        transport = self.transport
        if self._paused and transport is not None and not transport.is_closing():
            self._paused = False
            self.plane.paused_clients.discard(self)
            transport.resume_reading()

    # --- writing

    def respond(self, head: bytes, body: bytes) -> None:
        if self._sent_early:
            head = head[self._sent_early :]
            self._sent_early = 0
        if self.transport is not None:
            self.transport.write(head + body if body else head)

    def send_head(self, head: bytes) -> None:
        self.write(head)

    def write(self, data: bytes) -> None:
        if self._sent_early:
            data = data[self._sent_early :]
            self._sent_early = 0
        if self.transport is not None:
            self.transport.write(data)

    def send_first_byte(self) -> None:
        """Send the first byte of a response, which is the same for all, before there is one."""
        if self.transport is not None and not self._sent_early:
            self._sent_early = len(FIRST_BYTE)
            self.transport.write(FIRST_BYTE)

    def send_error(
        self, head: RequestHead, why: Failure, status: int, extra: bytes, *, complete: bool
    ) -> None:
        if self.transport is None:
            return
        exchange = self.exchange
        # An exchange that never sent its request has no id: the client's own is used.
        request_id = exchange.request_id if exchange is not None else b""
        request_id = request_id or head.field(b"x-request-id") or b""
        accept = head.field(b"accept") or b""
        self.persistent = self.persistent and complete and status not in (400, 408)
        response = build_response(
            status,
            why.text,
            request_id=request_id,
            as_json=prefers_json(accept),
            bodyless=head.method == b"HEAD",
            close=not self.persistent,
            extra=extra + self.plane.date_line(),
            reason_only=why.reason == CHALLENGE.reason,
        )
        self.write(response if exchange is None else own_response(exchange, response))
        self.exchange_over(self.plane.now, complete=complete)

    def _reject(self, bad: BadMessage, data: bytes) -> None:
        """Answer bytes that are not a valid request, and end the connection. As far as `data` can
        be read, it decides the form of the response."""
        if self.transport is None:
            return
        accounting.record_rejected(self.plane, self.peer, bad.status, data, bad.reason)
        lines = data[: limits.REQUEST_HEAD].partition(END)[0].split(b"\r\n")
        accept = find_field(lines, b"accept")
        self.transport.write(
            build_response(
                bad.status,
                bad.reason,
                as_json=prefers_json(accept or b""),
                bodyless=data.startswith(b"HEAD "),
                close=True,
                extra=(ALLOW if bad.status == 405 else b"") + self.plane.date_line(),
            )
        )
        self._linger()

    def pause_writing(self) -> None:
        self._full = True
        if self.exchange is not None:
            self.exchange.client_full()

    def resume_writing(self) -> None:
        self._full = False
        if self.exchange is not None:
            self.exchange.client_writable()
        elif self._buffer and not self._ended:
            self.resume()
            self._next()

    # --- a tunnel

    def open_tunnel(self) -> None:
        self.persistent = False
        self.resume()
        if self._buffer and self.exchange is not None:
            data, self._buffer = self._buffer, b""
            self.exchange.tunnel_data(data)

    def finish_tunnel(self) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self._end_own_side(self.transport)

    def _end_own_side(self, transport: asyncio.Transport) -> None:
        """Send an end of stream. TLS connections end as a whole."""
        if self.tls is None:
            transport.write_eof()
        else:
            transport.close()

    # --- from one request to the next, and the end

    def exchange_over(self, now: float, *, complete: bool) -> None:
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
            keep = exchange.service.keep_alive_timeout
        self.deadline = now + keep
        if self._buffer and not self._advancing:
            self.plane.loop.call_soon(self._next)

    def _next(self) -> None:
        """Start the next request that was held."""
        if self.exchange is None and self._buffer and not self._ended and not self._full:
            data, self._buffer = self._buffer, b""
            self._advance(data)

    def may_send_request(self) -> bool:
        return not self._ended

    def drain(self) -> None:
        self.fast_path_ok = False
        if self.exchange is None:
            self.deadline = min(self.deadline, self.plane.clock() + NEXT_REQUEST)

    def close(self) -> None:
        self._ended = True
        self.exchange = None
        now = self.plane.now
        self.deadline = self._linger_end = now + FLUSH
        if self.tls is not None:
            # Once everything is sent, a client that does not answer the end of TLS is not waited
            # for.
            self.deadline = now + LINGER
        if self.transport is not None:
            self.transport.close()

    def break_off(self, *, abruptly: bool) -> None:
        self.exchange = None
        if abruptly and self.transport is not None:
            half_close.end_by_reset(self.transport)
            self.abort()
            return
        self.close()

    def abort(self) -> None:
        self._ended = True
        if self.transport is not None:
            self.transport.abort()

    def _linger(self) -> None:
        """Close our side, and read the client's for a moment, so that no reset overtakes the
        response."""
        self._ended = True
        self.exchange = None
        self._buffer = b""
        now = self.plane.clock()
        self.deadline, self._linger_end = now + LINGER, now + LINGER_MAX
        transport = self.transport
        if transport is not None and not transport.is_closing():
            self.resume()
            if self.tls is None:
                transport.write_eof()

    def expire(self, now: float) -> None:
        exchange = self.exchange
        self.deadline = NEVER
        if exchange is not None:
            exchange.expire(now)
        elif self._ended:
            self._expire_ended(now)
        elif self._buffer:
            late = BadMessage(failure.SLOW_HEAD.status, failure.SLOW_HEAD.text)
            self._reject(late, self._buffer)
        elif not self._is_still_reading():
            self.close()

    def _expire_ended(self, now: float) -> None:
        """End a connection whose end took too long. After lingering a TLS connection still has to
        say that it ends, and a slow client may take the rest of its response."""
        transport = self.transport
        if self.tls is None or transport is None:
            self.abort()
        elif not transport.is_closing():
            self.close()
        elif now < self._linger_end and self.has_unsent_bytes():
            self.deadline = now + LINGER
        else:
            self.abort()

    def _is_still_reading(self) -> bool:
        """Whether a slow client took a part of its last response since the last check. If so, it
        gets another keep-alive time."""
        size = self.transport.get_write_buffer_size() if self.transport is not None else 0
        slow = 0 < size < self._unsent
        self._unsent = size if slow else NO_LIMIT
        if slow:
            self.deadline = self.plane.now + KEEP_ALIVE
        return slow
