"""A data plane on a real loopback socket, between raw clients and scripted origins."""

import asyncio
import functools
import socket
import ssl
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import uvloop

from proxy.request.data_plane import DataPlane
from proxy.tcp.poller import Poller
from proxy.wire.snapshot import (
    Endpoint,
    Generation,
    Listener,
    Route,
    Service,
    Snapshot,
    Target,
)
from proxy.worker.accept_loop import AcceptLoop, Take
from proxy.worker.attachments import Attachments
from proxy.worker.handover import Handover

Script = Callable[["Visit"], Awaitable[None]]
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def on_uvloop(test: Callable[..., Any]) -> Callable[..., Any]:
    """Run a test on the event loop that workers use."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> Any:
        return uvloop.run(test(*args, **kwargs))

    return run


class Visit:
    """One connection to an origin."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.raw = b""
        self.closed = asyncio.Event()

    async def head(self) -> bytes:
        """Read the next request's head."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        self.raw += head
        return head

    async def read(self, count: int) -> bytes:
        data = await self.reader.readexactly(count)
        self.raw += data
        return data

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def wait_closed(self) -> None:
        """Read until the proxy ends the connection."""
        try:
            while data := await self.reader.read(65536):
                self.raw += data
        except ConnectionError:
            pass
        self.closed.set()

    def abort(self) -> None:
        self.writer.transport.abort()


class Origin:
    """Run one script for each connection, and keep the connections as `visits`."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.visits: list[Visit] = []
        self.port = 0
        self.errors: list[BaseException] = []
        self._server: asyncio.Server | None = None

    async def start(self, port: int = 0, tls: ssl.SSLContext | None = None) -> "Origin":
        self._server = await asyncio.start_server(
            self._serve, "127.0.0.1", port, limit=1 << 24, ssl=tls
        )
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        visit = Visit(reader, writer)
        self.visits.append(visit)
        try:
            await self.script(visit)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            visit.closed.set()
            writer.close()

    def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        for visit in self.visits:
            visit.abort()


class Client:
    """One raw client connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def until(self, mark: bytes) -> bytes:
        return await asyncio.wait_for(self.reader.readuntil(mark), 30)

    async def head(self) -> bytes:
        return await self.until(b"\r\n\r\n")

    async def exactly(self, count: int) -> bytes:
        return await asyncio.wait_for(self.reader.readexactly(count), 30)

    async def response(self) -> tuple[int, bytes, bytes]:
        """Read a response with a Content-Length; return status, head and body."""
        head = await self.head()
        length = 0
        for line in head.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                length = int(line.partition(b":")[2])
        return int(head[9:12]), head, await self.exactly(length)

    async def rest(self) -> bytes:
        """Read up to the end of the connection."""
        return await asyncio.wait_for(self.reader.read(), 10)

    def close(self) -> None:
        self.writer.close()


class Scene:
    """A data plane with one listener, its origins and its clients."""

    def __init__(self, plane: dict[str, Any]) -> None:
        self.loop = asyncio.get_running_loop()
        self.plane = DataPlane(0, self.loop, **plane)
        self.port = 0
        self.number = 0
        self.origins: list[Origin] = []
        self.clients: list[Client] = []
        self.server: asyncio.Server | None = None
        self.poller = Poller(self.loop)
        self.attachments = Attachments(self.loop)
        self.accepting: list[tuple[AcceptLoop, socket.socket]] = []

    async def hand_over(self, handover: Handover, listener: Listener) -> None:
        """Serve the connections of a listener, on a free port, as a worker does."""
        factory = handover.protocol_factory(listener)
        if factory is None:
            self.take_connections(handover.taker(listener))
            return
        self.server = await self.loop.create_server(factory, "127.0.0.1", 0)
        self.port = self.server.sockets[0].getsockname()[1]

    def take_connections(self, take: Take) -> None:
        """Accept connections on a free port, and pass on their sockets."""
        sock = socket.create_server(("127.0.0.1", 0))
        loop = AcceptLoop(self.poller, sock, take, lambda: True, lambda: None)
        self.accepting.append((loop, sock))
        self.port = sock.getsockname()[1]

    async def listen(self, **listener: Any) -> None:
        factory = self.plane.protocol_factory(Listener(**{"address": "127.0.0.1:0", **listener}))
        self.server = await self.loop.create_server(factory, "127.0.0.1", 0)
        self.port = self.server.sockets[0].getsockname()[1]

    async def origin(self, script: Script, tls: ssl.SSLContext | None = None) -> Origin:
        origin = await Origin(script).start(tls=tls)
        self.origins.append(origin)
        return origin

    def install(
        self, *services: Service, routes: tuple[Route, ...] | None = None, **more: Any
    ) -> None:
        self.number += 1
        if routes is None:
            routes = (Route(id="all", targets=(Target(services[0].name),)),)
        self.plane.install(
            Snapshot(Generation(1, self.number), services=services, routes=routes, **more)
        )

    async def serve(
        self, *scripts: Script, server_tls: ssl.SSLContext | None = None, **config: Any
    ) -> list[Origin]:
        """Install one service with an origin for each script."""
        origins = [await self.origin(script, server_tls) for script in scripts]
        self.install(service(*origins, **config))
        return origins

    async def client(self) -> Client:
        client = Client(*await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 20))
        self.clients.append(client)
        return client

    async def ask(self, request: bytes) -> Client:
        client = await self.client()
        await client.send(request)
        return client

    async def close(self) -> None:
        self.plane.close()
        if self.server is not None:
            self.server.close()
        for loop, sock in self.accepting:
            loop.close()
            sock.close()
        self.poller.close()
        for origin in self.origins:
            origin.stop()
        for client in self.clients:
            client.close()
        await asyncio.sleep(0)


def service(*origins: Origin, name: str = "shop", **config: Any) -> Service:
    endpoints = tuple(
        Endpoint(id=f"{name}-{index}", host="127.0.0.1", port=origin.port)
        for index, origin in enumerate(origins)
    )
    return Service(name=name, fingerprint="1", endpoints=endpoints, **config)


@asynccontextmanager
async def scene(plane: dict[str, Any] | None = None, **listener: Any):  # type: ignore[no-untyped-def]
    """A scene on a listener; `plane` holds further arguments of its data plane."""
    made = Scene(plane or {})
    await made.listen(**listener)
    try:
        yield made
    finally:
        await made.close()


def answers(*responses: bytes) -> Script:
    """Return a script that answers each request with the next response; the last one repeats."""

    async def script(visit: Visit) -> None:
        left = list(responses)
        while True:
            head = await visit.head()
            for line in head.lower().split(b"\r\n"):
                if line.startswith(b"content-length:"):
                    await visit.read(int(line.partition(b":")[2]))
            await visit.send(left.pop(0) if len(left) > 1 else left[0])

    return script


def named_ok(name: bytes) -> bytes:
    """Return a good response whose body is the origin's name."""
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(name), name)


def get(path: str = "/", *lines: str, version: str = "1.1") -> bytes:
    extra = "".join(line + "\r\n" for line in lines)
    return f"GET {path} HTTP/{version}\r\nHost: shop.test\r\n{extra}\r\n".encode()


def post(body: bytes, *lines: str) -> bytes:
    extra = "".join(line + "\r\n" for line in lines)
    head = f"POST / HTTP/1.1\r\nHost: shop.test\r\nContent-Length: {len(body)}\r\n{extra}\r\n"
    return head.encode() + body
