"""One HTTP/2 connection of a client: turns its streams into exchanges, and ends in an orderly way.

Created after a TLS handshake that chose HTTP/2, or by `proxy.request.downstream` for a client that
begins with it. It owns the codec and the streams (`proxy.http2_downstream.stream`). Requests take
the form of HTTP/1.1 here, so that everything behind it is the same for both versions.
"""

import asyncio
from typing import TYPE_CHECKING, Final

from proxy.http1 import limits
from proxy.http1.accept import prefers_json
from proxy.http1.fields import BadMessage
from proxy.http1.partial import check_request_size
from proxy.http1.request import END, RequestHead, parse_request
from proxy.http1.request_template import RequestTemplates, add_template, match_templates
from proxy.http1.rewrite import ALLOW, build_response
from proxy.http2.abuse import FrameBudget
from proxy.http2.codec import (
    Codec,
    ConnectionClosed,
    ConnectionFailed,
    DataReceived,
    ErrorCode,
    Event,
    GoAwayReceived,
    PingAcknowledged,
    PingReceived,
    PriorityUpdateReceived,
    RequestReceived,
    SettingsReceived,
    StreamClosed,
    StreamReset,
    TrailersReceived,
    WindowUpdated,
)
from proxy.http2.frames import FINE, FrameGuard
from proxy.http2.output import write_output
from proxy.http2.request import Field, RequestTranslator
from proxy.http2_downstream.stream import UNSENT_LOW, Http2Stream, websocket_key
from proxy.request import accounting, fast_path
from proxy.request.client_connection import UNKNOWN, ClientConnection
from proxy.request.sinks import NEVER
from proxy.tls.session_info import TlsSession
from proxy.wire.snapshot import Listener

if TYPE_CHECKING:
    from proxy.request.data_plane import DataPlane

KEEP_ALIVE: Final = 75.0
"""Seconds without a stream if the last one belonged to no service: the default of nginx."""
UNSENT_HIGH: Final = 64 * 1024
"""Bytes of one response that wait for the client above which its upstream is not read."""
UNSENT_TOTAL: Final = 1024 * 1024
"""Bytes of all responses of a connection that wait; with more, `UNSENT_LOW` takes the place of
`UNSENT_HIGH`."""
FLUSH: Final = 60.0
"""Seconds for which a client may take no byte of what is written."""
LEAVE: Final = 1.0
"""Seconds after the first GOAWAY in which a client that does not answer PING may open streams."""
LINGER: Final = 2.0
"""Seconds for which a connection that has ended is still read, so that no reset overtakes its last
bytes."""
MAX_LEARNED: Final = 16
"""Heads of a connection from which templates are made."""

# Stages of the connection.
_NEW: Final = 0
"""Its preface has not arrived."""
_OPEN: Final = 1
"""Streams are served."""
_LEAVING: Final = 2
"""The client was asked to open no more streams; those on their way are served."""
_LAST_STREAMS: Final = 3
"""No more streams are accepted."""
_ENDED: Final = 4
"""What arrives is dropped."""


_CONTROL: Final = (WindowUpdated, PingReceived, PriorityUpdateReceived)
"""Events that the codec has acted on; only their number matters."""


