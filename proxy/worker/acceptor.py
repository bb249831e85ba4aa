"""Accepts connections in one worker: at each listening socket from the supervisor.

Owned by `worker`, which passes on the supervisor's commands. `handover` says what serves a
listener: a protocol, and the event loop accepts; or a function that takes sockets, and an
`AcceptLoop` does. While too few file descriptors are free, clients wait in the listening queues,
and are accepted one by one as others leave.
"""

import asyncio
import socket
import sys
from dataclasses import dataclass
from typing import Any, Final, Protocol

from proxy.ipc.sockets import BACKLOG
from proxy.request.data_plane import DataPlane
from proxy.tcp.poller import Poller
from proxy.wire.snapshot import Listener
from proxy.worker.accept_loop import AcceptLoop, Take, accept, set_up
from proxy.worker.attachments import Attachments, ProtocolFactory
from proxy.worker.handover import Handover

PAUSE_POLL: Final = 0.02
"""Seconds between two looks whether more clients may be accepted, while accepting is paused."""


class Closable(Protocol):
    """What accepts at a socket: an `asyncio.Server` or an `AcceptLoop`."""

    def close(self) -> None:
        """Accept no more."""


@dataclass(frozen=True)
class ListeningSocket:
    """A listening socket, and what serves its connections.

    - `factory`: the protocol factory, if the event loop accepts
    - `take`: takes a connection that was accepted otherwise
    """

    sock: socket.socket
    factory: ProtocolFactory | None
    take: Take


class Acceptor:
    """The addresses that this worker accepts on.

    `handover` says what serves a listener, `attachments` gives sockets to the event loop. `plane`
    knows how many clients there may be.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        poller: Poller,
        handover: Handover,
        attachments: Attachments,
        plane: DataPlane,
    ) -> None:
        self._loop = loop
        self._poller = poller
        self._handover = handover
        self._attachments = attachments
        self._plane = plane
        self._servers: dict[str, Closable] = {}
        self._sockets: dict[str, ListeningSocket] = {}
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
        made = self._listening_socket(listener, socket.socket(fileno=descriptor))
        server = None if self._pause is not None else await self._serve(made)
        self.close(listener.address)
        if server is not None:
            self._servers[listener.address] = server
        self._sockets[listener.address] = made

    def close(self, address: str) -> None:
        """Stop accepting at an address. Open connections continue."""
        if address in self._servers:
            self._servers.pop(address).close()
        if address in self._sockets:
            self._sockets.pop(address).sock.close()

    async def drain(self) -> None:
        """Accept the connections in the backlogs, then stop accepting everywhere."""
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
        for address in list(self._sockets):
            if address in self._servers:
                self._servers.pop(address).close()
            made = self._sockets.pop(address)
            with made.sock:
                self._accept_waiting(made, BACKLOG)
        await self._attachments.settle()

    def _listening_socket(self, listener: Listener, sock: socket.socket) -> ListeningSocket:
        set_up(sock)
        factory = self._handover.protocol_factory(listener)
        if factory is None:
            return ListeningSocket(sock, None, self._handover.taker(listener))
        attach, found = self._attachments.attach, factory
        return ListeningSocket(sock, factory, lambda taken, _: attach(found, taken))

    async def _serve(self, made: ListeningSocket) -> Closable:
        """Accept at a socket, until what is returned is closed."""
        factory = made.factory
        if factory is None:
            return AcceptLoop(
                self._poller,
                made.sock,
                made.take,
                lambda: self._plane.room_for_clients() > 0,
                self._start_pause,
            )

        def counted() -> asyncio.Protocol:
            if self._plane.room_for_clients() <= 0:
                self._start_pause()
            return factory()

        copy = made.sock.dup()
        if made.sock.family != socket.AF_UNIX:
            return await self._loop.create_server(counted, sock=copy, backlog=self._backlog)
        # The supervisor owns the file of a Unix socket: closing the server must not remove it.
        options: dict[str, Any] = {}
        if sys.version_info >= (3, 13):
            options["cleanup_socket"] = False
        return await self._loop.create_unix_server(
            counted, sock=copy, backlog=self._backlog, **options
        )

    def _start_pause(self) -> None:
        """Accept more slowly, unless that has begun."""
        if self._pause is None:
            self._pause = self._loop.create_task(self._accept_slowly())

    async def _accept_slowly(self) -> None:
        """Accept no more clients than there may be, until none waits and there is room again."""
        for server in self._servers.values():
            server.close()
        self._servers.clear()
        for made in self._sockets.values():
            # Clients wait there instead of being refused.
            made.sock.listen(BACKLOG)
        # A few idle connections may be all that is missing.
        self._plane.close_idle_connections(self._plane.descriptors.reserve)
        self._plane.report_pause()
        while True:
            await asyncio.sleep(PAUSE_POLL)
            waiting = False
            for made in tuple(self._sockets.values()):
                waiting |= self._accept_waiting(made, self._plane.room_for_clients())
                await self._attachments.settle()
            if not waiting and self._plane.room_for_clients() > self._backlog:
                break
        while paused := [each for each in self._sockets if each not in self._servers]:
            server = await self._serve(self._sockets[paused[0]])
            if paused[0] in self._sockets:
                self._servers[paused[0]] = server
            else:
                server.close()
        self._pause = None

    def _accept_waiting(self, made: ListeningSocket, most: int) -> bool:
        """Accept at most this number of the connections in a backlog. Return whether more wait."""
        family, protocol = int(made.sock.family), made.sock.proto
        for _ in range(most):
            try:
                taken, peer = accept(made.sock, family, protocol)
            except BlockingIOError:
                return False
            except OSError:
                # The client closed before the accept, or no descriptor is left.
                return True
            made.take(taken, peer)
        return True
