"""A data plane that passes TCP connections on, between raw clients and scripted servers."""

import asyncio
import socket
from contextlib import asynccontextmanager, suppress
from typing import Any

from proxy.tcp.sessions import TcpSessions
from proxy.wire.report import ServiceReport
from proxy.wire.snapshot import Listener
from tests.support.proxy_scene import Client, Origin, Scene, Script, Visit, service
from tests.support.waiting import wait_until


class TcpScene(Scene):
    """A scene whose listener leads to the service `db`."""

    def __init__(self, plane: dict[str, Any]) -> None:
        super().__init__(plane)
        self.tcp = TcpSessions(self.loop, self.poller)

    async def listen(self, **listener: Any) -> None:
        made = Listener(**{"address": "127.0.0.1:0", **listener})

        def take(sock: socket.SocketType, peer: str) -> None:
            self.tcp.start(self.plane, made, self.plane.services["db"], "demo/api", sock, peer)

        self.take_connections(take)

    async def serve(self, *scripts: Script, **config: Any) -> list[Origin]:
        origins = [await self.origin(script) for script in scripts]
        self.install_db(*origins, **config)
        return origins

    def install_db(self, *origins: Origin, **config: Any) -> None:
        """Install the service with these endpoints."""
        self.install(service(*origins, name="db", protocol="tcp", **config), routes=())

    def report(self) -> ServiceReport:
        """Take the counts of the service since the last call."""
        (found,) = self.plane.report(0.0, 1.0).services
        return found

    async def sessions(self, count: int) -> None:
        """Wait until this number of sessions exists."""
        await wait_until(lambda: len(self.plane.clients) == count, 15)

    async def close(self) -> None:
        await super().close()
        self.tcp.close()


@asynccontextmanager
async def tcp_scene(plane: dict[str, Any] | None = None):  # type: ignore[no-untyped-def]
    """A scene of TCP connections; `plane` holds further arguments of its data plane."""
    made = TcpScene(plane or {})
    await made.listen()
    try:
        yield made
    finally:
        await made.close()


async def echo(visit: Visit) -> None:
    """Send everything back, then the end of stream."""
    while data := await visit.reader.read(65536):
        await visit.send(data)
    with suppress(RuntimeError):  # the connection was reset meanwhile
        visit.writer.write_eof()
    await visit.wait_closed()


async def ask(client: Client, data: bytes) -> bytes:
    """Send bytes and return as many that come back."""
    await client.send(data)
    return await client.exactly(len(data))


async def is_reset(client: Client) -> bool:
    """Read to the end; return whether it was a reset."""
    try:
        while await asyncio.wait_for(client.reader.read(65536), 10):
            pass
    except ConnectionResetError:
        return True
    return False


async def is_refused(scene: Scene, data: bytes = b"") -> bool:
    """Connect and send bytes; return whether the connection is reset, however soon."""
    try:
        return await is_reset(await scene.ask(data))
    except ConnectionResetError:
        return True


def slow_reader(port: int) -> socket.socket:
    """Connect with a small receive buffer."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.connect(("127.0.0.1", port))
    with suppress(OSError):
        sock.setblocking(False)
    return sock
