"""A replica for tests. Standard library only, so that it runs in a bare image.

Listens on $PORT, answers /healthz, drains on SIGTERM. `/?ms=N` takes N milliseconds of one of
$CONCURRENCY slots; `/stream?seconds=N` sends an event each 100 ms, with `&until=FILE` only
until that file exists; `/download?seconds=N&bytes=M` sends a body piece by piece. Each answer
carries $VERSION. `/_times` answers with the Unix times of the first good probe and the first other
request. `/_unhealthy`, `/_unready?for=now` and `/_eat?mb=N` (memory) damage it.
$FAULT: `never-healthy`, `slow-start` (2 s), `crash` (after 5 s), `exit` (at once),
`errors` (5 % of the answers are 500), `slow` (ten times as slow).
"""

import asyncio
import json
import os
import signal
import sys
import time
from urllib.parse import parse_qs, urlsplit

FAULT = os.environ.get("FAULT", "")
VERSION = os.environ.get("VERSION", "1")
NAME = os.environ.get("MESH_REPLICA") or os.environ.get("HOSTNAME", str(os.getpid()))


class Origin:
    """The server and its state."""

    def __init__(self) -> None:
        self.slots = asyncio.Semaphore(int(os.environ.get("CONCURRENCY", "1000")))
        self.ending = asyncio.Event()
        self.busy = 0
        self.count = 0
        self.unhealthy = FAULT == "never-healthy"
        self.unready = False
        self.eaten = b""
        self.first_probe = self.first_request = 0.0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self.exchange(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        _, target, _ = head[0].split(" ")
        fields = dict(line.lower().split(": ", 1) for line in head[1:] if ": " in line)
        body = await reader.readexactly(int(fields.get("content-length", 0)))
        self.busy += 1
        try:
            await self.answer(target, fields, body, writer)
            await writer.drain()
        finally:
            self.busy -= 1
        return not self.ending.is_set()

    async def answer(
        self, target: str, fields: dict[str, str], body: bytes, writer: asyncio.StreamWriter
    ) -> None:
        url = urlsplit(target)
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        if url.path == "/healthz":
            if not self.unhealthy:
                self.first_probe = self.first_probe or time.time()
            self.plain(writer, 503 if self.unhealthy else 200, {"ok": not self.unhealthy})
        elif url.path == "/stream":
            await self.stream(float(query.get("seconds", "1")), query.get("until", ""), writer)
        elif url.path == "/download":
            await self.download(float(query["seconds"]), int(query["bytes"]), writer)
        elif url.path == "/_unhealthy":
            self.unhealthy = True
            self.plain(writer, 200, {})
        elif url.path == "/ready":
            self.plain(writer, 503 if self.unready else 200, {})
        elif url.path == "/_unready":
            self.unready = query["for"] == "now"
            self.plain(writer, 200, {})
        elif url.path == "/_eat":
            self.eaten = b"x" * (int(query["mb"]) << 20)
            self.plain(writer, 200, {})
        elif url.path == "/_times":
            self.plain(writer, 200, {"probe": self.first_probe, "request": self.first_request})
        else:
            self.first_request = self.first_request or time.time()
            async with self.slots:
                times = 10 if FAULT == "slow" else 1
                await asyncio.sleep(times * float(query.get("ms", "0")) / 1000)
            self.count += 1
            status = 500 if FAULT == "errors" and self.count % 20 == 0 else 200
            answer = {"replica": NAME, "version": VERSION, "path": url.path, "body": len(body)}
            self.plain(writer, status, {**answer, "headers": fields})

    def plain(self, writer: asyncio.StreamWriter, status: int, value: object) -> None:
        text = json.dumps(value).encode()
        close = b"Connection: close\r\n" if self.ending.is_set() else b""
        writer.write(
            b"HTTP/1.1 %d X\r\nContent-Type: application/json\r\nContent-Length: %d\r\n%b\r\n%b"
            % (status, len(text), close, text)
        )

    async def stream(self, seconds: float, until: str, writer: asyncio.StreamWriter) -> None:
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        for number in range(int(seconds * 10)):
            if until and os.path.exists(until):
                break
            event = b"data: %d\n\n" % number
            writer.write(b"%x\r\n%b\r\n" % (len(event), event))
            await writer.drain()
            await asyncio.sleep(0.1)
        writer.write(b"9\r\ndata: end\r\n0\r\n\r\n")

    async def download(self, seconds: float, size: int, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        for piece in range(40):
            writer.write(b"d" * (size * (piece + 1) // 40 - size * piece // 40))
            await writer.drain()
            await asyncio.sleep(seconds / 40)


def crash() -> None:
    """Kill this process. The first process of a container cannot be killed from inside: exit."""
    os.kill(os.getpid(), signal.SIGKILL)
    os._exit(1)


async def main() -> None:
    if FAULT == "exit":
        sys.exit("refusing to start: FAULT=exit")
    if FAULT == "slow-start":
        await asyncio.sleep(2)
    origin = Origin()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, origin.ending.set)
    host = "0.0.0.0" if os.path.exists("/.dockerenv") else "127.0.0.1"
    server = await asyncio.start_server(origin.serve, host, int(os.environ["PORT"]))
    print(f"origin v{VERSION} listening", flush=True)
    if FAULT == "crash":
        loop.call_later(5, crash)
    await origin.ending.wait()
    server.close()
    while origin.busy:
        await asyncio.sleep(0.02)
    await asyncio.sleep(0.05)


if __name__ == "__main__":
    asyncio.run(main())
