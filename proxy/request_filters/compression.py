"""Compresses the response of one exchange on its way to the client.

`begin.begin_filters` puts a `CompressingClient` between an exchange and its client. The exchange
writes to it as to any client; it changes head and body and passes everything else on. Responses
that the rules do not allow pass unchanged, except for `Vary`.
"""

from typing import TYPE_CHECKING, Final

from proxy.filters.compression import CompressionRules, Encoder, make_encoder
from proxy.http1.chunked import LAST_CHUNK, ChunkedReader, encode_chunk
from proxy.http1.request import RequestHead
from proxy.http2.response import is_chunked
from proxy.request.sinks import ClientSink

if TYPE_CHECKING:
    from proxy.request.failure import Failure
    from proxy.transport.proxy_header import ProxiedAddress

_CHUNKED_LINE: Final = b"Transfer-Encoding: chunked"


class CompressingClient(ClientSink):
    """The client of an exchange whose response may be compressed."""

    __slots__ = ("_client", "_coding", "_encoder", "_head", "_reader", "_rules", "_streams")

    def __init__(self, client: ClientSink, rules: CompressionRules, head: RequestHead) -> None:
        super().__init__(client.listener, client.peer, client.address, client.tls)
        self.source = client.source
        self.persistent = client.persistent
        self.fast_path_ok = False
        self._client = client
        self._rules = rules
        self._head = head
        self._coding = rules.choose_coding(head.field(b"accept-encoding"))
        self._encoder: Encoder | None = None
        self._reader: ChunkedReader | None = None
        self._streams = False

    # --- the response

    def respond(self, head: bytes, body: bytes) -> None:
        found = self._rules.examine(head)
        if found is None:
            self._client.respond(head, body)
            return
        if self._coding and body:
            content = body
            trailers = b""
            if found.chunked:
                reader = ChunkedReader(raw=False)
                content = reader.feed(body)
                trailers = reader.trailers
            packed = content
            if len(content) >= self._rules.min_size and not trailers:
                encoder = make_encoder(self._coding)
                packed = encoder.compress(content) + encoder.finish()
            if len(packed) < len(content):
                framing = b"Content-Length: %d" % len(packed)
                self._client.respond(found.compressed_head(self._coding, framing), packed)
                return
        self._client.respond(found.varying_head(), body)

    def send_head(self, head: bytes) -> None:
        found = self._rules.examine(head)
        if found is None:
            self._client.send_head(head)
            return
        if not self._coding or self._head.method == b"HEAD":
            self._client.send_head(found.varying_head())
            return
        in_chunks = self._head.takes_chunks
        if in_chunks and is_chunked(head):
            self._reader = ChunkedReader(raw=False)
        # A body of unknown length may be a stream whose parts are wanted at once.
        self._streams = not found.sized
        self._encoder = make_encoder(self._coding)
        framing = _CHUNKED_LINE if in_chunks else b""
        self._client.send_head(found.compressed_head(self._coding, framing))

    def write(self, data: bytes) -> None:
        encoder, reader = self._encoder, self._reader
        if encoder is None:
            self._client.write(data)
            return
        content = data if reader is None else reader.feed(data)
        packed = encoder.compress(content)
        if self._streams and content:
            packed += encoder.flush()
        if packed:
            self._client.write(encode_chunk(packed) if self._head.takes_chunks else packed)

    def exchange_over(self, now: float, *, complete: bool) -> None:
        encoder, reader = self._encoder, self._reader
        if encoder is not None:
            self._encoder = None
            packed = encoder.finish()
            if self._head.takes_chunks:
                trailers = b"" if reader is None else reader.trailers
                last = b"0\r\n" + trailers + b"\r\n" if trailers else LAST_CHUNK
                packed = (encode_chunk(packed) if packed else b"") + last
            if packed:
                self._client.write(packed)
        self._client.exchange_over(now, complete=complete)

    # --- passed on

    def expire_at(self, deadline: float) -> None:
        self._client.expire_at(deadline)

    def end_after_response(self) -> None:
        self.persistent = False
        self._client.end_after_response()

    def forwarded_lines(self, head: RequestHead) -> bytes:
        return self._client.forwarded_lines(head)

    def proxied_address(self) -> "ProxiedAddress":
        return self._client.proxied_address()

    def send_trailers(self, lines: bytes) -> None:
        self._client.send_trailers(lines)

    def send_error(
        self, head: RequestHead, why: "Failure", status: int, extra: bytes, *, complete: bool
    ) -> None:
        self._client.send_error(head, why, status, extra, complete=complete)

    def break_off(self, *, abruptly: bool) -> None:
        self._client.break_off(abruptly=abruptly)

    def close(self) -> None:
        self._client.close()

    def abort(self) -> None:
        self._client.abort()

    def pause(self) -> None:
        self._client.pause()

    def resume(self) -> None:
        self._client.resume()

    def open_tunnel(self) -> None:
        self._client.open_tunnel()

    def finish_tunnel(self) -> None:
        self._client.finish_tunnel()

    def has_unsent_bytes(self) -> bool:
        return self._client.has_unsent_bytes()

    def is_reset(self) -> bool:
        return self._client.is_reset()
