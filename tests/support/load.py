"""A bounded load of requests at a steady rate, over raw sockets, that counts exactly.

It retries nothing, so it counts what the simplest client would see.
"""

import asyncio
import json
import time
from collections import Counter
from dataclasses import dataclass, field


@dataclass
class LoadResult:
    """What the clients saw.

    - `served`: responses with status 200.
    - `failures`: monotonic time and text of each other outcome.
    - `latencies`: monotonic time and seconds of each response.
    - `replicas`: responses by replica; `versions`: the version of each response, in order.
    """

    served: int = 0
    failures: list[tuple[float, str]] = field(default_factory=list)
    latencies: list[tuple[float, float]] = field(default_factory=list)
    replicas: Counter[str] = field(default_factory=Counter)
    versions: list[str] = field(default_factory=list)

    def quantile(self, q: float, since: float = 0.0) -> float:
        """Return a latency quantile (seconds) of the responses after `since` (monotonic)."""
        values = sorted(latency for at, latency in self.latencies if at >= since)
        return values[min(int(q * len(values)), len(values) - 1)] if values else 0.0


async def connect(address: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect to `HOST:PORT` or `unix:PATH`."""
    host, _, port = address.rpartition(":")
    if host == "unix":
        return await asyncio.open_unix_connection(port)
    return await asyncio.open_connection(host, int(port))


class Load:
    """`rate` requests per second over `clients` connections until the block ends, for at most
    `seconds`. `headers` are whole lines that each request carries. With a `body` they are POSTs,
    else GETs.

    Open loop: a slow response does not delay other requests. Each client has its own schedule, and
    a late client sends at once.
    """

    def __init__(
        self,
        address: str,
        rate: float,
        seconds: float,
        path: str = "/",
        clients: int = 20,
        timeout: float = 10.0,
        headers: str = "",
        body: str = "",
    ) -> None:
        self.result = LoadResult()
        self._address = address
        self._rate, self._seconds, self._clients = rate, seconds, clients
        method = "POST" if body else "GET"
        length = f"Content-Length: {len(body)}\r\n" if body else ""
        head = f"{method} {path} HTTP/1.1\r\nHost: load.test\r\n{length}{headers}\r\n"
        self._request = (head + body).encode()
        self._timeout = timeout
        self._stopped = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> "Load":
        start = time.monotonic()
        self._tasks = [
            asyncio.create_task(self._client(start + number / self._rate))
            for number in range(self._clients)
        ]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stopped.set()
        await asyncio.gather(*self._tasks)

    async def finished(self) -> LoadResult:
        """Wait until `seconds` are over; return the result."""
        await asyncio.gather(*self._tasks)
        return self.result

    async def _client(self, due: float) -> None:
        step, end = self._clients / self._rate, due + self._seconds
        reader: asyncio.StreamReader | None = None
        writer: asyncio.StreamWriter | None = None
        while due < end and not self._stopped.is_set():
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            due += step
            began = time.monotonic()
            try:
                async with asyncio.timeout(self._timeout):
                    if writer is not None and reader is not None and reader.at_eof():
                        writer.close()
                        writer = None
                    if reader is None or writer is None:
                        reader, writer = await connect(self._address)
                    writer.write(self._request)
                    keep = await self._answer(reader)
            except (OSError, TimeoutError, asyncio.IncompleteReadError, ValueError) as error:
                self.result.failures.append((began, repr(error)))
                keep = False
            else:
                self.result.latencies.append((time.monotonic(), time.monotonic() - began))
            if not keep and writer is not None:
                writer.close()
                reader = writer = None
        if writer is not None:
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        status, lines = head.split(b" ", 2)[1], head.lower().split(b"\r\n")
        length = [int(line[15:]) for line in lines if line.startswith(b"content-length:")]
        if len(length) != 1:
            raise ValueError(f"no content-length in {head!r}")
        body = await reader.readexactly(length[0])
        if status == b"200":
            self.result.served += 1
            answer = json.loads(body)
            self.result.replicas[answer.get("replica", "")] += 1
            self.result.versions.append(answer.get("version", ""))
        else:
            self.result.failures.append((time.monotonic(), f"{status.decode()} {body[:200]!r}"))
        return b"connection: close" not in lines