class Http2Connection(ClientConnection):
    """An HTTP/2 connection of a client. As a `ClientSink` it has no exchange; its streams have one.

    It has the methods of an `asyncio.Protocol` without the base class, so that it can be compiled
    to a native class.

    - `codec`: its frames.
    - `streams`: open streams by id.
    """

    __slots__ = (
        "_budget",
        "_client_ends",
        "_full",
        "_guard",
        "_keep_alive",
        "_learned",
        "_reading",
        "_scheduled",
        "_stage",
        "_templates",
        "_templates_with_body",
        "_touched",
        "_translator",
        "_unsent",
        "codec",
        "streams",
    )

    def __init__(
        self, plane: "DataPlane", listener: Listener, tls: TlsSession | None = None
    ) -> None:
        super().__init__(plane, listener, tls)
        self.fast_path_ok = self.plain_heads
        self.codec = Codec(is_server=True)
        self.streams: dict[int, Http2Stream] = {}
        self._budget = FrameBudget(plane.clock())
        self._client_ends = False
        self._guard = FrameGuard()
        self._touched: set[Http2Stream] = set()
        self._stage = _NEW
        self._full = False
        self._reading = False
        self._scheduled = False
        self._unsent = 0
        self._keep_alive = KEEP_ALIVE
        self._templates: RequestTemplates = ()
        self._templates_with_body: RequestTemplates = ()
        self._learned = 0
        self._translator = RequestTranslator()

    # --- the connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.take_transport(transport)
        plane = self.plane
        if self.listener.https_port:
            # Each head is parsed: none is sent to a service.
            self._learned = MAX_LEARNED
        else:
            cache = plane.head_cache
            self._templates = cache.http2_templates
            self._templates_with_body = cache.http2_body_templates
        if plane.draining:
            self.drain()
        self.flush()

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self.drop_transport()
        self._stage = _ENDED
        self._end_streams()

    def eof_received(self) -> bool:
        return False

    # --- reading

    def data_received(self, data: bytes) -> None:
        if self._stage == _ENDED:
            return
        plane = self.plane
        now = plane.now = plane.clock()
        self._reading = True
        try:
            guard = self._guard
            code = guard.scan(data)
            if code != FINE:
                self._handle(self.codec.receive(data[: guard.accepted]), now)
                self.codec.terminate(code)
            else:
                if guard.ignored and not self._budget.take_controls(guard.ignored, now):
                    self._punish()
                self._handle(self.codec.receive(data), now)
        except ConnectionFailed as failed:
            self._fail(failed)
        self._reading = False
        self.flush()

    def _handle(self, events: list[Event], now: float) -> None:
        """Act on events in their order."""
        index = 0
        count = len(events)
        while index < count:
            event = events[index]
            index += 1
            if isinstance(event, RequestReceived):
                body: DataReceived | None = None
                if index < count and not event.end_stream:
                    following = events[index]
                    if (
                        isinstance(following, DataReceived)
                        and following.end_stream
                        and following.stream_id == event.stream_id
                    ):
                        body = following
                        index += 1
                self._begin(event, body, now)
            elif isinstance(event, StreamClosed):
                self._close_stream(event.stream_id, now)
            elif isinstance(event, DataReceived):
                self._read_data(event, now)
            else:
                self._handle_rare(event, now)

    def _handle_rare(self, event: Event, now: float) -> None:
        """Act on an event that few requests have."""
        acceptable = True
        if isinstance(event, _CONTROL):
            acceptable = self._budget.take_control(now)
        elif isinstance(event, SettingsReceived):
            acceptable = self._budget.take_control(now)
            if self._stage == _NEW:
                self._stage = _OPEN
                self.deadline = now + KEEP_ALIVE
        elif isinstance(event, TrailersReceived):
            stream = self.streams.get(event.stream_id)
            if stream is not None:
                stream.trailers_received(event.headers)
        elif isinstance(event, StreamReset):
            # `StreamClosed` follows.
            stream = self.streams.get(event.stream_id)
            if stream is not None and stream.exchange is not None:
                acceptable = self._budget.take_reset(now)
        elif isinstance(event, PingAcknowledged):
            if self._stage == _LEAVING:
                self._take_last_streams()
        elif isinstance(event, GoAwayReceived):
            self._client_ends = True
        elif isinstance(event, ConnectionClosed):
            if event.error_code and not self._client_ends and self._stage != _ENDED:
                text = event.debug_data.decode("ascii", "replace")
                self._record_rejected(text or f"error {event.error_code} of HTTP/2")
            self._end()
        if not acceptable:
            self._punish()

    def _begin(self, event: RequestReceived, body: DataReceived | None, now: float) -> None:
        """Start the exchange of a request; `body` is its whole body if it has arrived."""
        if self._stage == _ENDED:
            return
        number, complete = event.stream_id, event.end_stream
        codec, plane = self.codec, self.plane
        codec.last_stream = number
        self._budget.earn()
        stream = Http2Stream(self, number)
        self.streams[number] = stream
        plane.stream_begun(stream)
        self.deadline = NEVER
        fields = event.headers
        head: RequestHead | None = None
        try:
            raw = self._translator.translate(fields, complete, websocket_key)
            templates = self._templates if complete else self._templates_with_body
            if templates:
                head = match_templates(templates, raw)
            matched = head is not None
            if head is None:
                if len(raw) > limits.REQUEST_LINE:
                    check_request_size(raw)
                head = parse_request(raw, plane.head_cache.requests)
                self._learn(head)
        except BadMessage as bad:
            self._refuse(stream, fields, bad, complete=complete or body is not None)
            return
        head.http2 = True
        head.takes_chunks = False
        source, address = self.peer, self.address
        if self.trusted and head.forwarded:
            source = plane.routing.find_client(source, head.forwarded)
            address = source.encode() or UNKNOWN
            matched = False
        stream.request_ended = complete or body is not None
        exchange = stream.prepare(head, source, address)
        if complete:
            if matched:
                fast_path.start(exchange, b"", now, self.public)
            else:
                exchange.start(b"", True)
        elif body is None or head.upgrade:
            # The handshake of a WebSocket has no body; what follows belongs to the tunnel.
            exchange.start(b"", bool(head.upgrade))
            if body is not None:
                stream.data_received(body.data, complete=True)
        else:
            data = body.data
            piece = stream.encode(data, complete=True)
            if matched and len(piece) == head.length:
                fast_path.start(exchange, piece, now, self.public)
            else:
                exchange.start(piece, True)
            codec.consume(number, len(data))

    def _learn(self, head: RequestHead) -> None:
        """Make a template of a head that was parsed."""
        if self._learned >= MAX_LEARNED or (self.trusted and head.forwarded):
            return
        self._learned += 1
        cache = self.plane.head_cache
        if head.length:
            known = add_template(self._templates_with_body, head)
            self._templates_with_body = cache.http2_body_templates = known
        else:
            self._templates = cache.http2_templates = add_template(self._templates, head)

    def _refuse(
        self,
        stream: Http2Stream,
        fields: tuple[Field, ...],
        bad: BadMessage,
        *,
        complete: bool,
    ) -> None:
        """Answer a request that is not valid."""
        plane = self.plane
        known = dict(fields)
        method = known.get(b":method", b"")
        accounting.record_rejected(plane, self.peer, bad.status, request_line(known), bad.reason)
        head, _, body = build_response(
            bad.status,
            bad.reason,
            as_json=prefers_json(known.get(b"accept", b"")),
            bodyless=method == b"HEAD",
            extra=(ALLOW if bad.status == 405 else b"") + plane.date_line(),
        ).partition(END)
        stream.request_ended = complete
        stream.respond_once(plane.head_cache.response_fields.translate(head), body)
        stream.close()
        if not complete and bad.status == 400:
            stream.reset_code = ErrorCode.PROTOCOL_ERROR

    def _read_data(self, event: DataReceived, now: float) -> None:
        data, complete = event.data, event.end_stream
        if data:
            self._budget.earn()
        elif not complete and not self._budget.take_control(now):
            self._punish()
        stream = self.streams.get(event.stream_id)
        if stream is None:
            self.codec.consume(event.stream_id, len(data))
        else:
            stream.data_received(data, complete=complete)

    def _close_stream(self, number: int, now: float) -> None:
        """Forget a stream that has ended on both sides, or that was reset. One that is unknown was
        refused by the codec: its request was not valid."""
        stream = self.streams.pop(number, None)
        if stream is None:
            # The code is that of the client if it reset the stream before it got ours.
            if self._stage != _ENDED:
                self._record_rejected("a request that HTTP/2 forbids")
            return
        self.plane.stream_over(stream)
        self._touched.discard(stream)
        stream.client_gone()
        if not self.streams and self._stage == _OPEN:
            self.deadline = now + self._keep_alive

    # --- called by streams

    def set_keep_alive(self, seconds: float) -> None:
        """Set how long the connection may be without streams."""
        self._keep_alive = seconds

    def count_sent(self, stream: Http2Stream) -> None:
        """Look at a stream after the next flush: it has sent a piece of its response, or ends."""
        self._budget.earn()
        self._touched.add(stream)

    def schedule_flush(self) -> None:
        """Send what the codec has, at the end of this turn of the event loop: other streams may
        have something to send too."""
        if not self._scheduled and not self._reading:
            self._scheduled = True
            self.plane.loop.call_soon(self.flush)

    # --- writing

    def flush(self) -> None:
        """Send what the codec has, as far as the transport takes it."""
        self._scheduled = False
        codec = self.codec
        more = True
        try:
            while more:
                while self.transport is not None and not self._full and self._stage != _ENDED:
                    if not write_output(codec, self.transport):
                        break
                events = codec.events()
                if events:
                    self._handle(events, self.plane.now)
                more = bool(self._touched) and self._update_streams()
        except ConnectionFailed as failed:
            self._fail(failed)

    def _update_streams(self) -> bool:
        """Hold or release the upstreams of streams that have sent something. Return whether there
        is more to flush."""
        codec = self.codec
        high = UNSENT_HIGH if codec.unsent_on_all() < UNSENT_TOTAL else UNSENT_LOW
        more = False
        for stream in tuple(self._touched):
            unsent = codec.unsent(stream.number)
            stream.update_held(unsent, high)
            if stream.reset_code >= 0 and stream.exchange is None:
                if not unsent and not self._full and codec.may_send_data(stream.number):
                    codec.reset(stream.number, stream.reset_code)
                    self._touched.discard(stream)
                    more = True
            elif not stream.held:
                self._touched.discard(stream)
        return more

    def pause_writing(self) -> None:
        self._full = True
        transport = self.transport
        if transport is not None and not transport.is_closing():
            self._unsent = transport.get_write_buffer_size()
            self.deadline = self.plane.now + FLUSH
            self.plane.paused_clients.add(self)
            transport.pause_reading()

    def resume_writing(self) -> None:
        self._full = False
        transport = self.transport
        if transport is not None and not transport.is_closing():
            self.deadline = NEVER if self.streams else self.plane.now + self._keep_alive
            self.plane.paused_clients.discard(self)
            transport.resume_reading()
        self.flush()

    # --- the end

    def _punish(self) -> None:
        """End the connection of a client that sends a flood."""
        self.codec.terminate(ErrorCode.ENHANCE_YOUR_CALM)

    def _record_rejected(self, detail: str) -> None:
        """Count and log a request, or other bytes, that the codec refused. Its fields are not
        known."""
        accounting.record_rejected(self.plane, self.peer, 400, b"  HTTP/2", detail)

    def _fail(self, failed: ConnectionFailed) -> None:
        if self._stage != _ENDED:
            for event in self.codec.events():
                # Requests before the error: the last GOAWAY says that none of them is served.
                if isinstance(event, RequestReceived):
                    line = request_line(dict(event.headers))
                    accounting.record_rejected(self.plane, self.peer, 400, line, str(failed))
            self._record_rejected(str(failed))
        if self.transport is not None:
            self.transport.write(failed.last_bytes)
        self._end()

    def _end(self) -> None:
        """End the connection: what is written is still sent, what arrives is dropped."""
        if self._stage == _ENDED:
            return
        self._stage = _ENDED
        self._end_streams()
        transport = self.transport
        if transport is None:
            return
        self.deadline = self.plane.clock() + LINGER
        if self.tls is not None:
            transport.close()
        elif not transport.is_closing():
            transport.write_eof()

    def _end_streams(self) -> None:
        streams = tuple(self.streams.values())
        self.streams.clear()
        self._touched.clear()
        for stream in streams:
            self.plane.stream_over(stream)
            stream.client_gone()

    def _take_last_streams(self) -> None:
        """Accept no more streams. The connection ends with the last of those before."""
        self._stage = _LAST_STREAMS
        self.deadline = NEVER
        self.codec.end()
        self.schedule_flush()

    def drain(self) -> None:
        if self._stage >= _LEAVING:
            return
        self._stage = _LEAVING
        self.deadline = self.plane.clock() + LEAVE
        self.codec.announce_end()
        self.schedule_flush()

    def expire(self, now: float) -> None:
        transport = self.transport
        self.deadline = NEVER
        if transport is None:
            return
        if self._stage == _ENDED or self._stage == _NEW:
            self.abort()
        elif self._full:
            unsent = transport.get_write_buffer_size()
            if unsent < self._unsent:
                self._unsent = unsent
                self.deadline = now + FLUSH
            else:
                self.abort()
        elif self._stage == _LEAVING:
            self._take_last_streams()
        elif not self.streams:
            self.drain()

    def end_if_overdue(self, now: float, waited: float, requests: float, tunnels: float) -> None:
        del now, tunnels
        # Its streams end by themselves.
        if waited >= requests and not self.streams:
            self.abort()

    def abort(self) -> None:
        self._stage = _ENDED
        if self.transport is not None:
            self.transport.abort()

    def may_send_request(self) -> bool:
        return self._stage != _ENDED


def request_line(fields: dict[bytes, bytes]) -> bytes:
    """Return the request line for the access log, by the fields of a request."""
    return b"%b %b HTTP/2" % (fields.get(b":method", b""), fields.get(b":path", b""))
