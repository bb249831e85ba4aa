"""One HTTP/2 connection to an endpoint: opens streams on it, and passes on what arrives for each.

`proxy.http2_upstream.pool` creates it. It owns the codec and the streams
(`proxy.http2_upstream.stream`). Streams wait for the peer's SETTINGS, which limit how many there
may be at a time; for the rest another connection is opened. After its GOAWAY no more are opened,
and those that it did not process are sent elsewhere.
"""

import asyncio
from typing import TYPE_CHECKING, Final, cast

from proxy.http2.codec import (
    Codec,
    ConnectionClosed,
    ConnectionFailed,
    DataReceived,
    ErrorCode,
    Event,
    GoAwayReceived,
    InformationalResponseReceived,
    ResponseReceived,
    SettingsReceived,
    StreamClosed,
    StreamReset,
    TrailersReceived,
)
from proxy.http2.output import write_output
from proxy.http2_upstream.stream import UpstreamStream
from proxy.peer.routes import PEER_SECONDS
from proxy.request import connection_pool, reachability
from proxy.request.upstream import Upstream
from proxy.transport.upstream_tls import TlsFailed, describe_refusal

if TYPE_CHECKING:
    from proxy.http2_upstream.pool import Http2Pool
    from proxy.request.sinks import ResponseSink

WRITE_HIGH: Final = 64 * 1024
"""Bytes in the write buffer above which the codec keeps its frames."""
MOST_STREAMS: Final = 100
"""Streams on one connection at most, if the peer allows them: more than that share too much of one
flow control window."""
PING_SECONDS: Final = 2.0
"""Seconds for the answer to a PING, or anything else, from an endpoint that seems silent."""
_MAX_CONCURRENT_STREAMS: Final = 3
"""Identifier of the setting (RFC 9113, section 6.5.2)."""
_MAX_STREAM: Final = (1 << 31) - 1001
"""The last stream id that is used: a little below the largest one."""


