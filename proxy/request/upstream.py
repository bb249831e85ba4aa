"""One connection to an endpoint: writes the bytes of a request, reads one response at a time.

`DataPlane.connect` creates it for an attempt; between requests `proxy.request.connection_pool`
keeps it in `EndpointState.idle`. It knows how responses are framed and reports what it reads to a
`ResponseSink`, which decides what to do. It returns to the pool only after a response that ended
where its framing said, with no bytes after it.
"""

import asyncio
import os
from typing import TYPE_CHECKING, Final, cast

from proxy.http1 import chunked, limits
from proxy.http1.chunked import ChunkedReader
from proxy.http1.fields import BadMessage
from proxy.http1.framing import CHUNKED, UNTIL_CLOSE
from proxy.http1.partial import check_partial
from proxy.http1.request import END
from proxy.http1.response import ResponseHead
from proxy.peer.routes import PEER_SECONDS
from proxy.request import connection_pool, fast_path, half_close, reachability
from proxy.request.sinks import IN_CHUNKS, REJECTED, ClientSink, ResponseSink
from proxy.state.endpoint_state import EndpointState
from proxy.transport.upstream_tls import TlsFailed, describe_refusal

if TYPE_CHECKING:
    from proxy.request.data_plane import DataPlane
    from proxy.request.exchange import Exchange

WRITE_HIGH: Final = 64 * 1024
"""Bytes in the write buffer above which the request's body is paused."""
IDLE_MARGIN: Final = 1.0
"""Seconds by which an idle connection is closed before the endpoint would close it."""
_VERSION: Final = b"HTTP/1."

# What the next bytes are.
IDLE: Final = 0
HEAD: Final = 1
SIZED: Final = 2
CHUNKS: Final = 3
TO_THE_END: Final = 4
TUNNEL: Final = 5


