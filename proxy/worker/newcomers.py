"""Connections of containers that started just now, until a snapshot names their address.

`handover` passes connections here that an `allow` list would refuse only because the caller is not
known yet; `worker` reports each installed snapshot. Nothing is read meanwhile. A connection is
handed over again as soon as its caller is known, or after `PATIENCE`.
"""

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable
from typing import Final, cast

PATIENCE: Final = 5.0
"""Seconds that a connection waits: an engine that starts many containers at once reports each
within a few seconds."""
MOST: Final = 256
"""Connections that wait at the same time, each with a descriptor; others are handed over at
once."""

Factory = Callable[[], asyncio.Protocol]


class Newcomers:
    """The waiting connections of one worker."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: dict[socket.socket, tuple[Callable[[], bool], Factory]] = {}
        self._tasks: set[asyncio.Task[object]] = set()

    @property
    def waiting(self) -> int:
        """Number of connections that wait."""
        return len(self._waiting)

    def hold(
        self, transport: asyncio.Transport, is_known: Callable[[], bool], factory: Factory
    ) -> bool:
        """Keep a connection until `is_known` returns true after a snapshot, then hand it to a
        protocol of `factory`. Returns False if too many wait already."""
        if len(self._waiting) >= MOST:
            return False
        try:
            found = transport.get_extra_info("socket")
            connection = socket.socket(fileno=os.dup(found.fileno()))
        except OSError:
            return False  # no descriptor is left, or the client has gone already
        connection.setblocking(False)
        # This closes the transport's own descriptor only: the connection has another one now.
        transport.abort()
        self._waiting[connection] = is_known, factory
        self._loop.call_later(PATIENCE, self._hand_over, connection)
        return True

    def snapshot_installed(self) -> None:
        """Hand the connections over whose callers are known now."""
        for connection, (is_known, _) in tuple(self._waiting.items()):
            if is_known():
                self._hand_over(connection)

    def release(self) -> None:
        """Hand all connections over: the worker is about to end."""
        for connection in tuple(self._waiting):
            self._hand_over(connection)

    def _hand_over(self, connection: socket.socket) -> None:
        entry = self._waiting.pop(connection, None)
        if entry is not None:
            task = self._loop.create_task(self._connect(connection, entry[1]))
            self._tasks.add(cast("asyncio.Task[object]", task))
            task.add_done_callback(self._tasks.discard)

    async def _connect(self, connection: socket.socket, factory: Factory) -> None:
        try:
            await self._loop.connect_accepted_socket(factory, connection)
        except OSError:  # the client has gone
            with contextlib.suppress(OSError):
                connection.close()
