"""A real supervisor, and the control process's end of its feed, played by the test."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import TypeVar

import msgspec

from proxy.ipc.config import SupervisorConfig
from proxy.wire import codec
from proxy.wire.report import Ack, Hello, Listening, Message, Publish, Workers
from proxy.wire.snapshot import (
    Endpoint,
    Generation,
    Route,
    Service,
    Snapshot,
    Target,
    difference,
)
from tests.support.patience import BUSY


def snapshot(number: int, *ports: int, epoch: int = 1) -> Snapshot:
    """Everything goes to one service with an endpoint on each port."""
    endpoints = tuple(Endpoint(f"e{port}", "127.0.0.1", port) for port in ports)
    service = Service("shop/web", fingerprint=f"{number}/{ports}", endpoints=endpoints)
    return Snapshot(
        generation=Generation(epoch, number),
        services=(service,),
        routes=(Route("all", (Target("shop/web"),)),),
    )


async def until(condition: Callable[[], bool], seconds: float, what: str) -> float:
    """Wait for something to become true, which takes at most `seconds` where nothing else runs;
    how long it took in seconds."""
    started = time.monotonic()
    while not condition():
        if time.monotonic() - started > BUSY * seconds:
            raise AssertionError(f"after {BUSY * seconds} s still not: {what}")
        await asyncio.sleep(0.005)
    return time.monotonic() - started


class Supervised:
    """A running `python -m proxy`."""

    def __init__(self, argv: list[str], log: Path) -> None:
        self.log = log
        with log.open("ab") as file:
            self.process = subprocess.Popen(argv, stdout=file, stderr=file)

    @property
    def said(self) -> str:
        """What it printed and logged."""
        return self.log.read_text()

    def bound(self) -> list[str]:
        """The addresses it announced."""
        lines = self.said.splitlines()
        return [line.split()[-1] for line in lines if line.startswith("listening on ")]

    async def listening(self, seconds: float = 15) -> str:
        """The first address announced, once it is."""
        await until(
            lambda: bool(self.bound()) or self.process.poll() is not None, seconds, "listening"
        )
        assert self.bound(), self.said
        return self.bound()[0]

    def children(self) -> list[int]:
        """The pids of its direct children."""
        path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(pid) for pid in path.read_text().split()]

    def workers(self) -> list[int]:
        """The pids of its worker processes."""
        return [pid for pid in self.children() if "proxy.worker" in command_line(pid)]

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    async def ended(self, seconds: float = 15) -> int:
        """Its exit code."""
        await until(lambda: self.process.poll() is not None, seconds, "ended")
        return self.process.returncode

    def close(self) -> None:
        """End it at once, where it still runs; its children go with it."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait()


def command_line(pid: int) -> str:
    """The command line of a process; empty when it has ended."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    return ""


def alive(pid: int) -> bool:
    """Whether a process exists and is not just waiting to be reaped."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


@contextlib.contextmanager
def supervised(directory: Path, config: SupervisorConfig) -> Iterator[Supervised]:
    """A supervisor with `config` while the block runs."""
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
    """The control process's end of the feed; keeps everything that comes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.messages: list[Message] = []
        self.closed = False
        self._reader = reader
        self._writer = writer

    async def read(self) -> None:
        """Take in messages until the connection ends."""
        decoder = codec.Decoder()
        with contextlib.suppress(ConnectionError):
            while data := await self._reader.read(65536):
                self.messages += decoder.feed(data)
        self.closed = True

    def send(self, message: Message) -> None:
        self._writer.write(codec.encode(message))

    def publish(self, new: Snapshot, old: Snapshot | None = None) -> None:
        self.send(Publish(difference(old, new)))

    def of(self, kind: type[Kind]) -> list[Kind]:
        """The messages of one kind so far."""
        return [each for each in self.messages if isinstance(each, kind)]

    @property
    def live(self) -> tuple[int, ...]:
        told = self.of(Workers)
        return told[-1].live if told else ()

    @property
    def bound(self) -> dict[str, str]:
        told = self.of(Listening)
        return told[-1].bound if told else {}

    def acked(self, generation: Generation) -> set[int]:
        """The workers that acked `generation` or a later one."""
        return {ack.worker for ack in self.of(Ack) if ack.generation >= generation}

    async def all_acked(self, generation: Generation, seconds: float = 10) -> float:
        """Wait until every live worker has; how long it took."""
        return await until(
            lambda: bool(self.live) and self.acked(generation) >= set(self.live),
            seconds,
            f"all of {self.live} acked {generation}",
        )


@contextlib.asynccontextmanager
async def control(path: str | os.PathLike[str], role: str = "control") -> AsyncIterator[Control]:
    """Connect to a feed socket and say hello."""
    await until(lambda: os.path.exists(path), 10, f"{path} exists")
    reader, writer = await asyncio.open_unix_connection(os.fspath(path))
    client = Control(reader, writer)
    reading = asyncio.create_task(client.read())
    client.send(Hello(role=role))
    try:
        await until(lambda: bool(client.of(Workers)) or client.closed, 10, "greeted")
        yield client
    finally:
        writer.close()
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
