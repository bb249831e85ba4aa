"""The keeper: the process that owns local replicas, separate from the control process.

`python -m meshd.runtime.process.keeper --state DIR` listens on DIR/keeper.sock. It makes no
decisions: it starts, stops and reports. Its replicas end with it, and it ends with the process that
started it. `keeper_protocol` has the messages, `keeper_replicas` the replicas.
"""

import asyncio
import fcntl
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import click
import msgspec
import structlog

from meshd.logging_setup import set_up_logging
from meshd.model.output import OutputLine
from meshd.runtime.base import RuntimeEvent, RuntimeFailure
from meshd.runtime.process import keeper_protocol as wire
from meshd.runtime.process.keeper_child import die_with_parent
from meshd.runtime.process.keeper_output import RING_LINES
from meshd.runtime.process.keeper_replicas import Replicas
from proxy.ipc.signals import hold_late_signals, release_signals
from proxy.ipc.watchdog import send_signs_of_life, take_watchdog

END_GRACE = 5.0
"""Seconds of grace for replicas when the keeper ends."""
OWNER_VARIABLE = "MESHD_KEEPER"
"""Set for every replica to the keeper's state directory: a later keeper finds by it what a
killed keeper left behind."""

_log = structlog.stdlib.get_logger(__name__)

Item = TypeVar("Item", RuntimeEvent, tuple[OutputLine, ...])


class Keeper:
    """Serve clients for the replicas of one state directory."""

    def __init__(self, state: Path) -> None:
        self._state = state
        self._replicas = Replicas(state / "logs")
        self._clients: set[asyncio.Task[None]] = set()

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop` is set, then end every replica. Raises BlockingIOError if another
        keeper holds the state directory."""
        logs = self._state / "logs"
        logs.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (self._state / "keeper.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _kill_leftovers(self._owner)
            for old in logs.glob("*.log*"):
                old.unlink()
            path = self._state / wire.SOCKET_NAME
            path.unlink(missing_ok=True)
            server = await asyncio.start_unix_server(self._serve, path, limit=wire.LINE_LIMIT)
            path.chmod(0o600)
            _log.info("keeper ready", socket=str(path))
            await stop.wait()
            server.close()
            path.unlink(missing_ok=True)
            await self._replicas.end(END_GRACE)
            for client in self._clients:
                client.cancel()
            await asyncio.gather(*self._clients, return_exceptions=True)

    @property
    def _owner(self) -> str:
        return str(self._state.resolve())

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._clients.add(task)
        try:
            await self._answer(reader, writer)
        except ConnectionError as error:
            _log.debug("client left", reason=str(error))
        except asyncio.CancelledError:
            _log.debug("client disconnected at shutdown")
        finally:
            self._clients.discard(task)
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            request = wire.requests.decode(await reader.readline())
            if isinstance(request, wire.Watch):
                with self._replicas.subscribe() as events:
                    await _stream(events, reader, writer)
            elif isinstance(request, wire.Follow):
                output = self._replicas.find(request.name).output
                with output.follow(request.tail, request.since) as lines:
                    await _stream(lines, reader, writer)
            else:
                writer.write(wire.encode(await self._act(request)))
        except RuntimeFailure as failure:
            writer.write(wire.encode(wire.Failed(type(failure).__name__, str(failure))))
        except (ValueError, msgspec.MsgspecError) as error:
            writer.write(wire.encode(wire.Failed("RuntimeFailure", f"invalid request: {error}")))
        await writer.drain()

    async def _act(self, request: wire.AnyRequest) -> wire.Done:
        match request:
            case wire.List():
                return wire.Done(self._replicas.observe())
            case wire.Start(launch):
                owned = {**launch.environment, OWNER_VARIABLE: self._owner}
                launch = msgspec.structs.replace(launch, environment=owned)
                return wire.Done((self._replicas.start(launch).observe(),))
            case wire.Stop(name, grace):
                await self._replicas.find(name).stop(grace)
            case wire.Remove(name):
                self._replicas.remove(name)
            case wire.Pause(name):
                self._replicas.running(name).pause()
            case wire.Unpause(name):
                self._replicas.running(name).unpause()
            case wire.Logs(name, tail):
                return wire.Done(lines=self._replicas.find(name).output.tail(tail))
            case wire.TimedLogs(name):
                lines = self._replicas.find(name).output.lines(RING_LINES)
                return wire.Done(
                    lines=tuple(line.text for line in lines),
                    times=tuple(line.at for line in lines),
                )
        return wire.Done()


async def _stream(
    items: asyncio.Queue[Item | None], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Send items until None arrives or the client closes."""
    writer.write(wire.encode(wire.Done()))
    with _end_with_client(reader, items):
        while (item := await items.get()) is not None:
            writer.writelines(map(wire.encode, _values(item)))
            await writer.drain()


def _values(
    item: RuntimeEvent | tuple[OutputLine, ...],
) -> tuple[RuntimeEvent | OutputLine, ...]:
    return item if isinstance(item, tuple) else (item,)


@contextmanager
def _end_with_client(
    reader: asyncio.StreamReader, items: asyncio.Queue[Item | None]
) -> Iterator[None]:
    """Put None into `items` when the client closes; otherwise its end would be noticed only at
    the next item."""

    def on_close(_: asyncio.Task[bytes]) -> None:
        if items.full():
            items.get_nowait()
        items.put_nowait(None)

    closed = asyncio.create_task(reader.read(1))
    closed.add_done_callback(on_close)
    try:
        yield
    finally:
        closed.cancel()


def _kill_leftovers(owner: str) -> None:
    """KILL what an earlier keeper of this directory left: the replicas of a killed keeper end
    with it, but not the processes that they had started."""
    mark = f"{OWNER_VARIABLE}={owner}".encode()
    for directory in Path("/proc").iterdir():
        if not directory.name.isdigit() or int(directory.name) == os.getpid():
            continue
        try:
            marked = mark in (directory / "environ").read_bytes().split(b"\0")
            if marked:
                os.kill(int(directory.name), signal.SIGKILL)
                _log.warning("ended a process left by an earlier keeper", pid=directory.name)
        except (FileNotFoundError, PermissionError, ProcessLookupError):
            continue  # ended meanwhile, or owned by another user


async def _main(state: Path) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    release_signals()
    signs = asyncio.create_task(send_signs_of_life(take_watchdog()))
    try:
        await Keeper(state).run(stop)
    finally:
        signs.cancel()


@click.command()
@click.option("--state", type=click.Path(file_okay=False, path_type=Path), required=True)
def main(state: Path) -> None:
    """Hold local replicas until SIGTERM."""
    parent = os.getppid()
    die_with_parent(signal.SIGTERM)
    if os.getppid() != parent:
        sys.exit(1)
    set_up_logging()
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        asyncio.run(hold_late_signals(_main(state)))
    except BlockingIOError:
        raise click.ClickException(f"another keeper holds {state}") from None


if __name__ == "__main__":
    main()
