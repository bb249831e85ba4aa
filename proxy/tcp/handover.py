"""Takes accepted connections over from the event loop, and starts a session for each.

`proxy.worker.handover` creates one `TcpHandover` for each worker and calls `protocol` for
connections to services with protocol `tcp`.
"""

import asyncio
import os
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from proxy.tcp import sockets
from proxy.tcp.direction import SharedBuffers
from proxy.tcp.poller import Poller
from proxy.tcp.session import TcpSession
from proxy.wire.snapshot import Listener

if TYPE_CHECKING:
    from proxy.request.data_plane import DataPlane
    from proxy.state.service_state import ServiceState


class TcpHandover:
    """The TCP side of one worker. `pipes` are the kernel pipes that its sessions use."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._poller = Poller(loop)
        self._buffers = SharedBuffers()
        self.pipes = self._buffers.pipes

    def close(self) -> None:
        """Stop watching sockets, after the sessions have ended."""
        self._poller.close()
        self._buffers.pipes.close()

    def protocol(
        self, plane: "DataPlane", listener: Listener, service: "ServiceState", caller: str
    ) -> asyncio.Protocol:
        """Return the protocol of a connection that leads to `service`. `caller` is the caller's
        name in counts."""

        def start(client: socket.socket, peer: str) -> None:
            peer = listener.client[0] or peer
            session = TcpSession(
                plane, self._poller, self._buffers, listener, service, caller, client, peer
            )
            session.start()

        return _Takeover(start)


class _Takeover(asyncio.Protocol):
    """Takes the socket from the transport before a byte is read."""

    def __init__(self, start: Callable[[socket.socket, str], None]) -> None:
        self._start = start

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast("asyncio.Transport", transport)
        peer = transport.get_extra_info("peername")
        try:
            client = socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno()))
            sockets.prepare(client)
        except OSError:
            transport.abort()  # no descriptor is left, or the client has gone already
            return
        # This closes the transport's own descriptor only: the connection has another one now.
        transport.abort()
        address = peer[0].removeprefix("::ffff:") if isinstance(peer, tuple) else ""
        self._start(client, address)
