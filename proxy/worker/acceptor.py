"""Accepts connections in one worker: a server for each listening socket from the supervisor.

Owned by `worker`, which passes on the supervisor's commands. `handover` provides the protocols.
"""

import asyncio
import socket
import sys
from collections.abc import Callable
from typing import Any

from proxy.ipc.sockets import BACKLOG
from proxy.wire.snapshot import Listener

ProtocolFactory = Callable[[], asyncio.Protocol]


class Acceptor:
    """The addresses that this worker accepts on.

    `factory_of` returns the protocol factory of a listener.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, factory_of: Callable[[Listener], ProtocolFactory]
    ) -> None:
        self._loop = loop
        self._factory_of = factory_of
        self._servers: dict[str, asyncio.Server] = {}
        self._sockets: dict[str, tuple[socket.socket, ProtocolFactory]] = {}

    @property
    def addresses(self) -> tuple[str, ...]:
        """The configured addresses that this worker accepts on."""
        return tuple(sorted(self._servers))

    async def open(self, listener: Listener, descriptor: int) -> None:
        """Accept on a listening socket; take ownership of the descriptor.

        It replaces the socket at the same address. Open connections continue.
        """
        sock = socket.socket(fileno=descriptor)
        factory = self._factory_of(listener)
        server = await self._serve(sock.dup(), factory)
        self.close(listener.address)
        self._servers[listener.address] = server
        self._sockets[listener.address] = (sock, factory)

    def close(self, address: str) -> None:
        """Stop accepting at an address. Open connections continue."""
        if address in self._servers:
            self._servers.pop(address).close()
            self._sockets.pop(address)[0].close()

    async def drain(self) -> None:
        """Accept the connections in the backlogs, then stop accepting everywhere."""
        for address in list(self._servers):
            self._servers.pop(address).close()
            sock, factory = self._sockets.pop(address)
            with sock:
                await self._accept_waiting(sock, factory)

    async def _serve(self, sock: socket.socket, factory: ProtocolFactory) -> asyncio.Server:
        if sock.family != socket.AF_UNIX:
            return await self._loop.create_server(factory, sock=sock, backlog=BACKLOG)
        # The supervisor owns the file of a Unix socket: closing the server must not remove it.
        options: dict[str, Any] = {}
        if sys.version_info >= (3, 13):
            options["cleanup_socket"] = False
        return await self._loop.create_unix_server(factory, sock=sock, backlog=BACKLOG, **options)

    async def _accept_waiting(self, sock: socket.socket, factory: ProtocolFactory) -> None:
        sock.setblocking(False)
        while True:
            try:
                connection, _ = sock.accept()
            except BlockingIOError:
                return
            except OSError:
                # The client closed before the accept, or no descriptor is left.
                return
            await self._loop.connect_accepted_socket(factory, connection)
