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

    - `context`: the listener's context; it may choose another one by the client's server name.
    - `seconds`: deadline; `limit`: unfinished handshakes that a client's address may have.
    """

    __slots__ = (
        "_address", "_carrier", "_context", "_counters", "_ended", "_limit", "_on_ready",
        "_seconds",
    )  # fmt: skip

    def __init__(
        self,
        context: ssl.SSLContext,
        handshake_counters: HandshakeCounters,
        on_ready: Ready,
        *,
        seconds: float,
        limit: int,
    ) -> None:
        self._context = context
        self._counters = handshake_counters
        self._on_ready = on_ready
        self._seconds = seconds
        self._limit = limit
        self._address = ""
        self._carrier: asyncio.Transport | None = None
        self._ended = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the handshake; the second call comes when it is complete."""
        transport = cast("asyncio.Transport", transport)
        if self._carrier is not None:
            self._complete(transport, self._carrier)
            return
        self._carrier = transport
        peer = transport.get_extra_info("peername")
        if isinstance(peer, tuple):
            self._address = peer[0].removeprefix("::ffff:")
        if not self._counters.begin(self._address, self._limit):
            self._ended = True
            transport.abort()
            return
        encryption = _create_ssl_protocol(self, self._context, _Outcome(self), self._seconds)
        transport.set_protocol(encryption)
        encryption.connection_made(transport)

    def _complete(self, transport: asyncio.Transport, carrier: asyncio.Transport) -> None:
        connection = cast("ssl.SSLObject", transport.get_extra_info("ssl_object"))
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
) -> asyncio.Protocol:
    """Return the event loop's protocol for TLS. `loop.start_tls` would create the same, with a
    task for each connection, and could lose bytes that arrive before the task runs."""
    loop = asyncio.get_running_loop()
    made: Any = sslproto.SSLProtocol
    if isinstance(loop, uvloop.Loop):
        made = uvloop.loop.SSLProtocol  # type: ignore[attr-defined]
    protocol: asyncio.Protocol = made(
        loop,
        handshake,
        context,
        outcome,
        True,  # the server's side
        ssl_handshake_timeout=seconds,
        ssl_shutdown_timeout=SHUTDOWN_SECONDS,
    )
    return protocol
