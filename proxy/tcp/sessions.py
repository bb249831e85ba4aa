"""The TCP side of one worker: starts a session for each connection to a TCP service, and keeps what
sessions share.

`worker` owns the only `TcpSessions`; `proxy.worker.handover` calls `start` with the sockets of
accepted connections to services with protocol `tcp`.
"""

import asyncio
import socket
from typing import TYPE_CHECKING, Final

from proxy.tcp.direction import SharedBuffers
from proxy.tcp.poller import Poller
from proxy.tcp.session import TcpSession
from proxy.wire.snapshot import Listener

if TYPE_CHECKING:
    from proxy.request.data_plane import DataPlane
    from proxy.state.service_state import ServiceState

KEEP_ALIVE_AFTER: Final = 10.0
"""Seconds after which sessions get the options for peers that vanish. Shorter ones, which are most
where each message has its own connection, save ten system calls."""


class TcpSessions:
    """Starts the sessions of one worker. `pipes` are the kernel pipes that they use."""

    def __init__(self, loop: asyncio.AbstractEventLoop, poller: Poller) -> None:
        self._loop = loop
        self._poller = poller
        self._buffers = SharedBuffers()
        self._timer: asyncio.TimerHandle | None = None
        self.pipes = self._buffers.pipes

    def close(self) -> None:
        """Free what sessions share, after they have ended."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._buffers.pipes.close()

    def start(
        self,
        plane: "DataPlane",
        listener: Listener,
        service: "ServiceState",
        caller: str,
        client: socket.SocketType,
        peer: str,
    ) -> None:
        """Pass the bytes of `client` on to `service`. `caller` is the caller's name in counts,
        `peer` the address of the other end."""
        if self._timer is None:
            self._timer = self._loop.call_later(KEEP_ALIVE_AFTER, self._keep_alive, plane)
        session = TcpSession(
            plane,
            self._poller,
            self._buffers,
            listener,
            service,
            caller,
            client,
            listener.client[0] or peer,
        )
        session.start()

    def _keep_alive(self, plane: "DataPlane") -> None:
        """Look after the sessions that have lasted for a while; again as long as there are any."""
        self._timer = None
        lasting = False
        for client in plane.clients:
            if isinstance(client, TcpSession):
                lasting = True
                client.keep_alive()
        if lasting:
            self._timer = self._loop.call_later(KEEP_ALIVE_AFTER, self._keep_alive, plane)