class Http2UpstreamConnection:
    """A connection. It has the methods of an `asyncio.Protocol` without the base class, so that it
    can be compiled to a native class.

    - `pool`: the pool that it belongs to.
    - `codec`: its frames.
    - `scheme`, `authority`: scheme of its requests, and name of the endpoint for requests without
      Host.
    """

    def __init__(self, pool: "Http2Pool") -> None:
        self.pool = pool
        self.codec = Codec(is_server=False)
        where = pool.endpoint.endpoint
        host = f"[{where.host}]" if ":" in where.host else where.host or "localhost"
        self.scheme = b"http" if pool.tls is None else b"https"
        self.authority = f"{host}:{where.port}".encode()
        self._transport: asyncio.Transport | None = None
        self._task: asyncio.Task[None] | None = None
        self._waiting: list[UpstreamStream] = []
        self._streams: dict[int, UpstreamStream] = {}
        self._held: set[UpstreamStream] = set()
        self._claimed = 0
        self._most = pool.most_streams
        self._is_ready = False
        self._leaving = False
        self._ended = False
        self._full = False
        self._scheduled = False
        self._reading = False
        self._is_proven = False
        self._is_silent = False
        self._has_refused = False
        self._received_at = 0.0
        self._idle_until = 0.0

    # --- opening and closing

    def open(self) -> None:
        """Start to open the connection."""
        pool = self.pool
        pool.endpoint.count_connections(1)
        pool.endpoint.count_opening(1)
        pool.plane.descriptors.count_to_endpoints(1)
        protocol = cast("asyncio.Protocol", self)
        self._task = pool.plane.loop.create_task(
            connection_pool.dial(
                pool.plane.loop, pool.endpoint, None, protocol, self.dial_failed, pool.tls
            )
        )

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._opened()
        made = cast("asyncio.Transport", transport)
        if self._ended:
            self._waiting = []
            made.abort()
            return
        connection = made.get_extra_info("ssl_object")
        if self.pool.tls is not None and connection.selected_alpn_protocol() != "h2":
            waiting, self._waiting = self._waiting, []
            self._use_http1(made, waiting)
            return
        self._transport = made
        made.set_write_buffer_limits(high=WRITE_HIGH)
        if self.pool.endpoint.peer is not None:
            self.pool.plane.loop.call_later(PEER_SECONDS, self._retire)
        self.flush()
        self._rest()

    def _use_settings(self) -> None:
        """Apply the peer's limit of streams. With its first SETTINGS, open those that wait, as far
        as it allows, and send the others elsewhere."""
        most = self.codec.peer_settings().get(_MAX_CONCURRENT_STREAMS, MOST_STREAMS)
        # An endpoint that allows none for now will: the codec keeps the request until then.
        self._most = self.pool.most_streams = max(1, min(most, MOST_STREAMS))
        self._is_proven = True
        if self._is_ready:
            return
        self._is_ready = True
        waiting, self._waiting = self._waiting, []
        for stream in waiting[: self._most]:
            stream.connected()
        for stream in waiting[self._most :]:
            stream.connection_full()

    def _use_http1(self, transport: asyncio.Transport, waiting: list[UpstreamStream]) -> None:
        """Serve the waiting streams by connections of HTTP/1.1, or fail them."""
        pool = self.pool
        self._end()
        if not pool.is_optional:
            transport.abort()
            for stream in waiting:
                stream.connect_failed(TlsFailed("it does not speak HTTP/2"))
            return
        pool.http1_chosen()
        for index, stream in enumerate(waiting):
            sink = stream.sink
            if sink is None:
                continue
            if index:
                stream.replace(pool.plane.connect(pool.endpoint, sink))
                continue
            pool.endpoint.count_connections(1)
            pool.plane.descriptors.count_to_endpoints(1)
            upstream = Upstream(pool.plane, pool.endpoint, sink)
            stream.replace(upstream)
            transport.set_protocol(cast("asyncio.Protocol", upstream))
            upstream.connection_made(transport)

    def dial_failed(self, error: OSError) -> None:
        """Report that the connection could not be opened."""
        self._opened()
        waiting, self._waiting = self._waiting, []
        self._end()
        reachability.connection_ended(self.pool.plane, self.pool.endpoint, error)
        for stream in waiting:
            stream.connect_failed(error)

    def _opened(self) -> None:
        if self._task is not None:
            self._task = None
            self.pool.endpoint.count_opening(-1)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        refusal = "" if self._is_proven else describe_refusal(exc)
        streams = [*self._waiting, *self._streams.values()]
        self._waiting.clear()
        self._streams.clear()
        self._end()
        if exc is not None:
            reachability.connection_ended(self.pool.plane, self.pool.endpoint, exc)
        for stream in streams:
            if refusal:
                stream.connect_failed(TlsFailed(refusal))
            else:
                stream.lost()

    def eof_received(self) -> bool:
        return False

    def _end(self) -> None:
        """Stop counting the connection, and open no more streams on it."""
        self._leaving = True
        if not self._ended:
            self._ended = True
            self.pool.endpoint.count_connections(-1)
            self.pool.plane.descriptors.count_to_endpoints(-1)
            self.pool.forget(self)

    def abort(self) -> None:
        """Close the connection at once."""
        if self._task is not None:
            self._task.cancel()
            self._opened()
        self._end()
        if self._transport is not None:
            self._transport.abort()

    def close_idle(self, now: float, *, for_good: bool) -> None:
        """Close the connection if it had no stream for too long at `now`. `for_good`: open no more
        streams, and close it after the last one."""
        if for_good:
            self._leaving = True
        if not self._claimed and (for_good or now >= self._idle_until):
            self._close()

    def _retire(self) -> None:
        """Open no more streams, and close the connection after the last one."""
        if not self._ended:
            self.close_idle(0.0, for_good=True)

    def _close(self) -> None:
        """Say goodbye and close."""
        if self._transport is None:
            self.abort()
            return
        self.codec.terminate(ErrorCode.NO_ERROR)
        self.flush()
        self._end()
        self._transport.abort() if self._full else self._transport.close()

    # --- streams

    def has_room(self) -> bool:
        """Return whether another stream can be opened."""
        if self._leaving or self._is_silent or (self._has_refused and self._claimed):
            return False
        return self._claimed < self._most

    def refused(self) -> None:
        """Open no stream until another one ends: the endpoint has refused one. Some endpoints count
        streams for a moment after their end."""
        self._has_refused = True

    def timed_out(self, since: float) -> None:
        """Open no streams until something arrives, if nothing did since `since`, in monotonic
        seconds: packets may get lost without an error for either side."""
        if self._received_at > since or self._is_silent or self._ended:
            return
        self._is_silent = True
        self.codec.ping()
        self.schedule_flush()
        self.pool.plane.loop.call_later(PING_SECONDS, self._give_up)

    def _give_up(self) -> None:
        """Open no more streams on a connection that is still silent."""
        if self._is_silent and not self._ended:
            self._leaving = True
            self._rest()

    def begin(self, sink: "ResponseSink") -> UpstreamStream:
        """Return a new stream, which waits until the connection is open and has SETTINGS."""
        stream = UpstreamStream(self, sink)
        self._claimed += 1
        if not self._is_ready:
            self._waiting.append(stream)
        else:
            stream.use_now()
        return stream

    def add(self, number: int, stream: UpstreamStream) -> None:
        """Note that a stream was opened with a request."""
        self._streams[number] = stream
        if number >= _MAX_STREAM:
            self._leaving = True

    def hold(self, stream: UpstreamStream) -> None:
        """Note that the client of a stream waits until the endpoint takes more of its request."""
        self._held.add(stream)

    def release(self, stream: UpstreamStream) -> None:
        """Note that it does not wait any more."""
        self._held.discard(stream)

    def over(self, stream: UpstreamStream) -> None:
        """Forget a stream that has ended, or was given up."""
        if self._streams.pop(stream.number, None) is None and stream in self._waiting:
            self._waiting.remove(stream)
        self._held.discard(stream)
        self._has_refused = False
        self._claimed -= 1
        self._rest()

    def _rest(self) -> None:
        """Record when the last stream ended; close a connection that accepts no new ones."""
        if self._claimed or self._ended:
            return
        if self._leaving or not self._is_ready:
            self.pool.plane.loop.call_soon(self._close_unused)
        else:
            pool = self.pool
            self._idle_until = pool.plane.clock() + pool.endpoint.idle_seconds

    def _close_unused(self) -> None:
        if not self._claimed and not self._ended:
            self._close()

    # --- bytes

    def data_received(self, data: bytes) -> None:
        plane = self.pool.plane
        plane.now = self._received_at = plane.clock()
        self._is_silent = False
        self._reading = True
        try:
            self._handle(self.codec.receive(data))
        except ConnectionFailed as failed:
            self._fail(failed)
        self._reading = False
        self.flush()

    def _handle(self, events: list[Event]) -> None:
        index = 0
        count = len(events)
        while index < count:
            event = events[index]
            index += 1
            if isinstance(event, DataReceived):
                stream = self._streams.get(event.stream_id)
                if stream is None:
                    self.codec.consume(event.stream_id, len(event.data))
                else:
                    stream.data_arrived(event.data, last=event.end_stream)
            elif isinstance(event, ResponseReceived):
                body: bytes | None = b"" if event.end_stream else None
                following = events[index] if index < count else None
                if body is None and isinstance(following, DataReceived) and following.end_stream:
                    is_whole = following.stream_id == event.stream_id
                    body = following.data if is_whole else None
                    index += int(is_whole)
                stream = self._streams.get(event.stream_id)
                self._is_proven = True
                if stream is not None:
                    stream.response_arrived(event.headers, body)
                if body:
                    self.codec.consume(event.stream_id, len(body))
            elif isinstance(event, StreamClosed):
                stream = self._streams.get(event.stream_id)
                if stream is not None:
                    stream.closed(int(event.error_code))
            else:
                self._handle_rare(event)

    def _handle_rare(self, event: Event) -> None:
        """Act on an event that few requests have."""
        if isinstance(event, TrailersReceived):
            stream = self._streams.get(event.stream_id)
            if stream is not None:
                stream.trailers_arrived(event.headers)
        elif isinstance(event, StreamReset):
            stream = self._streams.get(event.stream_id)
            if stream is not None:
                stream.closed(int(event.error_code))
        elif isinstance(event, InformationalResponseReceived):
            stream = self._streams.get(event.stream_id)
            if stream is not None:
                stream.interim_arrived(event.headers)
        elif isinstance(event, SettingsReceived):
            self._use_settings()
        elif isinstance(event, GoAwayReceived):
            self._leaving = True
            for number in sorted(self._streams):
                stream = self._streams.get(number)
                if stream is not None and number > event.last_stream_id:
                    stream.closed(ErrorCode.REFUSED_STREAM)
            self._rest()
        elif isinstance(event, ConnectionClosed):
            self._leaving = True
            self.pool.plane.loop.call_soon(self._abort_ended)

    def _abort_ended(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def _fail(self, failed: ConnectionFailed) -> None:
        """Close a connection whose bytes are not valid."""
        self._leaving = True
        transport = self._transport
        if transport is not None:
            if failed.last_bytes:
                transport.write(failed.last_bytes)
            for stream in (*self._waiting, *self._streams.values()):
                stream.failed(str(failed))
            transport.close()

    def schedule_flush(self) -> None:
        """Send what the codec has, at the end of this turn of the event loop."""
        if not self._scheduled and not self._reading:
            self._scheduled = True
            self.pool.plane.loop.call_soon(self.flush)

    def flush(self) -> None:
        """Send what the codec has, as far as the transport takes it."""
        self._scheduled = False
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        try:
            while not self._full and write_output(self.codec, transport):
                pass
            events = self.codec.events()
            if events:
                self._handle(events)
        except ConnectionFailed as failed:
            self._fail(failed)
            return
        if self._held:
            for stream in tuple(self._held):
                stream.check_writable()

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._full = False
        self.flush()