class Upstream:
    """A connection to an endpoint.

    It has the methods of an `asyncio.Protocol` without the base class, so that it can be compiled
    to a native class.

    - `endpoint`: where it leads.
    - `client`: the client whose requests alone it carries; None for those of any.
    - `sink`: what it reports to; None while it is idle or given up.
    - `fast_path_sink`: the exchange whose response may take the fast path, or None.
    - `transport`: None while it is being opened.
    - `closing`: whether it is closed or about to be.
    - `paused`: whether reading is paused.
    - `reading`: what the next bytes are.
    - `requests`: number of requests written.
    - `idle_since`, `idle_until`: monotonic seconds, valid while it is idle.
    - `idle_limit`: seconds for which it may be idle.
    """

    __slots__ = (
        "_buffer",
        "_counted",
        "_encode",
        "_head",
        "_interim",
        "_left",
        "_plane",
        "_reader",
        "_task",
        "client",
        "closing",
        "endpoint",
        "fast_path_sink",
        "idle_limit",
        "idle_since",
        "idle_until",
        "paused",
        "reading",
        "requests",
        "sink",
        "transport",
    )

    def __init__(
        self,
        plane: "DataPlane",
        endpoint: EndpointState,
        sink: ResponseSink,
        client: ClientSink | None = None,
    ) -> None:
        self._plane = plane
        self.endpoint = endpoint
        self.client = client
        self.sink: ResponseSink | None = sink
        self.fast_path_sink: Exchange | None = None
        self.transport: asyncio.Transport | None = None
        self._task: asyncio.Task[None] | None = None
        self.closing = False
        self._counted = True
        self.paused = False
        self.requests = 0
        self.idle_since = 0.0
        self.idle_until = 0.0
        self.idle_limit = endpoint.idle_seconds
        self.reading = IDLE
        self._buffer = b""
        self._left = 0
        self._interim = 0
        self._encode = False
        self._reader: ChunkedReader | None = None
        self._head: ResponseHead | None = None

    # --- opening and closing

    def open(self) -> None:
        """Start to open the connection. `connection_made` or `dial_failed` follows."""
        loop = self._plane.loop
        self.endpoint.count_opening(1)
        endpoint = self.endpoint
        protocol = cast("asyncio.Protocol", self)
        self._task = loop.create_task(
            connection_pool.dial(
                loop, endpoint, self.client, protocol, self.dial_failed, endpoint.tls
            )
        )

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.transport.set_write_buffer_limits(high=WRITE_HIGH)
        self._opened()
        if self.endpoint.peer is not None:
            self._plane.loop.call_later(PEER_SECONDS, self.retire)
        if self.sink is None:
            # It was given up at the very moment in which it opened.
            self.closing = True
            self.transport.abort()
        else:
            self.sink.connected(self)

    def dial_failed(self, error: OSError) -> None:
        """Report that the connection could not be opened."""
        self._opened()
        if self.closing:
            return
        self.closing = True
        self._forget()
        reachability.connection_ended(self._plane, self.endpoint, error)
        sink, self.sink = self.sink, None
        if sink is not None:
            sink.connect_failed(error)

    def _opened(self) -> None:
        """Note that the connection is open, or will not be."""
        if self._task is not None:
            self._task = None
            self.endpoint.count_opening(-1)

    def discard(self) -> None:
        """Close at once, in whatever state it is. The sink hears no more of it."""
        self.sink = None
        if self.closing:
            return
        self.closing = True
        if self._task is not None:
            self._task.cancel()
            self._opened()
        if self.transport is not None:
            if self.transport.get_write_buffer_size():
                # The endpoint would not see a clean end behind bytes that it does not read.
                half_close.end_by_reset(self.transport)
            self.transport.abort()
        else:
            self._forget()

    def timed_out(self, since: float) -> None:
        """Take note that its request has got no answer since `since`, in monotonic seconds. The
        exchange discards it, which closes a connection of HTTP/1.1."""

    def close(self) -> None:
        """Close once everything written is sent. The sink hears no more of it."""
        self.sink = None
        self.closing = True
        if self.transport is not None:
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._learn_idle_limit()
        self.closing = True
        self._forget()
        if exc is not None:
            reachability.connection_ended(self._plane, self.endpoint, exc)
            if self.sink is not None and self.endpoint.tls is None and self.endpoint.peer is None:
                self._read_unread()
        sink, self.sink = self.sink, None
        if sink is None:
            return
        if self.endpoint.tls is not None and self.reading == HEAD and self.requests == 1:
            refusal = describe_refusal(exc)
            if refusal:
                # It ended the handshake, and has not read the request.
                sink.connect_failed(TlsFailed(refusal))
                return
        if self.reading == TO_THE_END and exc is None:
            sink.response_end(chunked.LAST_CHUNK if self._encode else b"", reusable=False)
        else:
            sink.upstream_lost(answering=self.reading > HEAD or bool(self._buffer))

    def _learn_idle_limit(self) -> None:
        """Learn from an end that the endpoint made: while it was idle, or as the request that ended
        its idle time arrived."""
        if self.closing or not self.requests or self._buffer:
            return
        now = self._plane.clock()
        if self.sink is None or (self.reading == HEAD and self.requests > 1):
            self.endpoint.idle_age.saw_close(now - self.idle_since, now)

    def _forget(self) -> None:
        """Stop counting the connection, and take it out of the pool if it is there."""
        if self._counted:
            self._counted = False
            self.endpoint.count_connections(-1)
            self._plane.descriptors.count_to_endpoints(-1)
        if self in self.endpoint.idle:
            self.endpoint.idle.remove(self)

    def _read_unread(self) -> None:
        """Read what the endpoint sent before its end: an early response and a reset behind it. A
        write that fails ends the transport with these bytes still unread."""
        sock = self.transport.get_extra_info("socket") if self.transport is not None else None
        left = limits.RESPONSE_HEAD
        while sock is not None and self.sink is not None and left > 0:
            try:
                data = os.read(sock.fileno(), left)
            except OSError:
                return
            if not data:
                return
            left -= len(data)
            self.data_received(data)

    def eof_received(self) -> bool:
        sink = self.sink
        if sink is None:
            # It must carry no more requests, not even one of this turn of the event loop.
            self._learn_idle_limit()
            self.discard()
        elif self.reading == TUNNEL:
            sink.upstream_finished()
            # The end of one direction of a TLS connection is that of both.
            return self.endpoint.tls is None
        return False

    # --- between requests

    def make_idle(self, now: float) -> None:
        """Detach it from its sink after a complete response."""
        if self.paused:
            # The client was slow to take the end of the response. While paused, the connection
            # would neither notice that the endpoint closes it nor read the next response.
            self.resume()
        self.sink = None
        self.reading = IDLE
        self.idle_since = now
        self.idle_until = now + self.idle_limit

    def report_to(self, sink: ResponseSink) -> None:
        """Report to another sink from now on."""
        self.sink = sink

    def limit_idle(self, seconds: float) -> None:
        """Apply the idle timeout that the endpoint announced, in seconds."""
        self.idle_limit = min(self.endpoint.idle_seconds, self.idle_limit, seconds - IDLE_MARGIN)

    def retire(self) -> None:
        """Carry no request after the one under way."""
        self.idle_limit = 0.0
        connection_pool.close_unused(self.endpoint, self)

    # --- writing

    def send(self, sink: ResponseSink, data: bytes) -> None:
        """Write the first bytes of a request."""
        assert self.transport is not None
        self.sink = sink
        self.reading = HEAD
        self.requests += 1
        self.transport.write(data)

    def write(self, data: bytes) -> None:
        """Write more of a request's body, or through a tunnel."""
        if self.transport is not None:
            self.transport.write(data)

    def finish(self) -> None:
        """Write no more through a tunnel."""
        transport = self.transport
        if transport is not None and not transport.is_closing() and transport.can_write_eof():
            transport.write_eof()

    def pause_writing(self) -> None:
        # Only the slow path handles a response that comes before the request is written.
        self.fast_path_sink = None
        if self.sink is not None:
            self.sink.upstream_full()

    def resume_writing(self) -> None:
        if self.sink is not None:
            self.sink.upstream_writable()

    # --- reading

    def pause(self) -> None:
        """Stop reading."""
        transport = self.transport
        if not self.paused and transport is not None and not transport.is_closing():
            self.paused = True
            transport.pause_reading()

    def resume(self) -> None:
        """Read again."""
        transport = self.transport
        if self.paused and transport is not None and not transport.is_closing():
            self.paused = False
            transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        sink = self.sink
        if sink is None:
            # No request is under way, so these bytes are the response to none.
            self.discard()
            return
        exchange = self.fast_path_sink
        if exchange is not None:
            self.fast_path_sink = None
            if exchange is sink and fast_path.pass_response(exchange, self, data):
                return
        reading = self.reading
        if reading == HEAD:
            self._read_head(sink, data)
        elif reading == SIZED:
            left = self._left - len(data)
            if left > 0:
                self._left = left
                sink.response_data(data)
            else:
                self._finish(sink, data[: self._left], surplus=left < 0)
        elif reading == CHUNKS:
            self._read_chunks(sink, data)
        else:
            sink.response_data(chunked.encode_chunk(data) if self._encode else data)

    def _read_head(self, sink: ResponseSink, data: bytes) -> None:
        if self._buffer:
            data = self._buffer + data
            self._buffer = b""
        cache = self._plane.head_cache
        while True:
            end = data.find(END)
            if end < 0:
                self._keep_partial(sink, data)
                return
            raw = data[:end]
            try:
                head = cache.read_response(raw, self.endpoint.response_templates)
            except BadMessage as bad:
                sink.bad_response(bad.reason)
                return
            if head.keep_alive_timeout:
                self.limit_idle(head.keep_alive_timeout)
            body = data[end + 4 :]
            if head.status >= 200 or head.status == 101:
                break
            self._interim += 1
            if self._interim > limits.INTERIM_RESPONSES:
                sink.bad_response("too many interim responses")
                return
            sink.interim_response(head)
            if not body:
                return
            data = body
        self._interim = 0
        self._head = head
        if head.status == 101:
            if sink.switch_protocols(head):
                self.reading = TUNNEL
                self._encode = False
                if body:
                    sink.response_data(body)
        elif head.body_length == len(body) and not sink.bodyless:
            sink.whole_response(head, body, reusable=head.persistent)
        else:
            self._begin_body(sink, head, body)

    def _begin_body(self, sink: ResponseSink, head: ResponseHead, body: bytes) -> None:
        length = 0 if sink.bodyless else head.body_length
        if length >= 0:
            left = length - len(body)
            if left <= 0:
                sink.whole_response(
                    head,
                    body if not left else body[:length],
                    reusable=not left and head.persistent,
                )
                return
            self.reading = SIZED
            self._left = left
        elif length == CHUNKED:
            self.reading = CHUNKS
        else:
            self.reading = TO_THE_END
        form = sink.response_head(head, until_close=length == UNTIL_CLOSE)
        if form == REJECTED:
            return
        # The sink may have handed the connection to another one, as a hedge that wins does.
        sink = self.sink or sink
        self._encode = form == IN_CHUNKS
        if length == CHUNKED:
            self._reader = ChunkedReader(raw=self._encode)
            if body:
                self._read_chunks(sink, body)
        elif body:
            if length == UNTIL_CLOSE and self._encode:
                body = chunked.encode_chunk(body)
            sink.response_data(body)

    def _keep_partial(self, sink: ResponseSink, data: bytes) -> None:
        known = min(len(data), len(_VERSION))
        if data[:known] != _VERSION[:known]:
            sink.bad_response("an answer that is not HTTP/1")
            return
        if len(data) > limits.RESPONSE_HEAD:
            sink.bad_response("a response head that is too long")
            return
        try:
            check_partial(data)
        except BadMessage as bad:
            sink.bad_response(bad.reason)
            return
        self._buffer = data

    def _read_chunks(self, sink: ResponseSink, data: bytes) -> None:
        reader = self._reader
        assert reader is not None
        try:
            out = reader.feed(data)
        except BadMessage as bad:
            sink.bad_response(bad.reason)
            return
        if reader.done:
            if not self._encode and reader.trailers:
                sink.response_trailers(reader.trailers)
            self._finish(sink, out, surplus=bool(reader.surplus))
        elif out:
            sink.response_data(out)

    def _finish(self, sink: ResponseSink, last: bytes, *, surplus: bool) -> None:
        self._reader = None
        head = self._head
        assert head is not None
        sink.response_end(last, reusable=head.persistent and not surplus)
