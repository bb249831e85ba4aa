"""Accepts connections in one worker: a server for each listening socket from the supervisor.

Owned by `worker`, which passes on the supervisor's commands. `handover` provides the protocols.
While too few file descriptors are free, clients wait in the listening queues, and are accepted one
by one as others leave.
"""

import asyncio
import socket
import sys
from collections.abc import Callable
from typing import Any, Final

from proxy.ipc.sockets import BACKLOG
from proxy.request.data_plane import DataPlane
from proxy.wire.snapshot import Listener

ProtocolFactory = Callable[[], asyncio.Protocol]
PAUSE_POLL: Final = 0.02
"""Seconds between two looks whether more clients may be accepted, while accepting is paused."""


class Acceptor:
    """The addresses that this worker accepts on.

    `factory_of` returns the protocol factory of a listener. `plane` knows how many clients there
    may be.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        factory_of: Callable[[Listener], ProtocolFactory],
        plane: DataPlane,
    ) -> None:
        self._loop = loop
        self._factory_of = factory_of
        self._plane = plane
        self._servers: dict[str, asyncio.Server] = {}
        self._sockets: dict[str, tuple[socket.socket, ProtocolFactory]] = {}
        self._pause: asyncio.Task[None] | None = None
        # With few descriptors the kernel must not hand over more clients at once than are free.
        self._backlog = min(BACKLOG, plane.descriptors.burst)

    @property
    def addresses(self) -> tuple[str, ...]:
        """The configured addresses that this worker accepts on."""
        return tuple(sorted(self._sockets))

    async def open(self, listener: Listener, descriptor: int) -> None:
        """Accept on a listening socket; take ownership of the descriptor.

        It replaces the socket at the same address. Open connections continue.
        """
        sock = socket.socket(fileno=descriptor)
        factory = self._factory_of(listener)
        server = None if self._pause is not None else await self._serve(sock, factory)
        self.close(listener.address)
        if server is not None:
            self._servers[listener.address] = server
        self._sockets[listener.address] = (sock, factory)

    def close(self, address: str) -> None:
        """Stop accepting at an address. Open connections continue."""
        if address in self._servers:
            self._servers.pop(address).close()
        if address in self._sockets:
            self._sockets.pop(address)[0].close()

    async def drain(self) -> None:
        """Accept the connections in the backlogs, then stop accepting everywhere."""
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
        for address in list(self._sockets):
            if address in self._servers:
                self._servers.pop(address).close()
            sock, factory = self._sockets.pop(address)
            with sock:
                await self._accept_waiting(sock, factory, BACKLOG)

    async def _serve(self, sock: socket.socket, factory: ProtocolFactory) -> asyncio.Server:
        """Accept on a copy of a socket, until the server is closed."""

        def counted() -> asyncio.Protocol:
            if self._plane.room_for_clients() <= 0 and self._pause is None:
                self._pause = self._loop.create_task(self._accept_slowly())
            return factory()

        copy = sock.dup()
        if sock.family != socket.AF_UNIX:
            return await self._loop.create_server(counted, sock=copy, backlog=self._backlog)
        # The supervisor owns the file of a Unix socket: closing the server must not remove it.
        options: dict[str, Any] = {}
        if sys.version_info >= (3, 13):
            options["cleanup_socket"] = False
        return await self._loop.create_unix_server(
            counted, sock=copy, backlog=self._backlog, **options
        )

    async def _accept_slowly(self) -> None:
        """Accept no more clients than there may be, until none waits and there is room again."""
        for server in self._servers.values():
            server.close()
        self._servers.clear()
        for sock, _ in self._sockets.values():
            # Clients wait there instead of being refused.
            sock.listen(BACKLOG)
        # A few idle connections may be all that is missing.
        self._plane.close_idle_connections(self._plane.descriptors.reserve)
        self._plane.report_pause()
        while True:
            await asyncio.sleep(PAUSE_POLL)
            waiting = False
            for sock, factory in tuple(self._sockets.values()):
                room = self._plane.room_for_clients()
                waiting |= await self._accept_waiting(sock, factory, room)
            if not waiting and self._plane.room_for_clients() > self._backlog:
                break
        while paused := [each for each in self._sockets if each not in self._servers]:
            sock, factory = self._sockets[paused[0]]
            server = await self._serve(sock, factory)
            if paused[0] in self._sockets:
                self._servers[paused[0]] = server
            else:
                server.close()
        self._pause = None

    async def _accept_waiting(
        self, sock: socket.socket, factory: ProtocolFactory, most: int
    ) -> bool:
        """Accept at most this number of the connections in a backlog. Return whether more wait."""
        sock.setblocking(False)
        for _ in range(most):
            try:
                connection, _ = sock.accept()
            except BlockingIOError:
                return False
            except OSError:
                # The client closed before the accept, or no descriptor is left.
                return True
            await self._loop.connect_accepted_socket(factory, connection)
        return True
