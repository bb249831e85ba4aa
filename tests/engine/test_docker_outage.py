"""The engine's event stream is cut, or the engine restarts: no call hangs and no event is lost."""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest

from meshd.model.output import OutputQuery
from meshd.model.runtime import ReplicaSpec, ReplicaState
from meshd.runtime.base import EventKind, RuntimeFailure, RuntimeUnavailable
from meshd.runtime.docker.runtime import DockerRuntime
from meshd.spec.model import Service
from tests.fakes.replicas import (
    ReceivedEvents,
    docker,
    docker_runtime,
    replica_spec,
    service,
    start_and_wait,
    state_of,
    unique_project,
)
from tests.support.own_engine import OwnEngine, own_engine
from tests.support.waiting import wait_until

pytestmark = pytest.mark.engine
PROJECT = unique_project("outage")


class Forwarder:
    """A socket in front of the engine's, whose connections can be cut."""

    def __init__(self, path: Path, engine: str) -> None:
        self._path = path
        self._engine = engine
        self._writers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> "Forwarder":
        self._server = await asyncio.start_unix_server(self._connected, self._path)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.down()

    async def down(self) -> None:
        """Refuse new connections and cut all open ones."""
        self._server.close()
        self._path.unlink(missing_ok=True)
        self.cut()

    async def up(self) -> None:
        """Accept connections again."""
        self._server = await asyncio.start_unix_server(self._connected, self._path)

    def cut(self) -> None:
        """Break every connection."""
        for writer in self._writers:
            writer.transport.abort()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        engine_reader, engine_writer = await asyncio.open_unix_connection(self._engine)
        both = {writer, engine_writer}
        self._writers |= both
        try:
            await asyncio.wait(
                [
                    asyncio.create_task(pump(reader, engine_writer)),
                    asyncio.create_task(pump(engine_reader, writer)),
                ],
            )
        finally:
            self._writers -= both


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


@pytest.fixture
async def forwarder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Forwarder]:
    engine = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock").removeprefix("unix://")
    path = tmp_path / "engine.sock"
    async with Forwarder(path, engine) as forwarder:
        monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
        yield forwarder


async def test_a_cut_event_stream_is_reopened_with_a_resync(
    forwarder: Forwarder, engine_image: str
) -> None:
    replica = replica_spec(PROJECT, "web-1", service(engine_image))
    async with docker_runtime(PROJECT) as runtime, ReceivedEvents(runtime) as heard:
        await start_and_wait(runtime, replica)
        for number in (2, 3):
            began = time.monotonic()
            forwarder.cut()
            await heard.wait(EventKind.RESYNC, count=number)
            print(f"resynced {time.monotonic() - began:.2f} s after the cut")
        await runtime.stop(replica.name, 5)
        await heard.wait(EventKind.DIED, replica.name)
        assert await state_of(runtime, replica.name) is ReplicaState.EXITED


async def test_an_unreachable_engine_fails_every_call_at_once(
    forwarder: Forwarder, engine_image: str
) -> None:
    web = service(engine_image)
    async with docker_runtime(PROJECT) as runtime, ReceivedEvents(runtime) as heard:
        await start_and_wait(runtime, replica_spec(PROJECT, "web-1", web))
        await forwarder.down()
        began = time.monotonic()
        for asked in (
            runtime.list(),
            runtime.nodes(),
            runtime.prepare(PROJECT, web),
            runtime.mesh_addresses(PROJECT, ["web"]),
            runtime.start(replica_spec(PROJECT, "web-2", web)),
            runtime.stop(f"{PROJECT}-web-1", 1),
            runtime.remove(f"{PROJECT}-web-1"),
            runtime.pause(f"{PROJECT}-web-1"),
            runtime.logs(f"{PROJECT}-web-1", 1),
            runtime.teardown(PROJECT),
            DockerRuntime().open(),
        ):
            with pytest.raises(RuntimeUnavailable):
                await asked
        with pytest.raises(RuntimeUnavailable):
            _ = [line async for line in runtime.follow(f"{PROJECT}-web-1", OutputQuery(0))]
        took = time.monotonic() - began
        print(f"said 12 times in {took:.2f} s")
        assert took < 10
        await forwarder.up()
        await heard.wait(EventKind.RESYNC, count=2)
        assert await state_of(runtime, f"{PROJECT}-web-1") is ReplicaState.RUNNING


@pytest.mark.slow
@pytest.mark.parametrize("lives", [False, True], ids=["ends", "live-restore"])
async def test_engine_restart(
    engine_image: str, monkeypatch: pytest.MonkeyPatch, lives: bool
) -> None:
    with own_engine(live_restore=lives) as engine:
        engine.load(engine_image)
        monkeypatch.setenv("DOCKER_HOST", engine.host)
        async with docker_runtime(PROJECT) as runtime, ReceivedEvents(runtime) as heard:
            await restart_under(runtime, heard, engine, service(engine_image), lives)


async def restart_under(
    runtime: DockerRuntime, heard: ReceivedEvents, engine: OwnEngine, web: Service, lives: bool
) -> None:
    replica: ReplicaSpec = replica_spec(PROJECT, "web-1", web)
    await start_and_wait(runtime, replica)
    await asyncio.to_thread(engine.stop)
    with pytest.raises(RuntimeUnavailable):
        await runtime.list()
    await asyncio.to_thread(engine.start)
    began = time.monotonic()
    await heard.wait(EventKind.RESYNC, count=2)
    print(f"resynced {time.monotonic() - began:.2f} s after the engine came back")
    if lives:
        assert await state_of(runtime, replica.name) is ReplicaState.RUNNING
    else:
        assert await state_of(runtime, replica.name) is ReplicaState.EXITED
        await runtime.remove(replica.name)
        await start_and_wait(runtime, replica)
    await runtime.stop(replica.name, 5)
    await heard.wait(EventKind.DIED, replica.name)
    await runtime.remove(replica.name)

    async def torn_down() -> bool:
        try:
            await runtime.teardown(PROJECT)
        except RuntimeFailure:
            return False
        return True

    await wait_until(torn_down)
    assert docker("-H", engine.host, "network", "ls", "-q", "--filter", "driver=bridge") == ""
