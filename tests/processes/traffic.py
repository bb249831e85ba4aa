"""An origin and clients, in the test's own event loop."""

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from tests.support.tcp_server import stop_listening

LATE = 0.9
"""Seconds from the begin of a connect to the first request, after which the connection may be
closed without a failure: a worker that drains closes those without a request after 1 s, and a busy
machine may hold a client up for that long."""


@dataclass
class Origin:
    """Answers `NAME PATH`. `/slow/SECONDS` waits first, `/held` until `release` is set, and `/sick`
    answers 503 while `sick`."""

    name: str
    port: int = 0
    sick: bool = False
    requests: int = 0
    release: asyncio.Event = field(default_factory=asyncio.Event)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            try:
                await self._answer(reader, writer)
            finally:
                writer.transport.abort()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            self.requests += 1
            path = head.split(b" ", 2)[1].decode()
            if path.startswith("/slow/"):
                await asyncio.sleep(float(path.removeprefix("/slow/")))
            elif path == "/held":
                await self.release.wait()
            sick = self.sick and path == "/sick"
            status = "503 Service Unavailable" if sick else "200 OK"
            body = f"{self.name} {path}"
            writer.write(f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
            await writer.drain()


@contextlib.asynccontextmanager
async def origin(
    name: str = "a", path: str = "", tls: ssl.SSLContext | None = None
) -> AsyncIterator[Origin]:
    """Run an origin on a free port, or on a Unix socket's path."""
    made = Origin(name)
    if path:
        server = await asyncio.start_unix_server(made.accept, path)
    else:
        server = await asyncio.start_server(made.accept, "127.0.0.1", 0, backlog=1024, ssl=tls)
        made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        await stop_listening(server)
        tasks = list(made.tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)


class LateRequestError(ConnectionError):
    """The first request of a connection was late, and the connection was closed."""


async def fetch(
    address: str, path: str = "/", tls: ssl.SSLContext | None = None, name: str = "localhost"
) -> tuple[int, str]:
    """Send one request on a new connection; return status and body. Raises ConnectionError, and
    LateRequestError if the request was late. `tls` encrypts it, and the server must have a
    certificate for `name`."""
    begun = time.monotonic()
    if address.startswith("unix:"):
        reader, writer = await asyncio.open_unix_connection(address.removeprefix("unix:"))
    else:
        host, _, port = address.rpartition(":")
        reader, writer = await asyncio.open_connection(
            host.strip("[]"), int(port), ssl=tls, server_hostname=name if tls else None
        )
    late = False
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        late = time.monotonic() - begun >= LATE
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        if not head:
            raise ConnectionError("closed without an answer")
    except ConnectionError as error:
        if late:
            raise LateRequestError(str(error)) from error
        raise
    finally:
        await end(writer)
    return int(head.split()[1]), body.decode()


async def end(writer: asyncio.StreamWriter) -> None:
    """Break a connection off, and wait until it has ended. A close over TLS waits for an answer of
    the peer, which may come after the test has ended."""
    writer.transport.abort()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


@dataclass
class SteadyClients:
    """Clients that send one request after the other. Half of them open a connection per request;
    the others keep theirs and repeat a request when the kept connection was closed meanwhile.
    Both repeat a first request that was late."""

    address: str
    path: str = "/"
    tls: ssl.SSLContext | None = None
    good: int = 0
    failures: list[str] = field(default_factory=list)
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def start(self, clients: int, pause: float = 0.01) -> None:
        self._tasks = [
            asyncio.create_task(self._keep(pause) if number % 2 else self._open(pause))
            for number in range(clients)
        ]

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        results = await asyncio.gather(*self._tasks, return_exceptions=True)
        for result in results:
            if isinstance(result, Exception):
                raise result

    def _note(self, status: int) -> None:
        if status == 200:
            self.good += 1
        else:
            self.failures.append(f"status {status}")

    async def _open(self, pause: float) -> None:
        while True:
            try:
                status, _ = await fetch(self.address, self.path, self.tls)
                self._note(status)
            except LateRequestError as error:
                print(f"repeats a late request: {error}")
            except OSError as error:
                self.failures.append(f"new connection: {error!r}")
            await asyncio.sleep(pause)

    async def _keep(self, pause: float) -> None:
        host, _, port = self.address.rpartition(":")
        while True:
            begun = time.monotonic()
            try:
                reader, writer = await asyncio.open_connection(
                    host,
                    int(port),
                    ssl=self.tls,
                    server_hostname="localhost" if self.tls else None,
                )
            except OSError as error:
                self.failures.append(f"connect: {error!r}")
                await asyncio.sleep(pause)
                continue
            try:
                await self._use(reader, writer, pause, begun)
            finally:
                await end(writer)

    async def _use(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        pause: float,
        begun: float,
    ) -> None:
        may_be_closed = False  # without a failure
        while True:
            try:
                writer.write(f"GET {self.path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
                may_be_closed = may_be_closed or time.monotonic() - begun >= LATE
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                length = int(head.partition(b"content-length:")[2].split(b"\r\n")[0])
                await reader.readexactly(length)
            except (ConnectionError, asyncio.IncompleteReadError) as error:
                began = isinstance(error, asyncio.IncompleteReadError) and error.partial
                if not may_be_closed or began:
                    self.failures.append(f"kept connection: {error!r}")
                return
            self._note(int(head.split()[1]))
            may_be_closed = True
            if b"connection: close" in head:
                return
            await asyncio.sleep(pause)
