"""A connection to an endpoint of another node as a plain socket of this process.

`proxy.request.connection_pool` uses it where an own handshake or a PROXY header follows,
`proxy.tcp.peer_dial` for TCP sessions, and `meshd.discovery` for probes: they work on sockets.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable

from proxy.peer.pipe import PipeEnd, join

Dial = Callable[[asyncio.Protocol], Awaitable[object]]
"""Opens a connection for a protocol. Raises OSError."""


def _ignore() -> None:
    """Do nothing: the default of `on_broken`."""


class Tunnel:
    """Joins a connection between two proxies with a pair of sockets.

    - `remote`: the protocol of the connection to the other proxy.
    - `on_broken`: called when that has broken. The socket alone would only say that it has ended.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, on_broken: Callable[[], None] = _ignore
    ) -> None:
        self._loop = loop
        self.remote = _Remote(on_broken)
        self._local = PipeEnd(_ignore)

    async def open(self, dial: "Dial") -> socket.socket:
        """Return the socket, once `dial` has opened the connection to the other proxy. Raises
        OSError."""
        inner, outer = socket.socketpair()
        try:
            inner.setblocking(False)
            outer.setblocking(False)
            await self._loop.create_unix_connection(lambda: self._local, sock=outer)
            await dial(self.remote)
        except BaseException:
            inner.close()
            if self._local.transport is None:
                outer.close()
            self._local.break_off()
            self.abort()
            raise
        join(self.remote, self._local)
        return inner

    def abort(self) -> None:
        """Break the connection off, so that the endpoint sees that."""
        self.remote.break_off()


class _Remote(PipeEnd):
    """The side of the other proxy."""

    def __init__(self, on_broken: Callable[[], None]) -> None:
        super().__init__(_ignore)
        self._on_broken = on_broken

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None:
            self._on_broken()
        super().connection_lost(exc)
