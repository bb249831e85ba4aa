"""A steady mixed load over raw sockets: GET, POST, new connections, long streams, slow downloads.

It retries nothing, so it counts what the simplest client would see. An answer counts as served if
all of it arrived and has the expected content.
"""

import asyncio
import json
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

Pipe = tuple[asyncio.StreamReader, asyncio.StreamWriter]
BODY: Final = b"x" * 700
STREAM_SECONDS: Final = 4
PIECES: Final = 40
TIMEOUT: Final = 30.0


class Wrong(Exception):
    """An answer does not have the expected content."""


@dataclass(frozen=True)
class Failure:
    """A failed request: Unix time, kind of request, and how it ended."""

    at: float
    kind: str
    text: str


@dataclass
class Count:
    """What all clients saw. `latencies` are seconds, of requests that are not streams."""

    served: Counter[str] = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)
    versions: Counter[str] = field(default_factory=Counter)

    def quantile(self, q: float) -> float:
        """Return a latency quantile in seconds."""
        values = sorted(self.latencies)
        return values[min(int(q * len(values)), len(values) - 1)] if values else 0.0


class Mixed:
    """`rate` requests per second in all until the block ends, and `streams` long streams at any
    time.

    Open loop: each client has its own schedule, and a late client sends at once.
    """

    KINDS: Final = ("get", "post", "get", "post", "get", "fresh")

    def __init__(self, address: str, rate: float, clients: int = 30, streams: int = 4) -> None:
        self.count = Count()
        self._address = address
        self._step = clients / rate
        self._clients, self._streams = clients, streams
        self._ended = False
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> "Mixed":
        now = time.monotonic()
        self._tasks = [
            asyncio.create_task(
                self._client(self.KINDS[n % len(self.KINDS)], now + n * self._step / self._clients)
            )
            for n in range(self._clients)
        ]
        self._tasks += [
            asyncio.create_task(self._long(("stream", "download")[n % 2], n / self._streams))
            for n in range(self._streams)
        ]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._ended = True
        await asyncio.gather(*self._tasks)

    def since(self) -> Count:
        """Return the counts since the last call."""
        received, self.count = self.count, Count()
        return received

    async def _client(self, kind: str, due: float) -> None:
        pipe: Pipe | None = None
        while not self._ended:
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            due += self._step
            began, used = time.monotonic(), pipe is not None
            try:
                async with asyncio.timeout(TIMEOUT):
                    pipe = pipe or await self._connect()
                    keep = await self._ask(kind, pipe)
            except (OSError, TimeoutError, asyncio.IncompleteReadError, ValueError, Wrong) as error:
                self._failed(kind, error, used, began)
                keep = False
            else:
                self.count.served[kind] += 1
                self.count.latencies.append(time.monotonic() - began)
            if not keep and pipe is not None:
                pipe[1].close()
                pipe = None
        if pipe is not None:
            pipe[1].close()

    async def _long(self, kind: str, wait: float) -> None:
        await asyncio.sleep(wait)
        while not self._ended:
            began = time.monotonic()
            pipe: Pipe | None = None
            try:
                async with asyncio.timeout(TIMEOUT):
                    pipe = await self._connect()
                    await (self._stream(pipe) if kind == "stream" else self._download(pipe))
            except (OSError, TimeoutError, asyncio.IncompleteReadError, ValueError, Wrong) as error:
                self._failed(kind, error, False, began)
            else:
                self.count.served[kind] += 1
            if pipe is not None:
                pipe[1].close()

    def _failed(self, kind: str, error: Exception, used: bool, began: float) -> None:
        partial = error.partial[:80] if isinstance(error, asyncio.IncompleteReadError) else b""
        which = "a used connection" if used else "a new connection"
        text = f"{error!r} after {time.monotonic() - began:.3f} s on {which}, had {partial!r}"
        self.count.failures.append(Failure(time.time(), kind, text))

    async def _connect(self) -> Pipe:
        host, _, port = self._address.rpartition(":")
        return await asyncio.open_connection(host, int(port))

    async def _ask(self, kind: str, pipe: Pipe) -> bool:
        """Send one request and read its answer; return whether the connection may be used again."""
        reader, writer = pipe
        end = b"Connection: close\r\n" if kind == "fresh" else b""
        if kind == "post":
            writer.write(
                b"POST /orders?ms=5 HTTP/1.1\r\nHost: soak.test\r\nContent-Length: %d\r\n\r\n%b"
                % (len(BODY), BODY)
            )
        else:
            writer.write(b"GET /menu?ms=5 HTTP/1.1\r\nHost: soak.test\r\n%b\r\n" % end)
        fields = await _head(reader)
        received = json.loads(await reader.readexactly(int(fields[b"content-length"])))
        if received["body"] != (len(BODY) if kind == "post" else 0):
            raise Wrong(f"the replica had {received['body']} bytes of the body")
        self.count.versions[received["version"]] += 1
        return fields.get(b"connection") != b"close"

    async def _stream(self, pipe: Pipe) -> None:
        """Read server-sent events in chunks, up to the last one."""
        reader, writer = pipe
        writer.write(b"GET /stream?seconds=%d HTTP/1.1\r\nHost: soak.test\r\n\r\n" % STREAM_SECONDS)
        await _head(reader)
        received = await reader.readuntil(b"\r\n0\r\n\r\n")
        if received.count(b"data: ") != STREAM_SECONDS * 10 + 1:
            raise Wrong(f"{received.count(b'data: ')} events came")

    async def _download(self, pipe: Pipe) -> None:
        """Read a body of known length that is sent slowly."""
        reader, writer = pipe
        size = PIECES * 1000
        writer.write(
            b"GET /download?seconds=%d&bytes=%d HTTP/1.1\r\nHost: soak.test\r\n\r\n"
            % (STREAM_SECONDS, size)
        )
        fields = await _head(reader)
        if int(fields[b"content-length"]) != size:
            raise Wrong(f"{fields[b'content-length']!r} bytes were announced")
        await reader.readexactly(size)


async def _head(reader: asyncio.StreamReader) -> dict[bytes, bytes]:
    """Return the fields of an answer. Raises Wrong if its status is not 200."""
    head = await reader.readuntil(b"\r\n\r\n")
    first, *lines = head[:-4].split(b"\r\n")
    fields = dict(line.lower().split(b": ", 1) for line in lines)
    if first.split(b" ", 2)[1] != b"200":
        body = await reader.read(int(fields.get(b"content-length", b"0")))
        raise Wrong(f"{first.decode()}: {body[:200]!r}")
    return fields
