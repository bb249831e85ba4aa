"""The interfaces around an exchange: `ClientSink` on the client's side, `ResponseSink` and
`StreamPool` on the upstream's side.

An exchange writes a response to a `ClientSink` without knowing what carries it: an HTTP/1
connection (`proxy.request.downstream`) or a client that discards everything
(`proxy.request.mirror`). An upstream connection reports what it reads to a `ResponseSink`: an
exchange (`proxy.request.exchange`) or its hedge (`proxy.request.hedge`). Another protocol on either
side implements one of them and changes nothing else.

They are base classes and not protocols, because mypyc calls the methods of a native base class
through a vtable, and those of a protocol by name.
"""

from typing import TYPE_CHECKING, Final

from proxy.http1.request import RequestHead
from proxy.http1.response import ResponseHead
from proxy.request.failure import Failure
from proxy.request.phases import TUNNEL
from proxy.tls.session_info import TlsSession
from proxy.transport.proxy_header import ProxiedAddress
from proxy.wire.snapshot import Listener

if TYPE_CHECKING:
    from proxy.request.exchange import Exchange
    from proxy.request.upstream import Upstream

NEVER: Final = float("inf")

# What the sink does with the body of a response, by `ResponseSink.response_head`.
REJECTED: Final = 0
"""It wants no body: another attempt is made, or the exchange is over."""
AS_IS: Final = 1
"""It takes the body without framing, or in the response's own chunks."""
IN_CHUNKS: Final = 2
"""It takes the body in chunks, whatever its framing."""


class ClientSink:
    """The client's side of one exchange at a time.

    - `listener`: where the request arrived.
    - `peer`: the address at the other end of the connection; empty for a Unix socket.
    - `source`, `address`: the address of the client that sent the request, as text for logs and as
      bytes for policies. Behind a trusted proxy it is the one that this proxy says, else `peer`.
    - `exchange`: the exchange under way, or None.
    - `persistent`: whether another request may follow the response.
    - `fast_path_ok`: whether the client takes a response head as `ResponseHead.ready` has it.
    - `deadline`: monotonic seconds at which the data plane calls `expire`.
    - `tls`: the outcome of the TLS handshake; None in clear text.
    """

    __slots__ = (
        "address",
        "deadline",
        "exchange",
        "fast_path_ok",
        "listener",
        "peer",
        "persistent",
        "source",
        "tls",
    )

    def __init__(
        self, listener: Listener, peer: str, address: bytes, tls: TlsSession | None = None
    ) -> None:
        self.listener = listener
        self.peer = peer
        self.source = peer
        self.address = address
        self.exchange: Exchange | None = None
        self.persistent = True
        self.fast_path_ok = True
        self.deadline = NEVER
        self.tls = tls

    @property
    def scheme(self) -> bytes:
        """The scheme of the URLs that lead to this connection."""
        return b"http" if self.tls is None else b"https"

    # --- called by the exchange

    def expire_at(self, deadline: float) -> None:
        """Have `expire` called at `deadline`, in monotonic seconds."""
        self.deadline = deadline

    def end_after_response(self) -> None:
        """Take no further request after the response."""
        self.persistent = False

    def forwarded_lines(self, head: RequestHead) -> bytes:
        """Return the forwarding field lines, which name the sender of the request, and those that
        name this hop."""
        raise NotImplementedError

    def proxied_address(self) -> ProxiedAddress:
        """Return the address of the client for a PROXY header to an endpoint."""
        return ProxiedAddress(self.source, 0)

    def forget_forwarded_lines(self) -> None:
        """Build the forwarding field lines again: those that name this hop have changed."""

    def respond(self, head: bytes, body: bytes) -> None:
        """Send a whole response: its head in the form of HTTP/1.1 with the empty line, and its
        body, framed as the head says."""

    def send_head(self, head: bytes) -> None:
        """Send the head of a response whose body follows, of an interim response, or of a switch
        of protocols; in the form of HTTP/1.1 with the empty line."""

    def write(self, data: bytes) -> None:
        """Send bytes of the body, in chunks if `RequestHead.takes_chunks`, or of a tunnel."""

    def send_trailers(self, lines: bytes) -> None:
        """Send field lines behind the body, after the bytes that are still written. Not called if
        the body is sent in chunks, which hold them."""

    def send_error(
        self, head: RequestHead, why: Failure, status: int, extra: bytes, *, complete: bool
    ) -> None:
        """Send a response of the proxy's own and end the exchange. `extra` holds more field
        lines; `complete` says whether the whole request was read."""

    def exchange_over(self, now: float, *, complete: bool) -> None:
        """Take the next request, or end the connection: the response is sent. `complete` says
        whether the whole request was read."""

    def break_off(self, *, abruptly: bool) -> None:
        """End so that the client sees that the response is incomplete. `abruptly`: a clean end
        would look like the end of the body."""

    def close(self) -> None:
        """End once everything written is sent."""

    def abort(self) -> None:
        """End at once."""

    def pause(self) -> None:
        """Stop reading the request's body."""

    def resume(self) -> None:
        """Read the request's body again."""

    def open_tunnel(self) -> None:
        """Pass all further bytes of the client to `Exchange.tunnel_data`."""

    def finish_tunnel(self) -> None:
        """Send the client an end of stream: the upstream has ended its side of the tunnel."""

    # --- called by the data plane

    def expire(self, now: float) -> None:
        """Act on the deadline, which has passed."""

    def drain(self) -> None:
        """End after the current response, or soon if no request is under way."""

    def end_if_overdue(self, now: float, waited: float, requests: float, tunnels: float) -> None:
        """End what a drain, which has `waited` for seconds, waits for no longer: a tunnel after the
        time that its service sets and after `tunnels` seconds at most, anything else after
        `requests` seconds."""
        exchange = self.exchange
        if exchange is None or exchange.phase != TUNNEL:
            if waited >= requests:
                self.abort()
        elif waited >= min(exchange.service.config.drain_tunnels, tunnels):
            exchange.end_tunnel(now)

    def has_unsent_bytes(self) -> bool:
        """Return whether written bytes have not left yet."""
        return False

    def is_reset(self) -> bool:
        """Return whether the client has reset its connection, which is not read from."""
        return False

    def may_send_request(self) -> bool:
        """Return whether another request may be on its way."""
        return False


