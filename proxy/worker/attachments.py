"""Gives accepted sockets to the event loop, with the protocol that serves them.

`worker` owns the only `Attachments` of a process. `handover` uses it for connections that turn out
to be HTTP or TLS after their socket was looked at, `Acceptor` for those that have waited.
"""

import asyncio
import contextlib
import functools
import socket
from collections.abc import Callable
from typing import Any

ProtocolFactory = Callable[[], asyncio.Protocol]


class PlainSocket(socket.socket):
    """A socket for the event loop, which wants objects of `socket.socket`. Family and type are the
    numbers of the base class in C: the loop asks for them several times, and each `enum` costs a
    call of Python."""

    family = socket.SocketType.family  # type: ignore[assignment]
    type = socket.SocketType.type  # type: ignore[assignment]


class Attachments:
    """The connections whose transport is being made."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._making: set[Any] = set()

    def attach(self, factory: ProtocolFactory, sock: socket.SocketType) -> None:
        """Let a protocol of `factory` serve a connection, from the next turn of the loop on."""
        connection = PlainSocket(sock.family, sock.type, sock.proto, sock.detach())
        making = self._loop.connect_accepted_socket(factory, connection)
        self._making.add(making)
        self._continue(making, connection, None)

    async def settle(self) -> None:
        """Wait until all connections are made that were attached before."""
        while self._making:  # noqa: ASYNC110 (it takes one turn of the loop)
            await asyncio.sleep(0)

    def _continue(self, making: Any, sock: socket.socket, done: object) -> None:
        """Run the coroutine up to the future that it waits for. A task for each connection would
        cost as much as the transport."""
        del done
        try:
            future = making.send(None)
        except StopIteration:
            self._making.discard(making)
        except OSError:  # the client has gone
            self._making.discard(making)
            with contextlib.suppress(OSError):
                sock.close()
        else:
            future.add_done_callback(functools.partial(self._continue, making, sock))
