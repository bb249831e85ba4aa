"""One stream of an HTTP/2 connection: the client's side of one exchange.

`proxy.http2_downstream.connection` creates one for each request and passes on what arrives for it.
It translates between the exchange, which sees HTTP/1.1, and the codec. Flow control is coupled: the
client may send more only when the upstream took its bytes, and the upstream is read only while the
client takes its response.
"""

import base64
import os
from typing import TYPE_CHECKING, Final

from proxy.http1.accept import prefers_json
from proxy.http1.chunked import LAST_CHUNK, ChunkedReader, encode_chunk
from proxy.http1.fields import BadMessage
from proxy.http1.framing import CHUNKED
from proxy.http1.request import END, RequestHead
from proxy.http1.rewrite import build_response
from proxy.http2 import response
from proxy.http2.codec import ErrorCode, Fields
from proxy.http2.request import Field, translate_trailers
from proxy.request.exchange import Exchange
from proxy.request.failure import CHALLENGE, PROTOCOL, Failure
from proxy.request.headers import own_response
from proxy.request.phases import TUNNEL
from proxy.request.sinks import NEVER, ClientSink
from proxy.transport.proxy_header import ProxiedAddress

if TYPE_CHECKING:
    from proxy.http2_downstream.connection import Http2Connection

UNSENT_LOW: Final = 16 * 1024
"""Bytes of a response that wait for the client below which the upstream is read again: one DATA
frame is ready then, while more is read."""
STALLED: Final = 75.0
"""Seconds without progress after which a response that is complete, and that the client does not
read, is given up."""
NO_RESET: Final = -1
"""A `reset_code` that is none."""
_KEY_BYTES: Final = 16
"""Length of the key of a WebSocket handshake (RFC 6455, section 4.1)."""
_NO_SWITCH: Final = "the origin answered a WebSocket handshake without a switch of protocols"


def websocket_key() -> bytes:
    """Return the key of a new WebSocket handshake."""
    return base64.b64encode(os.urandom(_KEY_BYTES))


