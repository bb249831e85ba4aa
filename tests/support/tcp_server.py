"""A server of streams whose connections have ended when it has closed.

`asyncio.Server.close` leaves the connections to the garbage collector, which warns of each in
whatever test runs by then. Tests use `start_server` instead.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

TURNS = 3
"""Turns of the event loop from the acceptance of a connection until its handler runs."""
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def stop_listening(server: asyncio.Server) -> None:
    """Close a listening socket. The handlers of all connections that it accepted have begun
    then, also of one that was accepted at the last moment."""
    server.close()
    for _ in range(TURNS):
        await asyncio.sleep(0)


class TcpServer:
    """A listening server.

    - `port`: where it listens on 127.0.0.1.
    """

    def __init__(self, serve: Serve) -> None:
        self.port = 0
        self._serve = serve
        self._server: asyncio.Server | None = None
        self._writers: list[asyncio.StreamWriter] = []

    async def start(self, port: int, options: dict[str, Any]) -> None:
        """Listen at a port; 0 means a free one."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", port, **options)
        self.port = int(self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        """Stop listening, end all connections, and wait until they have ended."""
        if self._server is not None:
            await stop_listening(self._server)
        for writer in self._writers:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        await self._serve(reader, writer)


async def start_server(serve: Serve, port: int = 0, **options: Any) -> TcpServer:
    """Serve each connection by `serve`. `options` are those of `asyncio.start_server`."""
    server = TcpServer(serve)
    await server.start(port, options)
    return server
