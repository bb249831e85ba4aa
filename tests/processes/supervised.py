"""A real supervisor process, and a client of its feed that plays the control process."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TypeVar

import msgspec

from proxy.ipc.config import SupervisorConfig
from proxy.wire import codec
from proxy.wire.report import Ack, Hello, Listening, Message, Workers, make_publication
from proxy.wire.snapshot import (
    Endpoint,
    Generation,
    Route,
    Service,
    Snapshot,
    Target,
)
from tests.support.waiting import wait_until


def snapshot(number: int, *ports: int, epoch: int = 1) -> Snapshot:
    """Return a snapshot that routes every request to one service with an endpoint per port."""
    endpoints = tuple(Endpoint(f"e{port}", "127.0.0.1", port) for port in ports)
    service = Service("shop/web", fingerprint=f"{number}/{ports}", endpoints=endpoints)
    return Snapshot(
        generation=Generation(epoch, number),
        services=(service,),
        routes=(Route("all", (Target("shop/web"),)),),
    )


class Supervised:
    """A running `python -m proxy`."""

    def __init__(self, argv: list[str], log: Path) -> None:
        self.log = log
        with log.open("ab") as file:
            self.process = subprocess.Popen(argv, stdout=file, stderr=file)

    @property
    def said(self) -> str:
        """Its output and log."""
        return self.log.read_text()

    def bound(self) -> list[str]:
        """Return the addresses that it announced."""
        lines = self.said.splitlines()
        return [line.split()[2] for line in lines if line.startswith("listening on ")]

    async def listening(self, seconds: float = 15, addresses: int = 1) -> str:
        """Wait until it announced this many addresses; return the first one."""
        await wait_until(
            lambda: len(self.bound()) >= addresses or self.process.poll() is not None,
            seconds,
            f"listening on {addresses} addresses",
        )
        assert len(self.bound()) >= addresses, self.said
        return self.bound()[0]

    def children(self) -> list[int]:
        """Return the process ids of its direct children."""
        path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(pid) for pid in path.read_text().split()]

    def workers(self) -> list[int]:
        """Return the process ids of its workers."""
        return [pid for pid in self.children() if "proxy.worker" in command_line(pid)]

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    async def ended(self, seconds: float = 15) -> int:
        """Wait until it ended; return its exit code."""
        await wait_until(lambda: self.process.poll() is not None, seconds, "ended")
        return self.process.returncode

    def close(self) -> None:
        """Kill it if it still runs; its children end with it."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait()


def command_line(pid: int) -> str:
    """Return the command line of a process; empty if it has ended."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    return ""


def alive(pid: int) -> bool:
    """Whether a process exists and is not a zombie."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


@contextlib.contextmanager
def supervised(directory: Path, config: SupervisorConfig) -> Iterator[Supervised]:
    """Run a supervisor with `config` while the block runs."""
    file = directory / f"config-{time.monotonic_ns()}.json"
    file.write_bytes(msgspec.json.encode(config))
    running = Supervised(
        [sys.executable, "-m", "proxy", "--config", str(file)], directory / f"{file.stem}.log"
    )
    try:
        yield running
    finally:
        running.close()


Kind = TypeVar("Kind", bound=msgspec.Struct)


class Control:
    """The control process's end of the feed; it keeps every message."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.messages: list[Message] = []
        self.closed = False
        self._reader = reader
        self._writer = writer

    async def read(self) -> None:
        """Read messages until the connection ends."""
        decoder = codec.Decoder()
        with contextlib.suppress(ConnectionError):
            while data := await self._reader.read(65536):
                self.messages += decoder.feed(data)
        self.closed = True

    def send(self, message: Message) -> None:
        self._writer.write(codec.encode(message))

    def publish(self, new: Snapshot, old: Snapshot | None = None, *, deltas: bool = True) -> None:
        self.send(make_publication(old, new, deltas=deltas))

    def of(self, kind: type[Kind]) -> list[Kind]:
        """Return the messages of one kind so far."""
        return [each for each in self.messages if isinstance(each, kind)]

    @property
    def live(self) -> tuple[int, ...]:
        received = self.of(Workers)
        return received[-1].live if received else ()

    @property
    def bound(self) -> dict[str, str]:
        received = self.of(Listening)
        return received[-1].bound if received else {}

    def acked(self, generation: Generation) -> set[int]:
        """Return the workers that acked `generation` or a later one."""
        return {ack.worker for ack in self.of(Ack) if ack.generation >= generation}

    async def all_acked(self, generation: Generation, seconds: float = 10) -> float:
        """Wait until every live worker acked `generation`; return the seconds it took."""
        return await wait_until(
            lambda: bool(self.live) and self.acked(generation) >= set(self.live),
            seconds,
            f"all of {self.live} acked {generation}",
        )


@contextlib.asynccontextmanager
async def control(path: str | os.PathLike[str], role: str = "control") -> AsyncIterator[Control]:
    """Connect to a feed socket and say hello."""
    await wait_until(lambda: os.path.exists(path), 10, f"{path} exists")
    reader, writer = await asyncio.open_unix_connection(os.fspath(path))
    client = Control(reader, writer)
    reading = asyncio.create_task(client.read())
    client.send(Hello(role=role))
    try:
        await wait_until(lambda: bool(client.of(Workers)) or client.closed, 10, "greeted")
        yield client
    finally:
        writer.close()
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
