"""The receiving side of a connection from proxy to proxy: passes it on to an endpoint of this node.

`proxy.worker.negotiated` creates a `PeerRelay` for each connection to the port for proxies, after
a handshake in which the other side has proved that it belongs to the mesh. It asks for a port; only
one of an endpoint that the snapshot has on this node is connected, so that the port leads nowhere
else. To the data plane it is a client like any other (`ClientSink`): it has a deadline, and a
worker that must go waits for it.
"""

import asyncio
import ssl
import time
from typing import TYPE_CHECKING, Final, cast

from proxy.peer.pipe import PipeEnd, join
from proxy.peer.protocol import (
    OPEN_SECONDS,
    PEER_ALPN,
    REQUEST_BYTES,
    PeerAnswer,
    decode_request,
    read_name,
    read_valid_from,
)
from proxy.request.sinks import NEVER, ClientSink
from proxy.tls.peer_transport import PeerTransport
from proxy.tls.session_info import TlsSession
from proxy.wire.snapshot import Listener

if TYPE_CHECKING:
    from proxy.request.data_plane import DataPlane

CONNECT_SECONDS: Final = 5.0
"""Seconds to connect to an endpoint of this node: the kernel answers at once, unless the endpoint
accepts nothing for the moment."""
MOST_TUNNEL_SECONDS: Final = 3600.0
"""Seconds for which a worker that must go keeps a connection. Those of requests end much earlier
(`PEER_SECONDS`); the others are tunnels and TCP sessions, see `Service.drain_tunnels`."""
REFUSALS: Final = {
    PeerAnswer.REFUSED: "peer-refused",
    PeerAnswer.UNKNOWN: "peer-unknown",
    PeerAnswer.FORBIDDEN: "peer-forbidden",
}
"""The reasons under which connections that are not passed on are counted."""


class PeerRelay(ClientSink):
    """One connection. It has the methods of an `asyncio.Protocol` without the base class, so that
    it can be compiled to a native class."""

    __slots__ = ("_buffer", "_plane", "_remote", "_task", "_transport")

    def __init__(self, plane: "DataPlane", listener: Listener, session: TlsSession) -> None:
        super().__init__(listener, "", b"", session)
        self._plane = plane
        self._transport: PeerTransport | None = None
        self._buffer = b""
        self._task: asyncio.Task[None] | None = None
        self._remote: PipeEnd | None = None

    # --- called by the transport, until the endpoint is connected

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for the request."""
        self._transport = cast("PeerTransport", transport)
        self.deadline = self._plane.clock() + OPEN_SECONDS
        self._plane.clients.add(self)
        self._plane.descriptors.count_to_endpoints(1)  # each has a connection to an endpoint

    def data_received(self, data: bytes) -> None:
        """Read the request. Bytes behind it are not sent before the answer."""
        self._buffer += data
        if self._task is not None or len(self._buffer) < REQUEST_BYTES:
            return
        refusal = self._check()
        if refusal is not None:
            self._refuse(refusal)
            return
        port = decode_request(self._buffer)
        host = self._plane.peers.find_own(port)
        if not host or len(self._buffer) > REQUEST_BYTES:
            self._refuse(PeerAnswer.UNKNOWN)
            return
        self.deadline = NEVER
        self._task = self._plane.loop.create_task(self._connect(host, port))

    def eof_received(self) -> bool:
        """End: the sender has given up."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The sender has given up."""
        del exc
        self._transport = None
        if self._task is not None:
            self._task.cancel()
        self._over()

    def pause_writing(self) -> None:
        """Do nothing: the answer is one byte."""

    def resume_writing(self) -> None:
        """Do nothing, see `pause_writing`."""

    # --- the steps

    def _check(self) -> PeerAnswer | None:
        """Return why the sender gets nothing; None if it is a node of the mesh, and its certificate
        is still valid, and not from before the node joined: a session that is resumed may be
        older."""
        client, transport = self.tls.client if self.tls is not None else None, self._transport
        name = read_name(client.names) if client is not None else ""
        if self.tls is None or self.tls.protocol not in PEER_ALPN:
            return PeerAnswer.FORBIDDEN
        if transport is None or not name:
            return PeerAnswer.FORBIDDEN
        state: ssl.SSLObject = transport.get_extra_info("ssl_object")
        certificate = state.getpeercert() or {}
        ends = str(certificate.get("notAfter", ""))
        if not ends or ssl.cert_time_to_seconds(ends) < time.time():
            return PeerAnswer.FORBIDDEN
        if not self._plane.peers.is_member(name, read_valid_from(certificate)):
            return PeerAnswer.FORBIDDEN
        return None

    async def _connect(self, host: str, port: int) -> None:
        """Connect to the endpoint, and join the two connections."""
        local = PipeEnd(self._ended)
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await self._plane.loop.create_connection(lambda: local, host, port)
        except (OSError, TimeoutError):
            self._task = None
            self._refuse(PeerAnswer.REFUSED)
            return
        self._task = None
        transport = self._transport
        if transport is None or transport.is_closing():
            if local.transport is not None:
                local.transport.abort()
            return
        remote = PipeEnd(self._ended)
        remote.connection_made(cast("asyncio.Transport", transport))
        self._remote = remote
        transport.write(bytes((PeerAnswer.CONNECTED,)))
        transport.set_protocol(remote)
        join(remote, local)

    def _refuse(self, answer: PeerAnswer) -> None:
        self._plane.count_refused(REFUSALS[answer])
        transport = self._transport
        if transport is not None and not transport.is_closing():
            transport.write(bytes((answer,)))
            transport.close()
            self.deadline = self._plane.clock() + OPEN_SECONDS

    def _ended(self) -> None:
        """One side has ended; the other one follows."""
        remote = self._remote
        if remote is None or remote.transport is None:
            self._over()

    def _over(self) -> None:
        if self in self._plane.clients:
            self._plane.clients.discard(self)
            self._plane.descriptors.count_to_endpoints(-1)

    # --- called by the data plane

    def expire(self, now: float) -> None:
        """End: no request has come, or the sender does not end a refused connection."""
        del now
        self.abort()

    def abort(self) -> None:
        """End at once, so that both sides see that."""
        if self._remote is not None:
            self._remote.break_off()
        elif self._transport is not None:
            self._transport.abort()

    def end_if_overdue(self, now: float, waited: float, requests: float, tunnels: float) -> None:
        """See `ClientSink.end_if_overdue`."""
        del now, requests
        if waited >= min(MOST_TUNNEL_SECONDS, tunnels):
            self.abort()

    def has_unsent_bytes(self) -> bool:
        """Return whether it has not ended: it may send bytes at any time."""
        return self._remote is not None
