"""One request on an HTTP/2 connection to an endpoint. To an exchange it is an `Upstream` like any
other.

`proxy.http2_upstream.connection` creates it and passes on what arrives. It translates between the
exchange, which writes and reads HTTP/1.1, and the codec. Flow control is coupled: the endpoint may
send more only when the client took its bytes, and the client is read only while the endpoint takes
the request.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from proxy.http1 import limits
from proxy.http1.chunked import LAST_CHUNK, ChunkedReader, encode_chunk
from proxy.http1.fields import BadMessage
from proxy.http1.request import END
from proxy.http1.response import ResponseHead
from proxy.http2.codec import ConnectionFailed, ErrorCode
from proxy.http2.to_endpoint import (
    UNSIZED,
    Field,
    split_trailers,
    translate_request,
    translate_response,
    translate_trailers,
)
from proxy.request.sinks import IN_CHUNKS, REJECTED, ResponseSink
from proxy.request.upstream import HEAD, SIZED, Upstream

if TYPE_CHECKING:
    from proxy.http2_upstream.connection import Http2UpstreamConnection

UNSENT_HIGH: Final = 64 * 1024
"""Bytes of a request that wait for the endpoint above which its client is not read."""
UNSENT_LOW: Final = 16 * 1024
"""Bytes below which the client is read again."""


class UpstreamStream(Upstream):
    """A stream.

    - `number`: its id; 0 before the request is sent.
    """

    def __init__(self, connection: "Http2UpstreamConnection", sink: ResponseSink) -> None:
        pool = connection.pool
        super().__init__(pool.plane, pool.endpoint, sink)
        self.number = 0
        self._connection = connection
        self._replacement: Upstream | None = None
        self._over = False
        self._unconsumed = 0
        self._body_left = 0
        self._body: ChunkedReader | None = None
        self._in_chunks = False
        self._request_ended = False
        self._response_ended = False

    # --- opening and ending

    def use_now(self) -> None:
        """Note that its connection is open already."""
        self.requests = 1

    def connected(self) -> None:
        """Report that its connection is open and has room for it."""
        if self.sink is not None:
            self.sink.connected(self)

    def connection_full(self) -> None:
        """Report that its connection is open and has no room for it."""
        sink = self._finish_stream()
        if sink is not None:
            sink.connection_full()

    def connect_failed(self, error: OSError) -> None:
        """Report that there is no connection for it."""
        sink = self._finish_stream()
        if sink is not None:
            sink.connect_failed(error)

    def replace(self, upstream: Upstream) -> None:
        """Leave the request to a connection of HTTP/1.1."""
        self._replacement = upstream
        self._finish_stream()

    def _finish_stream(self) -> ResponseSink | None:
        """End: nothing more is sent or reported. Return the sink."""
        sink, self.sink = self.sink, None
        self.closing = True
        if not self._over:
            self._over = True
            if self._unconsumed:
                # They count in the window of the connection until the end of it.
                self._connection.codec.consume(self.number, self._unconsumed)
                self._unconsumed = 0
                self._connection.schedule_flush()
            self._connection.over(self)
        return sink

    def discard(self) -> None:
        if self._replacement is not None:
            self._replacement.discard()
            return
        if self._over:
            return
        self._finish_stream()
        if self.number and not (self._request_ended and self._response_ended):
            self._connection.codec.reset(self.number, ErrorCode.CANCEL)
            self._connection.schedule_flush()

    def close(self) -> None:
        self.discard()

    def finish(self) -> None:
        """Do nothing: streams carry no tunnels."""

    def timed_out(self, since: float) -> None:
        if not self._over:
            self._connection.timed_out(since)

    def report_to(self, sink: ResponseSink) -> None:
        if self._replacement is not None:
            self._replacement.report_to(sink)
        self.sink = sink

    # --- the request

    def send(self, sink: ResponseSink, data: bytes) -> None:
        self.sink = sink
        self.reading = HEAD
        self.requests += 1
        connection = self._connection
        head, _, body = data.partition(END)
        self._request_ended = False
        request = translate_request(head, connection.scheme, connection.authority)
        if request.length == UNSIZED:
            self._body = ChunkedReader(raw=False)
        self._body_left = request.length
        try:
            self.number = connection.codec.send_request(
                request.fields, complete=request.length == 0
            )
        except ConnectionFailed:
            # The endpoint has announced the end of the connection meanwhile.
            connection.pool.plane.loop.call_soon(self.closed, int(ErrorCode.REFUSED_STREAM))
            return
        connection.add(self.number, self)
        self._request_ended = request.length == 0
        if body and request.length:
            self.write(body)
        connection.schedule_flush()

    def write(self, data: bytes) -> None:
        if not self.number or self._over:
            return
        connection = self._connection
        codec, number, reader = connection.codec, self.number, self._body
        if reader is None:
            self._body_left -= len(data)
            self._request_ended = self._body_left <= 0
            codec.send_data(number, data, complete=self._request_ended)
        else:
            content = reader.feed(data)
            self._request_ended = reader.done
            trailers = reader.trailers if reader.done else b""
            if trailers:
                if content:
                    codec.send_data(number, content, complete=False)
                codec.send_trailers(number, split_trailers(trailers))
            elif content or reader.done:
                codec.send_data(number, content, complete=reader.done)
        if codec.unsent(number) > UNSENT_HIGH:
            connection.flush()
            if codec.unsent(number) > UNSENT_HIGH and self.sink is not None:
                # Each time: the client may have been resumed for another reason.
                connection.hold(self)
                self.sink.upstream_full()
        connection.schedule_flush()

    def check_writable(self) -> None:
        """Let the client send more if the endpoint has taken enough of the request."""
        if self._connection.codec.unsent(self.number) <= UNSENT_LOW:
            self._connection.release(self)
            if self.sink is not None:
                self.sink.upstream_writable()

    # --- the response

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        if not self.paused:
            return
        self.paused = False
        if self._unconsumed:
            self._connection.codec.consume(self.number, self._unconsumed)
            self._unconsumed = 0
            self._connection.schedule_flush()

    def _parse(self, fields: Sequence[Field], length: int | None) -> ResponseHead | None:
        """Return the head of a response; None if it is not valid, with that reported."""
        sink = self.sink
        if sink is None:
            return None
        cache = self._plane.head_cache
        try:
            raw = translate_response(fields, length, bodyless=sink.bodyless)
            found = cache.responses.get(raw)
            if found is None:
                templates = self.endpoint.response_templates
                found = cache.read_response(raw, templates)
        except BadMessage as bad:
            self.failed(bad.reason)
            return None
        return found

    def interim_arrived(self, fields: Sequence[Field]) -> None:
        """Take a response with a 1xx status."""
        self._interim += 1
        if self._interim > limits.INTERIM_RESPONSES:
            self.failed("too many interim responses")
            return
        head = self._parse(fields, None)
        if head is not None and self.sink is not None:
            self.sink.interim_response(head)

    def response_arrived(self, fields: Sequence[Field], body: bytes | None) -> None:
        """Take the fields of the response; `body` is its whole body, None if more follows."""
        head = self._parse(fields, None if body is None else len(body))
        sink = self.sink
        if head is None or sink is None:
            return
        if head.status == 101:
            self.failed("a switch of protocols")
            return
        if body is not None:
            self._finish_response()
            sink.whole_response(head, b"" if sink.bodyless else body, reusable=False)
            return
        self.reading = SIZED
        form = sink.response_head(head, until_close=False)
        if form != REJECTED:
            self._in_chunks = form == IN_CHUNKS

    def data_arrived(self, data: bytes, *, last: bool) -> None:
        """Take bytes of the body; `last`: they end it."""
        size = len(data)
        if self.paused:
            self._unconsumed += size
        elif size:
            self._connection.codec.consume(self.number, size)
        sink = self.sink
        if sink is None:
            return
        if self._in_chunks and data:
            data = encode_chunk(data)
        if last:
            self._finish_response()
            sink.response_end(data + LAST_CHUNK if self._in_chunks else data, reusable=False)
        elif data:
            sink.response_data(data)

    def trailers_arrived(self, fields: Sequence[Field]) -> None:
        """Take the trailers, which end the response."""
        sink = self.sink
        if sink is None:
            return
        try:
            lines = translate_trailers(fields)
        except BadMessage as bad:
            self.failed(bad.reason)
            return
        self._finish_response()
        if self._in_chunks:
            sink.response_end(b"0\r\n" + lines + b"\r\n", reusable=False)
        else:
            sink.response_trailers(lines)
            sink.response_end(b"", reusable=False)

    def _finish_response(self) -> None:
        """Note that the response is complete: what follows is reported to no sink. The exchange
        discards the stream, which resets it if the request is not complete."""
        self.sink = None
        self._response_ended = True

    def closed(self, code: int) -> None:
        """Take the end of the stream. An end in order follows the response."""
        answering = self.reading > HEAD
        sink = self._finish_stream()
        if sink is None:
            return
        if code == ErrorCode.REFUSED_STREAM and not answering:
            self._connection.refused()
            sink.request_refused()
        else:
            sink.upstream_lost(answering=answering)

    def lost(self) -> None:
        """Take the end of the connection."""
        sink = self._finish_stream()
        if sink is not None:
            sink.upstream_lost(answering=self.reading > HEAD)

    def failed(self, reason: str) -> None:
        """Report that what arrived is not a valid response, and end the stream."""
        sink = self.sink
        if sink is not None:
            sink.bad_response(reason)
        self.discard()
