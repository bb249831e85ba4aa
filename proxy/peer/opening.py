"""Opens a connection to an endpoint through the proxy of its node.

`proxy.request.connection_pool` and the probes of `meshd.discovery` give it a connected socket. It
ends with the answer of the other proxy, so that no byte was sent to an endpoint that refuses.
"""

import asyncio
import errno
import ssl
from typing import cast

from proxy.peer.protocol import PeerAnswer, encode_request, read_valid_from
from proxy.peer.routes import PeerRoute
from proxy.tls.peer_transport import PeerTransport
from proxy.transport.upstream_tls import TlsFailed, describe_error, describe_refusal


class PeerOpening(asyncio.Protocol):
    """The protocol of a connection until the other proxy has answered. `port`: the endpoint's."""

    def __init__(self, loop: asyncio.AbstractEventLoop, route: PeerRoute, port: int) -> None:
        if route.tls is None:
            raise ConnectionRefusedError(errno.ECONNREFUSED, route.problem)
        self._tls = route.tls
        self._valid_from = route.valid_from
        self._port = port
        self._done: asyncio.Future[None] = loop.create_future()
        self._carrier: asyncio.Transport | None = None
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        context = route.tls.prepare()
        self._state: ssl.SSLObject = context.wrap_bio(
            self._incoming, self._outgoing, server_hostname=route.tls.server_name
        )
        self._is_open = False

    async def wait(self, protocol: asyncio.Protocol) -> PeerTransport:
        """Return the transport of the connection, once the other proxy is connected to the
        endpoint. `protocol` gets what arrives. Raises OSError."""
        try:
            await self._done
        except BaseException:
            if self._carrier is not None:
                self._carrier.abort()
            raise
        carrier = self._carrier
        assert carrier is not None
        transport = PeerTransport(carrier, protocol, self._state, self._incoming, self._outgoing)
        carrier.set_protocol(cast("asyncio.Protocol", transport))
        carrier.resume_reading()
        protocol.connection_made(cast("asyncio.Transport", transport))
        transport.begin()
        return transport

    # --- called by the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._carrier = cast("asyncio.Transport", transport)
        self._advance()

    def data_received(self, data: bytes) -> None:
        self._incoming.write(data)
        self._advance()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        if isinstance(exc, OSError):
            self._fail(exc)
        else:
            self._fail(ConnectionResetError(errno.ECONNRESET, "the proxy of the node ended it"))

    # --- the steps

    def _advance(self) -> None:
        """Take the next step of the handshake, or read the answer."""
        if self._done.done():
            return
        try:
            if not self._is_open:
                self._state.do_handshake()
                certificate = self._state.getpeercert()
                if not certificate or read_valid_from(certificate) < self._valid_from:
                    raise TlsFailed(
                        f"the certificate of {self._tls.server_name} is from before it joined"
                    )
                self._is_open = True
                self._state.write(encode_request(self._port))
                self._flush()
            self._take_answer(self._state.read(1))
        except ssl.SSLWantReadError:
            self._flush()
        except ssl.SSLError as error:
            self._flush()
            text = describe_refusal(error) or describe_error(error, self._tls.server_name)
            self._fail(TlsFailed(text))
        except TlsFailed as error:
            self._fail(error)

    def _take_answer(self, answer: bytes) -> None:
        if not answer:
            self._fail(ConnectionResetError(errno.ECONNRESET, "the proxy of the node ended it"))
        elif answer[0] == PeerAnswer.CONNECTED:
            if self._carrier is not None:
                # Until `wait` continues: another protocol reads the rest.
                self._carrier.pause_reading()
            self._done.set_result(None)
        elif answer[0] == PeerAnswer.FORBIDDEN:
            self._fail(TlsFailed("the proxy of the node does not know this one"))
        else:
            self._fail(ConnectionRefusedError(errno.ECONNREFUSED, "connection refused"))

    def _fail(self, error: OSError) -> None:
        if not self._done.done():
            self._done.set_exception(error)
            self._done.exception()  # `wait` need not ask for it

    def _flush(self) -> None:
        if self._outgoing.pending and self._carrier is not None:
            self._carrier.write(self._outgoing.read())