class Http2Stream(ClientSink):
    """One stream.

    - `number`: its id.
    - `request_ended`: whether the client has ended its side.
    - `reset_code`: error code to reset it with once its response is sent, because the request is
      incomplete; NO_RESET if it need not be.
    - `held`: whether the upstream waits until the client has taken more of the response.
    """

    __slots__ = (
        "_chunks",
        "_connection",
        "_discard",
        "_early",
        "_early_end",
        "_finished",
        "_paused",
        "_trailers",
        "_unconsumed",
        "_unsent",
        "held",
        "number",
        "request_ended",
        "reset_code",
    )

    def __init__(self, connection: "Http2Connection", number: int) -> None:
        super().__init__(connection.listener, connection.peer, connection.address, connection.tls)
        self.fast_path_ok = connection.fast_path_ok
        self._connection = connection
        self.number = number
        self.request_ended = False
        self.reset_code = NO_RESET
        self.held = False
        self._chunks = False
        self._paused = False
        self._unconsumed = 0
        self._unsent = 0
        self._finished = False
        self._discard = False
        self._trailers = b""
        self._early = b""
        self._early_end = False

    # --- called by the connection

    def prepare(self, head: RequestHead, source: str, address: bytes) -> Exchange:
        """Return a new exchange for a request of the client at `source`; the caller starts it."""
        self.source = source
        self.address = address
        self._chunks = head.length == CHUNKED
        plane = self._connection.plane
        exchange = self.exchange = Exchange(plane, self, head, plane.now)
        return exchange

    def encode(self, data: bytes, *, complete: bool) -> bytes:
        """Return bytes of the request's body in the form in which they are sent on."""
        if not self._chunks:
            return data
        chunk = encode_chunk(data) if data else b""
        return chunk + LAST_CHUNK if complete else chunk

    def data_received(self, data: bytes, *, complete: bool) -> None:
        """Take bytes of the request's body; `complete`: they are the last."""
        self.request_ended = complete
        exchange = self.exchange
        if exchange is None:
            # The response is complete: nothing waits for the rest of the request.
            self._connection.codec.consume(self.number, len(data))
        elif exchange.phase == TUNNEL:
            self._pass_through(exchange, data, complete=complete)
        elif exchange.head.upgrade:
            # Until the tunnel is open, its bytes stay in the window of the stream.
            self._early += data
            self._early_end = complete
        else:
            body = self.encode(data, complete=complete)
            if body or complete:
                exchange.request_data(body, complete)
            self._consume(len(data))

    def _pass_through(self, exchange: Exchange, data: bytes, *, complete: bool) -> None:
        """Pass bytes of the client through a tunnel."""
        if data:
            exchange.tunnel_data(data)
            self._consume(len(data))
        if complete and self.exchange is not None:
            exchange.client_finished()

    def trailers_received(self, fields: tuple[Field, ...]) -> None:
        """Take the trailers of the request, which end its body."""
        self.request_ended = True
        exchange = self.exchange
        if exchange is None:
            return
        try:
            lines = translate_trailers(fields)
        except BadMessage:
            self._connection.codec.reset(self.number, ErrorCode.PROTOCOL_ERROR)
            self.client_gone()
            return
        if exchange.head.upgrade:
            self.data_received(b"", complete=True)
        else:
            exchange.request_data(b"0\r\n" + lines + b"\r\n" if self._chunks else b"", True)

    def _consume(self, size: int) -> None:
        """Let the client send `size` more bytes, at once or when the upstream takes more."""
        if self._paused:
            self._unconsumed += size
        elif size:
            self._connection.codec.consume(self.number, size)

    def client_gone(self) -> None:
        """Note that the client, or an error of the client, ended the stream."""
        if self._unconsumed or self._early:
            self._connection.codec.consume(self.number, self._unconsumed + len(self._early))
            self._unconsumed, self._early = 0, b""
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            exchange.client_gone()

    def update_held(self, unsent: int, high: int) -> None:
        """Hold the upstream, or read it again, by the number of bytes that wait for the client;
        more than `high` are too many."""
        exchange = self.exchange
        if self.held:
            if unsent <= UNSENT_LOW:
                self.held = False
                if exchange is not None:
                    exchange.client_writable()
        elif unsent > high:
            self.held = True
            if exchange is not None:
                exchange.client_full()

    # --- called by the exchange

    def forwarded_lines(self, head: RequestHead) -> bytes:
        return self._connection.forwarded_lines(head)

    def proxied_address(self) -> ProxiedAddress:
        if self.source != self.peer:
            return ProxiedAddress(self.source, 0)
        return self._connection.proxied_address()

    def respond(self, head: bytes, body: bytes) -> None:
        fields = self._translate(head)
        if fields is None:
            return
        if body and response.is_chunked(head):
            body = ChunkedReader(raw=False).feed(body)
        codec = self._connection.codec
        self._finished = True
        if body:
            codec.send_response(self.number, fields, complete=False)
            codec.send_data(self.number, body, complete=True)
        else:
            codec.send_response(self.number, fields, complete=True)

    def send_head(self, head: bytes) -> None:
        fields = self._translate(head)
        if fields is None:
            return
        connection = self._connection
        status = fields[0][1]
        if status == response.SWITCHED:
            fields = response.accept_tunnel(fields)
            connection.codec.send_response(self.number, fields, complete=False)
        elif status.startswith(b"1"):
            connection.codec.send_interim_response(self.number, fields)
        else:
            connection.codec.send_response(self.number, fields, complete=False)
        connection.schedule_flush()

    def _translate(self, head: bytes) -> Fields | None:
        """Return the fields of a response head; None if the client gets another response. A 2xx
        status would mean to the client of a WebSocket that it is open."""
        if self._discard:
            return None
        connection = self._connection
        fields = connection.plane.head_cache.response_fields.translate(head)
        exchange = self.exchange
        if exchange is not None and exchange.head.upgrade and fields[0][1].startswith(b"2"):
            why = PROTOCOL._replace(text=_NO_SWITCH)
            own = self._build_error(exchange.head, why, why.status, b"")
            lines, _, body = own.partition(END)
            self.respond_once(connection.plane.head_cache.response_fields.translate(lines), body)
            return None
        return fields

    def respond_once(self, fields: Fields, body: bytes) -> None:
        """Send a response of the proxy's own, and drop what follows."""
        codec = self._connection.codec
        self._discard = self._finished = True
        codec.send_response(self.number, fields, complete=not body)
        if body:
            codec.send_data(self.number, body, complete=True)
        self._connection.schedule_flush()

    def write(self, data: bytes) -> None:
        if self._discard:
            return
        connection = self._connection
        connection.codec.send_data(self.number, data, complete=False)
        connection.count_sent(self)
        connection.schedule_flush()

    def send_trailers(self, lines: bytes) -> None:
        self._trailers = lines

    def send_error(
        self, head: RequestHead, why: Failure, status: int, extra: bytes, *, complete: bool
    ) -> None:
        response_head, _, body = self._build_error(head, why, status, extra).partition(END)
        self.respond(response_head + END, body)
        self.exchange_over(self._connection.plane.now, complete=complete)

    def _build_error(self, head: RequestHead, why: Failure, status: int, extra: bytes) -> bytes:
        """Return a response of the proxy's own in the form of HTTP/1.1."""
        exchange, plane = self.exchange, self._connection.plane
        request_id = exchange.request_id if exchange is not None else b""
        own = build_response(
            status,
            why.text,
            request_id=request_id or head.field(b"x-request-id") or b"",
            as_json=prefers_json(head.field(b"accept") or b""),
            bodyless=head.method == b"HEAD",
            extra=extra + plane.date_line(),
            reason_only=why.reason == CHALLENGE.reason,
        )
        return own if exchange is None else own_response(exchange, own)

    def exchange_over(self, now: float, *, complete: bool) -> None:
        del complete
        exchange, self.exchange = self.exchange, None
        connection = self._connection
        if exchange is not None and exchange.counted:
            connection.set_keep_alive(exchange.service.keep_alive_timeout)
        self._end()
        self.deadline = now + STALLED

    def _end(self) -> None:
        """End our side, and then the client's."""
        connection = self._connection
        if not self._finished:
            self._finished = True
            if self._trailers:
                fields = response.translate_trailers(self._trailers)
                connection.codec.send_trailers(self.number, fields)
            else:
                connection.codec.send_data(self.number, b"", complete=True)
        if not self.request_ended:
            # RFC 9113, section 8.1: the client need not send the rest.
            self.reset_code = ErrorCode.NO_ERROR
            connection.count_sent(self)
        if self._paused:
            self.resume()
        connection.schedule_flush()

    def break_off(self, *, abruptly: bool) -> None:
        del abruptly
        self._reset(ErrorCode.INTERNAL_ERROR)

    def close(self) -> None:
        self.exchange = None
        self.deadline = self._connection.plane.now + STALLED
        self._end()

    def abort(self) -> None:
        exchange, self.exchange = self.exchange, None
        self._reset(ErrorCode.CANCEL)
        if exchange is not None:
            exchange.client_gone()

    def _reset(self, code: int) -> None:
        self.exchange = None
        self._discard = True
        self._connection.codec.reset(self.number, code)
        self._connection.schedule_flush()

    def pause(self) -> None:
        self._paused = True

    def resume(self) -> None:
        self._paused = False
        if self._unconsumed:
            self._connection.codec.consume(self.number, self._unconsumed)
            self._unconsumed = 0
            self._connection.schedule_flush()

    def open_tunnel(self) -> None:
        self.resume()
        exchange, early = self.exchange, self._early
        if exchange is not None and (early or self._early_end):
            self._early = b""
            self._pass_through(exchange, early, complete=self._early_end)

    def finish_tunnel(self) -> None:
        if not self._finished:
            self._finished = True
            self._connection.codec.send_data(self.number, b"", complete=True)
            self._connection.schedule_flush()

    # --- called by the data plane

    def expire(self, now: float) -> None:
        exchange = self.exchange
        self.deadline = NEVER
        if exchange is not None:
            exchange.expire(now)
            return
        unsent = self._connection.codec.unsent(self.number)
        if unsent and (not self._unsent or unsent < self._unsent):
            # A slow client took a part of it since the last look.
            self._unsent = unsent
            self.deadline = now + STALLED
        else:
            self._reset(ErrorCode.CANCEL)

    def has_unsent_bytes(self) -> bool:
        return self._connection.codec.unsent(self.number) > 0
