"""Gives accepted sockets to the event loop, with the protocol that serves them.

`worker` owns the only `Attachments` of a process. `handover` uses it for connections that turn out
to be HTTP or TLS after their socket was looked at, `Acceptor` and `Newcomers` for those that have
waited.
"""

import asyncio
import contextlib
import socket
from collections.abc import Callable

ProtocolFactory = Callable[[], asyncio.Protocol]


class Attachments:
    """The connections whose transport is being made."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._tasks: set[asyncio.Task[None]] = set()

    def attach(self, factory: ProtocolFactory, sock: socket.SocketType) -> None:
        """Let a protocol of `factory` serve a connection, from the next turn of the loop on."""
        task = self._loop.create_task(self._connect(factory, sock))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def settle(self) -> None:
        """Wait until all connections are made that were attached before."""
        while self._tasks:
            await asyncio.wait(tuple(self._tasks))

    async def _connect(self, factory: ProtocolFactory, sock: socket.SocketType) -> None:
        # The event loop wants the class of Python.
        connection = socket.socket(fileno=sock.detach())
        try:
            await self._loop.connect_accepted_socket(factory, connection)
        except OSError:  # the client has gone
            with contextlib.suppress(OSError):
                connection.close()
