"""One connection to an endpoint: writes a request's bytes, reads one answer at a time.

It knows how answers are framed and nothing of what they are for; its exchange decides. It goes
back to the pool only after an answer that ended where its framing said, with nothing behind it.
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
from proxy.request import connection_pool, fast_path, half_close, tunnel
from proxy.request.hedge import Hedge
from proxy.state.endpoint_state import EndpointState

if TYPE_CHECKING:
    from proxy.request.data_plane import DataPlane
    from proxy.request.exchange import Exchange

WRITE_HIGH: Final = 64 * 1024
_VERSION: Final = b"HTTP/1."

# What the next bytes are.
IDLE: Final = 0
HEAD: Final = 1
SIZED: Final = 2
CHUNKS: Final = 3
TO_THE_END: Final = 4
TUNNEL: Final = 5


class Upstream:
    """See the module; an `asyncio.Protocol` by its methods, as `Downstream` is. `served` counts
    the requests written; above one it was reused."""

    __slots__ = (
        "_buffer",
        "_encode",
        "_head",
        "_interim",
        "_left",
        "_plane",
        "_reader",
        "closing",
        "counted",
        "direct",
        "endpoint",
        "exchange",
        "idle_limit",
        "idle_since",
        "idle_until",
        "paused",
        "reading",
        "served",
        "task",
        "transport",
    )

    def __init__(
        self, plane: "DataPlane", endpoint: EndpointState, exchange: "Exchange | Hedge"
    ) -> None:
        self._plane = plane
        self.endpoint = endpoint
        self.exchange: Exchange | Hedge | None = exchange
        self.direct: Exchange | None = None
        self.transport: asyncio.Transport | None = None
        self.task: asyncio.Task[None] | None = None
        self.closing = False
        self.counted = True
        self.paused = False
        self.served = 0
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

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.transport.set_write_buffer_limits(high=WRITE_HIGH)
        self.task = None
        if self.exchange is None:
            # Given up at the very moment in which it came about.
            self.closing = True
            self.transport.abort()
        else:
            self.exchange.connected(self)

    def dial_failed(self, error: OSError) -> None:
        """No connection came about."""
        self.task = None
        if self.closing:
            return
        self.closing = True
        connection_pool.forget(self.endpoint, self)
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            exchange.connect_failed(error)

    def discard(self) -> None:
        """Close at once, whatever state it is in; the exchange hears no more of it."""
        self.exchange = None
        if self.closing:
            return
        self.closing = True
        if self.task is not None:
            self.task.cancel()
            self.task = None
        if self.transport is not None:
            if self.transport.get_write_buffer_size():
                # An end behind what the origin does not read would not be heard of.
                half_close.end_by_reset(self.transport)
            self.transport.abort()
        else:
            connection_pool.forget(self.endpoint, self)

    def close(self) -> None:
        """Close once everything written has gone out."""
        self.exchange = None
        self.closing = True
        if self.transport is not None:
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self.closing = True
        connection_pool.forget(self.endpoint, self)
        if exc is not None and self.exchange is not None:
            self._read_unread()
        exchange, self.exchange = self.exchange, None
        if exchange is None:
            return
        if self.reading == TO_THE_END and exc is None:
            exchange.answer_ended(chunked.LAST_CHUNK if self._encode else b"", reusable=False)
        else:
            exchange.upstream_lost(answering=self.reading > HEAD or bool(self._buffer))

    def _read_unread(self) -> None:
        """What the origin said before its end: an early answer, and a reset behind it. A write
        that fails ends the transport with that still unread."""
        sock = self.transport.get_extra_info("socket") if self.transport is not None else None
        left = limits.RESPONSE_HEAD
        while sock is not None and self.exchange is not None and left > 0:
            try:
                data = os.read(sock.fileno(), left)
            except OSError:
                return
            if not data:
                return
            left -= len(data)
            self.data_received(data)

    def eof_received(self) -> bool:
        exchange = self.exchange
        if exchange is None:
            # Not one more request, not even in this very turn of the event loop.
            self.discard()
        elif self.reading == TUNNEL:
            tunnel.origin_finished(cast("Exchange", exchange))
            return True
        return False

    # --- writing

    def send(self, exchange: "Exchange | Hedge", data: bytes) -> None:
        """Write a request's first bytes."""
        assert self.transport is not None
        self.exchange = exchange
        self.reading = HEAD
        self.served += 1
        self.transport.write(data)

    def finish(self) -> None:
        """Nothing more is written through a tunnel."""
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write_eof()

    def pause_writing(self) -> None:
        # The general way knows what it means if the answer comes before there is room again.
        self.direct = None
        if self.exchange is not None:
            self.exchange.origin_is_full()

    def resume_writing(self) -> None:
        if self.exchange is not None:
            self.exchange.origin_has_room()

    # --- reading

    def pause(self) -> None:
        """Stop reading from the origin."""
        transport = self.transport
        if not self.paused and transport is not None and not transport.is_closing():
            self.paused = True
            transport.pause_reading()

    def resume(self) -> None:
        """Read from the origin again."""
        transport = self.transport
        if self.paused and transport is not None and not transport.is_closing():
            self.paused = False
            transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        exchange = self.exchange
        if exchange is None:
            # Bytes that nobody asked for: whose answer they are can never be told.
            self.discard()
            return
        direct = self.direct
        if direct is not None:
            self.direct = None
            if direct is exchange and fast_path.answered(direct, self, data):
                return
        reading = self.reading
        if reading == HEAD:
            self._read_head(exchange, data)
        elif reading == SIZED:
            left = self._left - len(data)
            if left > 0:
                self._left = left
                exchange.answer_body(data)
            else:
                self._finish(exchange, data[: self._left], surplus=left < 0)
        elif reading == TUNNEL:
            tunnel.to_client(cast("Exchange", exchange), data)
        elif reading == CHUNKS:
            self._read_chunks(exchange, data)
        else:
            exchange.answer_body(chunked.encode_chunk(data) if self._encode else data)

    def heard_limit(self, seconds: float) -> None:
        """An origin that says how long it keeps idle connections is left a second early."""
        self.idle_limit = min(self.endpoint.idle_seconds, seconds - 1.0)

    def _read_head(self, exchange: "Exchange | Hedge", data: bytes) -> None:
        if self._buffer:
            data = self._buffer + data
            self._buffer = b""
        recall = self._plane.recall
        while True:
            end = data.find(END)
            if end < 0:
                self._keep_partial(exchange, data)
                return
            raw = data[:end]
            head = recall.responses.get(raw)
            if head is None:
                try:
                    head = recall.read_response(raw, data, self.endpoint.answers)
                except BadMessage as bad:
                    exchange.answer_unclear(bad.reason)
                    return
            if head.keep_alive_timeout:
                self.heard_limit(head.keep_alive_timeout)
            body = data[end + 4 :]
            if head.status >= 200 or head.status == 101:
                break
            self._interim += 1
            if self._interim > limits.INTERIM_RESPONSES:
                exchange.answer_unclear("too many interim responses")
                return
            exchange.interim(head)
            if not body:
                return
            data = body
        self._interim = 0
        self._head = head
        if head.body_length == len(body) and not exchange.bodyless and head.status != 101:
            exchange.answer_whole(head, body, reusable=head.persistent)
            return
        if head.status == 101:
            if isinstance(exchange, Hedge):
                exchange.answer_unclear("a switch of protocols that was not asked for")
                return
            if tunnel.opened(exchange, head):
                self.reading = TUNNEL
                if body:
                    tunnel.to_client(exchange, body)
            return
        self._begin_body(exchange, head, body)

    def _begin_body(self, exchange: "Exchange | Hedge", head: ResponseHead, body: bytes) -> None:
        length = 0 if exchange.bodyless else head.body_length
        if length >= 0:
            left = length - len(body)
            if left <= 0:
                exchange.answer_whole(
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
        if not exchange.answer_head(head, until_close=length == UNTIL_CLOSE):
            return
        self._encode = exchange.chunked_to_client
        if length == CHUNKED:
            self._reader = ChunkedReader(raw=self._encode)
            if body:
                self._read_chunks(exchange, body)
        elif body:
            if length == UNTIL_CLOSE and self._encode:
                body = chunked.encode_chunk(body)
            exchange.answer_body(body)

    def _keep_partial(self, exchange: "Exchange | Hedge", data: bytes) -> None:
        known = min(len(data), len(_VERSION))
        if data[:known] != _VERSION[:known]:
            exchange.answer_unclear("an answer that is not HTTP/1")
            return
        if len(data) > limits.RESPONSE_HEAD:
            exchange.answer_unclear("a response head that is too long")
            return
        try:
            check_partial(data)
        except BadMessage as bad:
            exchange.answer_unclear(bad.reason)
            return
        self._buffer = data

    def _read_chunks(self, exchange: "Exchange | Hedge", data: bytes) -> None:
        reader = self._reader
        assert reader is not None
        try:
            out = reader.feed(data)
        except BadMessage as bad:
            exchange.answer_unclear(bad.reason)
            return
        if reader.done:
            self._finish(exchange, out, surplus=bool(reader.surplus))
        elif out:
            exchange.answer_body(out)

    def _finish(self, exchange: "Exchange | Hedge", last: bytes, *, surplus: bool) -> None:
        self._reader = None
        head = self._head
        assert head is not None
        exchange.answer_ended(last, reusable=head.persistent and not surplus)
