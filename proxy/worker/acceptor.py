"""Accepting in one worker: a server for each listening socket that the supervisor hands over."""

import asyncio
import socket
import sys
from collections.abc import Callable
from typing import Any

from proxy.ipc.sockets import BACKLOG
from proxy.wire.snapshot import Listener

ProtocolFactory = Callable[[], asyncio.Protocol]


class Acceptor:
    """The addresses that this worker accepts on."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, factory_of: Callable[[Listener], ProtocolFactory]
    ) -> None:
        self._loop = loop
        self._factory_of = factory_of
        self._servers: dict[str, asyncio.Server] = {}
        self._sockets: dict[str, tuple[socket.socket, ProtocolFactory]] = {}

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where connections are accepted, as asked for."""
        return tuple(sorted(self._servers))

    async def open(self, listener: Listener, descriptor: int) -> None:
        """Accept on a listening socket, which is ours from now on. What was accepted on
        before at that address is replaced; its connections go on."""
        sock = socket.socket(fileno=descriptor)
        factory = self._factory_of(listener)
        server = await self._serve(sock.dup(), factory)
        self.close(listener.address)
        self._servers[listener.address] = server
        self._sockets[listener.address] = (sock, factory)

    def close(self, address: str) -> None:
        """Accept no more at an address; its connections go on."""
        if address in self._servers:
            self._servers.pop(address).close()
            self._sockets.pop(address)[0].close()

    async def drain(self) -> None:
        """Accept what already waits in the backlogs, then no more anywhere."""
        for address in list(self._servers):
            self._servers.pop(address).close()
            sock, factory = self._sockets.pop(address)
            with sock:
                await self._accept_waiting(sock, factory)

    async def _serve(self, sock: socket.socket, factory: ProtocolFactory) -> asyncio.Server:
        if sock.family != socket.AF_UNIX:
            return await self._loop.create_server(factory, sock=sock, backlog=BACKLOG)
        # The file of a Unix socket is the supervisor's: our end must not remove it.
        keep: dict[str, Any] = {}
        if sys.version_info >= (3, 13):
            keep["cleanup_socket"] = False
        return await self._loop.create_unix_server(factory, sock=sock, backlog=BACKLOG, **keep)

    async def _accept_waiting(self, sock: socket.socket, factory: ProtocolFactory) -> None:
        sock.setblocking(False)
        while True:
            try:
                connection, _ = sock.accept()
            except BlockingIOError:
                return
            except OSError:
                # This one was gone before we came to it, or descriptors ran out.
                return
            await self._loop.connect_accepted_socket(factory, connection)
