"""The view over real runtimes: it follows each change at once, and catches up after lost events."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from meshd.discovery.watch import RuntimeWatcher
from meshd.model.runtime import ReplicaState
from meshd.runtime.base import Runtime
from meshd.runtime.process.runtime import ProcessRuntime
from tests.fakes.replicas import (
    docker,
    docker_runtime,
    keeper,
    process_runtime,
    replica_spec,
    service,
    start_and_wait,
    unique_project,
)
from tests.support.waiting import assert_prompt, wait_until

PROJECT = unique_project("watch")
BOUND = 0.1
"""Seconds from the engine's event to the view."""


@asynccontextmanager
async def watching(runtime: Runtime, resync: float = 60.0) -> AsyncIterator[RuntimeWatcher]:
    watch = RuntimeWatcher(runtime, on_change=lambda: None, resync=resync)
    running = asyncio.create_task(watch.run())
    await watch.ready()
    yield watch
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def seen(watch: RuntimeWatcher, name: str, state: ReplicaState | None) -> float:
    """Return when the view satisfied the condition (Unix time)."""
    while True:
        found = watch.replicas.get(name)
        if (found.state if found else None) is state:
            return time.time()
        await asyncio.sleep(0.02)


@pytest.mark.engine
async def test_the_view_follows_changes_by_any_program(engine_image: str) -> None:
    """The times are the engine's own, from the events of `docker run` and `docker stop`."""
    name = f"{PROJECT}-guest"
    marks = (f"mesh.project={PROJECT}", "mesh.service=guest", "mesh.port=80")
    labels = [part for mark in marks for part in ("--label", mark)]
    script = (
        "import signal, time; signal.signal(15, lambda *_: None); time.sleep(1.5); time.sleep(60)"
    )
    async with docker_runtime(PROJECT) as runtime, watching(runtime) as watch:
        begin = time.time()
        run = ("run", "-d", "--name", name, *labels, engine_image, "python3", "-c", script)
        running = asyncio.create_task(asyncio.to_thread(docker, *run))
        known = await seen(watch, name, ReplicaState.RUNNING)
        await running
        stopping = asyncio.create_task(asyncio.to_thread(docker, "stop", "-t", "2", name))
        ending = await seen(watch, name, ReplicaState.STOPPING)
        ended = await seen(watch, name, ReplicaState.EXITED)
        await stopping
        await asyncio.to_thread(docker, "rm", name)
        await seen(watch, name, None)
        times = engine_times(name, begin)
    delays = [known - times["start"], ending - times["kill"], ended - times["die"]]
    print(
        f"known {delays[0] * 1000:.0f} ms after start, stopping {delays[1] * 1000:.0f} ms after "
        f"kill and {ended - ending:.2f} s before its end, which was known after "
        f"{delays[2] * 1000:.0f} ms"
    )
    assert_prompt(delays, BOUND)
    assert ended - ending > 1


def engine_times(name: str, since: float) -> dict[str, float]:
    """Return the engine's own time of the first event of each kind of a container."""
    form = "{{.Action}} {{.TimeNano}}"
    window = ("--since", f"{since:.6f}", "--until", f"{time.time():.6f}")
    lines = docker("events", *window, "--filter", f"container={name}", "--format", form)
    times: dict[str, float] = {}
    for line in lines.splitlines():
        action, nanoseconds = line.split()
        times.setdefault(action, int(nanoseconds) / 1e9)
    return times


async def test_view_of_processes(tmp_path: Path, engine_image: str) -> None:
    async with process_runtime(tmp_path) as runtime, watching(runtime) as watch:
        replica = replica_spec(PROJECT, "web-1", service(engine_image))
        await start_and_wait(runtime, replica)
        await seen(watch, replica.name, ReplicaState.RUNNING)
        os.kill(int(watch.replicas[replica.name].runtime_id), signal.SIGKILL)
        await seen(watch, replica.name, ReplicaState.EXITED)
        await runtime.remove(replica.name)
        await seen(watch, replica.name, None)
        assert watch.problem is None


async def test_view_outlives_the_keeper(tmp_path: Path, engine_image: str) -> None:
    """The view stays while the runtime is away, and is correct again once it is back."""
    runtime = ProcessRuntime(tmp_path)
    with keeper(tmp_path) as first:
        await runtime.open()
        replica = replica_spec(PROJECT, "web-1", service(engine_image))
        await start_and_wait(runtime, replica)
        async with watching(runtime, resync=0.2) as watch:
            first.kill()
            first.wait()
            await wait_until(lambda: watch.problem is not None)
            assert watch.replicas[replica.name].state is ReplicaState.RUNNING
            with keeper(tmp_path):
                await wait_until(lambda: watch.problem is None)
                assert watch.replicas == {}
                await start_and_wait(runtime, replica)
                await seen(watch, replica.name, ReplicaState.RUNNING)