class ResponseSink:
    """What an upstream connection reports to. Of one request it calls `connected`,
    `connect_failed` or `connection_full` if the connection is new, then for the response any number
    of `interim_response`, then

    - `whole_response`, or
    - `response_head`, `response_data` any number of times and `response_end`, or
    - `switch_protocols`, `response_data` any number of times and `upstream_finished`, or
    - `request_refused`, or
    - `bad_response` or `upstream_lost` at any point.

    `bodyless` says that the response has no body whatever its head says, as for HEAD.
    """

    bodyless = False

    def connected(self, upstream: "Upstream") -> None:
        """The connection is open."""

    def connect_failed(self, error: OSError) -> None:
        """The connection could not be opened."""

    def connection_full(self) -> None:
        """The connection is open, and others have taken all streams that the endpoint allows."""

    def interim_response(self, head: ResponseHead) -> None:
        """A response head with a 1xx status other than 101."""

    def whole_response(self, head: ResponseHead, body: bytes, *, reusable: bool) -> None:
        """A response whose head and body came together. `reusable`: the connection may carry
        another request."""

    def response_head(self, head: ResponseHead, *, until_close: bool) -> int:
        """The head of a response whose body follows; `until_close` says that the end of the
        connection ends it. Return REJECTED, AS_IS or IN_CHUNKS."""
        raise NotImplementedError

    def response_data(self, data: bytes) -> None:
        """More of the body, in the form that `response_head` asked for."""

    def response_trailers(self, lines: bytes) -> None:
        """The field lines behind a body whose form is AS_IS. `response_end` follows."""

    def response_end(self, last: bytes, *, reusable: bool) -> None:
        """The body is complete with `last`, which may be empty."""

    def switch_protocols(self, head: ResponseHead) -> bool:
        """A response with status 101. Return whether a tunnel was opened; if not, the sink has
        failed."""
        raise NotImplementedError

    def upstream_finished(self) -> None:
        """The upstream has ended its side of the tunnel."""

    def bad_response(self, reason: str) -> None:
        """The bytes read are not one valid response."""

    def request_refused(self) -> None:
        """The endpoint did not process the request, and may be sent it again."""

    def upstream_lost(self, *, answering: bool) -> None:
        """The connection ended too early; `answering`: a part of the response was read."""

    def upstream_full(self) -> None:
        """The connection takes no more bytes for now."""

    def upstream_writable(self) -> None:
        """The connection takes bytes again."""


class StreamPool:
    """Connections to one endpoint that carry several requests at once. An endpoint that speaks
    HTTP/2 has one (`EndpointState.streams`, implemented by `proxy.http2_upstream.pool`); `Exchange`
    and `Hedge` open a stream on it for each attempt."""

    def open(self, sink: ResponseSink) -> "Upstream":
        """Open a stream, which reports to `sink`. If its connection is not open yet,
        `ResponseSink.connected` or `connect_failed` follows; else `Upstream.requests` is positive
        and the request can be sent at once."""
        raise NotImplementedError

    def has_room(self) -> bool:
        """Return whether one more stream needs no new connection."""
        raise NotImplementedError

    def close_idle(self, now: float) -> None:
        """Close connections that had no stream for too long at `now`. At infinity, close all of
        them once their streams have ended, and open none on them."""

    def close(self) -> None:
        """Close all connections at once."""
