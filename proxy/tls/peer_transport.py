"""The transport of a connection between two proxies, inside TLS.

`proxy.peer.opening` makes it on the sending side, `handshake` on the receiving one. Other than
connections of clients, each direction ends for itself, as those of TCP do: by the notice of TLS
(RFC 8446, section 6.1). An end of the carrier without a notice is a broken connection: the other
process or machine is gone, and what it sent is not complete.
"""

import asyncio
import contextlib
import ssl
from typing import Any, cast

from proxy.tls.transport import TlsTransport


class PeerTransport(TlsTransport):
    """One connection."""

    __slots__ = ("_lost", "_wrote_end")

    def __init__(
        self,
        carrier: asyncio.Transport,
        protocol: asyncio.Protocol,
        connection: ssl.SSLObject,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
    ) -> None:
        super().__init__(carrier, protocol, connection, incoming, outgoing)
        self._wrote_end = False
        self._lost: Exception | None = None

    def _end(self) -> None:
        """Act on the peer's notice: the other direction continues if the protocol wants that."""
        if not self._protocol.eof_received() or self._wrote_end:
            self.close()

    def eof_received(self) -> bool:
        """Act on the end of the carrier, which closes it."""
        if not self._peer_ended and not self._closing:
            self._lost = ConnectionResetError("the proxy of the other node ended")
        self._closing = True
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc or self._lost)

    def can_write_eof(self) -> bool:
        """Return True: one direction may end."""
        return True

    def write(self, data: bytes) -> None:
        if not self._wrote_end:
            super().write(data)

    def writelines(self, pieces: list[bytes]) -> None:
        if not self._wrote_end:
            super().writelines(pieces)

    def write_eof(self) -> None:
        """End this direction, after what was written."""
        if self._closing or self._wrote_end:
            return
        self._wrote_end = True
        if self._peer_ended:
            self.close()
            return
        self._write_notice()

    def abort(self) -> None:
        """End the connection at once. To the peer that is a clean end, as on a plain connection,
        unless bytes are unsent, or the caller has asked for a reset."""
        if self._closing or self.carrier.is_closing() or self.carrier.get_write_buffer_size():
            super().abort()
            return
        self._closing = True
        self._write_notice()
        self.carrier.close()

    def break_off(self) -> None:
        """End the connection once everything is sent, so that the peer sees that it is broken."""
        self._closing = True
        self.carrier.close()

    def _write_notice(self) -> None:
        with contextlib.suppress(ssl.SSLError):  # it waits for the notice of the peer
            cast("Any", self._connection).shutdown()
        self._flush()
