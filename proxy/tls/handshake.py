"""The protocol of an accepted connection until its TLS handshake is complete.

`proxy.worker.negotiated` creates one for each connection to a listener with TLS, and gets the
encrypted connection after the handshake. One that fails is counted and closed; nothing else
notices it.
"""

import asyncio
import ssl
from asyncio import sslproto
from collections.abc import Callable
from typing import Any, Final, cast

import uvloop.loop

from proxy.tls import counters
from proxy.tls.client_hello import BadHello, ClientHello, parse_client_hello
from proxy.tls.contexts import ACME_PROTOCOL, ServerContexts
from proxy.tls.counters import HandshakeCounters

SHUTDOWN_SECONDS: Final = 60.0
"""Time for a client to take the rest of a response and to answer the end of TLS. The request path
ends connections earlier where nothing is left to send."""
_CLIENT_CERTIFICATE_ERRORS: Final = frozenset(
    (
        "CERTIFICATE_VERIFY_FAILED",
        "NO_CERTIFICATE_RETURNED",
        "PEER_DID_NOT_RETURN_A_CERTIFICATE",
        "TLSV13_ALERT_CERTIFICATE_REQUIRED",
    )
)
"""Names of OpenSSL for errors about the client's certificate."""

Ready = Callable[[asyncio.Transport, asyncio.Transport], None]
"""Gets the transport of a connection whose handshake is complete, and that of its encrypted
bytes."""


class Handshake(asyncio.Protocol):
    """One handshake.

    - `contexts`: those of the listener.
    - `seconds`: deadline; `limit`: unfinished handshakes that a client's address may have.
    - `address`: the client's address, if it is not that of the connection.
    """

    __slots__ = (
        "_address", "_carrier", "_contexts", "_counters", "_ended", "_hello", "_limit", "_on_ready",
        "_seconds", "_timer",
    )  # fmt: skip

    def __init__(
        self,
        contexts: ServerContexts,
        handshake_counters: HandshakeCounters,
        on_ready: Ready,
        *,
        seconds: float,
        limit: int,
        address: str = "",
    ) -> None:
        self._contexts = contexts
        self._counters = handshake_counters
        self._on_ready = on_ready
        self._seconds = seconds
        self._limit = limit
        self._address = address
        self._carrier: asyncio.Transport | None = None
        self._ended = False
        self._hello = b""
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the handshake; the second call comes when it is complete."""
        transport = cast("asyncio.Transport", transport)
        if self._carrier is not None:
            self._complete(transport, self._carrier)
            return
        self._carrier = transport
        peer = transport.get_extra_info("peername")
        if not self._address and isinstance(peer, tuple):
            self._address = peer[0].removeprefix("::ffff:")
        if not self._counters.begin(self._address, self._limit):
            self._ended = True
            transport.abort()
            return
        if self._contexts.has_challenges:
            # The certificate depends on what the client offers.
            self._timer = asyncio.get_running_loop().call_later(self._seconds, self._expire)
        else:
            self._encrypt(self._contexts.default)

    def data_received(self, data: bytes) -> None:
        """Read what the client offers, before the handshake begins."""
        self._hello += data
        try:
            hello = parse_client_hello(self._hello)
        except BadHello:
            # OpenSSL knows the right alert.
            hello = ClientHello()
        if hello is None:
            return
        found = self._contexts.find_challenge(hello.server_name, hello.protocols)
        self._encrypt(found or self._contexts.default)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has gone before the handshake began."""
        del exc
        self._stop_timer()
        self.fail(None)

    def _expire(self) -> None:
        self.fail(ConnectionAbortedError())
        if self._carrier is not None:
            self._carrier.abort()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _encrypt(self, context: ssl.SSLContext) -> None:
        """Start the handshake, with what was received of it."""
        carrier, data = self._carrier, self._hello
        assert carrier is not None
        self._stop_timer()
        self._hello = b""
        encryption = _create_ssl_protocol(self, context, _Outcome(self), self._seconds)
        carrier.set_protocol(encryption)
        encryption.connection_made(carrier)
        while data:
            buffer = encryption.get_buffer(len(data))
            size = min(len(buffer), len(data))
            buffer[:size] = data[:size]
            encryption.buffer_updated(size)
            data = data[size:]

    def _complete(self, transport: asyncio.Transport, carrier: asyncio.Transport) -> None:
        connection = cast("ssl.SSLObject", transport.get_extra_info("ssl_object"))
        if connection.selected_alpn_protocol() == ACME_PROTOCOL:
            # The handshake was all that the authority wanted (RFC 8737, section 3).
            self._end(counters.COMPLETE)
            transport.close()
            return
        resumed = connection.session_reused
        self._end(counters.RESUMED if resumed else counters.COMPLETE)
        self._on_ready(transport, carrier)

    def fail(self, error: BaseException | None) -> None:
        """Count a handshake that has failed. The connection is closed already."""
        if self._ended:
            return
        if isinstance(error, ssl.SSLError):
            reason = error.reason or type(error).__name__
            about_client = reason in _CLIENT_CERTIFICATE_ERRORS
            outcome = counters.CERTIFICATE if about_client else counters.INVALID
            self._end(outcome, reason.lower().replace("_", " "))
        elif isinstance(error, ConnectionAbortedError):
            self._end(counters.TIMEOUT)
        else:
            self._end(counters.CLOSED)

    def _end(self, outcome: str, detail: str = "") -> None:
        self._ended = True
        self._counters.end(self._address, outcome, detail)


class _Outcome:
    """Takes the outcome of a handshake in the place of a future, so that none is created."""

    __slots__ = ("_handshake",)

    def __init__(self, handshake: Handshake) -> None:
        self._handshake = handshake

    def cancelled(self) -> bool:
        return False

    def set_result(self, result: None) -> None:
        """The handshake is complete, or the connection was lost without an error."""
        del result
        self._handshake.fail(None)

    def set_exception(self, error: BaseException) -> None:
        self._handshake.fail(error)


def _create_ssl_protocol(
    handshake: Handshake, context: ssl.SSLContext, outcome: _Outcome, seconds: float
) -> Any:
    """Return the event loop's protocol for TLS. `loop.start_tls` would create the same, with a
    task for each connection, and could lose bytes that arrive before the task runs."""
    loop = asyncio.get_running_loop()
    made: Any = sslproto.SSLProtocol
    if isinstance(loop, uvloop.Loop):
        made = uvloop.loop.SSLProtocol  # type: ignore[attr-defined]
    return made(
        loop,
        handshake,
        context,
        outcome,
        True,  # the server's side
        ssl_handshake_timeout=seconds,
        ssl_shutdown_timeout=SHUTDOWN_SECONDS,
    )
