"""Connects a TCP session to an endpoint of another node, through the proxy there.

`TcpSession` makes a `PeerDial` for each of them, and gets a socket of this process, to which it
passes bytes as to any other.
"""

import asyncio
import socket
from typing import TYPE_CHECKING, Protocol

from proxy.peer.tunnel import Tunnel
from proxy.request import connection_pool

if TYPE_CHECKING:
    from proxy.state.endpoint_state import EndpointState


class DialingSession(Protocol):
    """The session that is to be connected."""

    def peer_connected(self, upstream: socket.socket) -> None:
        """Take the connection."""

    def peer_failed(self, error: OSError) -> None:
        """Take note that there is none."""

    def peer_broke(self) -> None:
        """Take note that it has broken."""


class PeerDial:
    """One attempt to connect, and the connection that follows."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        endpoint: "EndpointState",
        session: DialingSession,
    ) -> None:
        self._session: DialingSession | None = session
        self._tunnel = Tunnel(loop, self._broke)
        self._task: asyncio.Task[None] | None = loop.create_task(self._run(loop, endpoint))

    async def _run(self, loop: asyncio.AbstractEventLoop, endpoint: "EndpointState") -> None:
        try:
            sock = await self._tunnel.open(
                lambda remote: connection_pool.open_peer(loop, endpoint, remote)
            )
        except OSError as error:
            self._task = None
            if self._session is not None:
                self._session.peer_failed(error)
            return
        self._task = None
        if self._session is None:
            sock.close()
            self._tunnel.abort()
        else:
            self._session.peer_connected(sock)

    def end(self, *, reset: bool) -> None:
        """End the attempt or the connection. With `reset`, the endpoint sees that it was broken
        off; without, the end of the socket ends it."""
        self._session = None
        if self._task is not None:
            self._task.cancel()
        elif reset:
            self._tunnel.abort()

    def _broke(self) -> None:
        if self._session is not None:
            self._session.peer_broke()
