"""The protocol of an accepted connection until its TLS handshake is complete.

`proxy.worker.negotiated` creates one for each connection to a listener with TLS, and gets the
encrypted connection after the handshake. One that fails is counted and closed; nothing else
notices it.
"""

import asyncio
import ssl
from collections.abc import Callable
from typing import Any, Final, cast

from proxy.tls import counters
from proxy.tls.client_hello import BadHello, ClientHello, parse_client_hello
from proxy.tls.contexts import ACME_PROTOCOL, ServerContexts
from proxy.tls.counters import HandshakeCounters, Unfinished
from proxy.tls.peer_transport import PeerTransport
from proxy.tls.session_info import TlsSession, describe_session
from proxy.tls.transport import TlsTransport

_CLIENT_CERTIFICATE_ERRORS: Final = frozenset(
    (
        "CERTIFICATE_VERIFY_FAILED",
        "NO_CERTIFICATE_RETURNED",
        "PEER_DID_NOT_RETURN_A_CERTIFICATE",
        "TLSV13_ALERT_CERTIFICATE_REQUIRED",
    )
)
"""Names of OpenSSL for errors about the client's certificate."""

Ready = Callable[[TlsTransport, TlsSession], None]
"""Gets the transport of a connection whose handshake is complete, and the outcome. Sets the
protocol of the connection."""

AnswerOf = Callable[[bytes], bytes]
"""Returns the answer in clear text to first bytes that are not TLS; empty for none."""


class Handshake(Unfinished):
    """One handshake. It has the methods of an `asyncio.Protocol` without the base class, so that it
    can be compiled to a native class.

    - `contexts`: those of the listener.
    - `answer_of`: for a client that does not speak TLS.
    - `seconds`: deadline; `limit`: unfinished handshakes that a client's address may have.
    - `address`: the client's address, if it is not that of the connection.
    """

    __slots__ = (
        "_address", "_answer_of", "_carrier", "_connection", "_contexts", "_counters", "_ended",
        "_hello", "_incoming", "_limit", "_on_ready", "_outgoing", "_seconds",
    )  # fmt: skip

    def __init__(
        self,
        contexts: ServerContexts,
        handshake_counters: HandshakeCounters,
        on_ready: Ready,
        answer_of: AnswerOf,
        seconds: float,
        limit: int,
        address: str = "",
    ) -> None:
        self._contexts = contexts
        self._counters = handshake_counters
        self._on_ready = on_ready
        self._answer_of = answer_of
        self._seconds = seconds
        self._limit = limit
        self._address = address
        self._carrier: asyncio.Transport | None = None
        self._ended = False
        self._hello = b""
        self._connection: ssl.SSLObject | None = None
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for the first bytes of the client."""
        self._carrier = carrier = cast("asyncio.Transport", transport)
        if not self._address:
            peer = carrier.get_extra_info("peername")
            if isinstance(peer, tuple):
                self._address = peer[0].removeprefix("::ffff:")
        if not self._counters.begin(self, self._address, self._limit, self._seconds):
            self._ended = True
            carrier.abort()

    def data_received(self, data: bytes) -> None:
        """Take the next step of the handshake."""
        connection = self._connection
        begins = connection is None
        if connection is None:
            connection = self._begin(data)
            if connection is None:
                return
        else:
            self._incoming.write(data)
        try:
            connection.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
        except OSError as error:
            answer = self._answer_of(data) if begins else b""
            if answer and self._carrier is not None:
                self._carrier.write(answer)
            else:
                # The alert that OpenSSL has written.
                self._flush()
            self.fail(error)
            self._close()
        else:
            self._complete()

    def eof_received(self) -> bool:
        """The client has gone."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has gone before the handshake was complete."""
        del exc
        self.fail(None)

    def pause_writing(self) -> None:
        """Do nothing: a handshake writes little, and only in answer to the client."""

    def resume_writing(self) -> None:
        """Do nothing, see `pause_writing`."""

    def expire(self) -> None:
        self.fail(ConnectionAbortedError())
        if self._carrier is not None:
            self._carrier.abort()

    def _begin(self, data: bytes) -> ssl.SSLObject | None:
        """Begin with the settings and the certificate that the client's first bytes choose. Return
        None if they are not complete."""
        contexts = self._contexts
        context = None
        if self._hello:
            # What came while a challenge was open. It may have ended since.
            data, self._hello = self._hello + data, b""
        if contexts.has_challenges:
            # The certificate depends on what the client offers.
            try:
                hello = parse_client_hello(data)
            except BadHello:
                # OpenSSL knows the right alert.
                hello = ClientHello()
            if hello is None:
                self._hello = data
                return None
            context = contexts.find_challenge(hello.server_name, hello.protocols)
        if context is None:
            context = contexts.find_renewing(data) or contexts.default
        self._incoming.write(data)
        # What `wrap_bio` does, without the object of Python around that of C.
        made = cast("Any", context)._wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._connection = connection = cast("ssl.SSLObject", made)
        return connection

    def _flush(self) -> None:
        if self._outgoing.pending and self._carrier is not None:
            self._carrier.write(self._outgoing.read())

    def _close(self) -> None:
        if self._carrier is not None:
            self._carrier.close()

    def _complete(self) -> None:
        carrier, connection = self._carrier, self._connection
        assert carrier is not None
        assert connection is not None
        session = describe_session(connection, certificates=self._contexts.asks_clients)
        if session.protocol == ACME_PROTOCOL:
            # The handshake was all that the authority wanted (RFC 8737, section 3).
            self._flush()
            self._end(counters.COMPLETE)
            self._close()
            return
        if session.version != "TLSv1.3":
            self._flush()
        # The tickets of TLS 1.3 leave together with the first bytes of the connection.
        self._end(counters.RESUMED if session.resumed else counters.COMPLETE)
        make = PeerTransport if self._contexts.serves_peers else TlsTransport
        transport = make(
            carrier,
            cast("asyncio.Protocol", self),
            connection,
            self._incoming,
            self._outgoing,
        )
        carrier.set_protocol(cast("asyncio.Protocol", transport))
        self._on_ready(transport, session)
        transport.begin()

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
        self._counters.end(self, self._address, outcome, detail)
