"""Up and down leave no trace. A killed supervisor ends its children; the next one continues."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from tests.support.inside_replica import ran, replica_pid
from tests.support.load import Load
from tests.support.mesh import TestMesh, service_text

QUICK = 3.0
"""Seconds until two replicas are ready, on a machine with nothing else to do."""


async def timed_up(mesh: TestMesh, text: str) -> float:
    began = time.monotonic()
    up = await mesh.up(text)
    assert up.code == 0, up.out + up.err
    return time.monotonic() - began


async def names(mesh: TestMesh) -> set[str]:
    return {replica["name"] for replica in (await mesh.service("web"))["replicas"]}


async def served(mesh: TestMesh) -> None:
    """Assert that every response is 200, and that there are some."""
    async with Load(mesh.address, 50, 0.5) as load:
        await load.finished()
    assert load.result.failures == []
    assert load.result.served > 0


async def gone(pids: set[int], seconds: float) -> float:
    """Wait until all of the processes have ended; return the seconds it took."""
    began = time.monotonic()
    while left := {pid for pid in pids if Path(f"/proc/{pid}").exists()}:
        assert time.monotonic() - began < seconds, {
            pid: Path(f"/proc/{pid}/cmdline").read_bytes() for pid in left
        }
        await asyncio.sleep(0.05)
    return time.monotonic() - began


async def on_engine(mesh: TestMesh) -> list[str]:
    """Return the containers and networks of the mesh's project."""
    found = []
    project = mesh.environment["PROJECT"]
    for what in (("ps", "-a"), ("network", "ls")):
        form = "{{.Names}}" if what[0] == "ps" else "{{.Name}}"
        only = ("--filter", f"label=mesh.project={project}", "--format", form)
        code, out, err = await ran("docker", *what, *only)
        assert code == 0, err
        found += out.decode().split()
    return found


async def pids_of(mesh: TestMesh) -> set[int]:
    """Return every process of the daemon, and of its replicas if those are processes."""
    local = mesh.runtime == "process"
    return set(mesh.processes()) | {replica_pid(name) for name in await names(mesh) if local}


async def test_up_and_down_and_a_killed_supervisor(mesh: TestMesh, engine_image: str) -> None:
    text = f"name: {mesh.environment['PROJECT']}\nservices:\n" + service_text(
        "web", mesh.runtime, engine_image
    )
    first = await timed_up(mesh, text)
    began_with = await names(mesh)
    joined = await timed_up(mesh, text)
    assert await names(mesh) == began_with, "a second up changed what was right"
    await leaves_nothing(mesh, lost=workers_gone)
    second = await timed_up(mesh, text)
    print(f"{mesh.runtime}: up {first:.1f} s, joined {joined:.1f} s, up again {second:.1f} s")
    assert second < 5 * QUICK
    assert joined < 5 * QUICK
    await outlives_its_supervisor(mesh, text)
    await leaves_nothing(mesh, lost=a_second)


async def a_second(mesh: TestMesh) -> None:
    """Wait a second: replicas are being stopped."""
    await asyncio.sleep(1.0)


async def workers_gone(mesh: TestMesh) -> None:
    """Wait until the daemon stops: its control process is no longer restarted."""
    before = len(mesh.processes())
    async with asyncio.timeout(30):
        while len(mesh.processes()) > before - 2:
            await asyncio.sleep(0.005)


async def leaves_nothing(mesh: TestMesh, lost: Callable[[TestMesh], Awaitable[None]]) -> None:
    """`meshd down` leaves nothing, even if the control process is killed at the moment that `lost`
    waits for."""
    pids = await pids_of(mesh)
    assert len(pids) >= 4
    control = mesh.child("meshd.daemon")
    downing = asyncio.create_task(mesh.down())
    await lost(mesh)
    with contextlib.suppress(ProcessLookupError):
        mesh.kill(control)
    down = await downing
    assert down.code == 0, down.out + down.err
    await gone(pids, 5)
    if mesh.runtime == "docker":
        assert await on_engine(mesh) == []
    sockets = [path.name for path in mesh.state.glob("*.sock")]
    assert sockets == [], "sockets are left"


async def outlives_its_supervisor(mesh: TestMesh, text: str) -> None:
    """After `kill -9` of the supervisor its processes end, containers keep running, and the next
    `up` takes them over."""
    before, pids = await names(mesh), await pids_of(mesh)
    (supervisor,) = (pid for pid, words in mesh.processes().items() if "--config" in words)
    mesh.kill(supervisor)
    took = await gone(pids, 15)
    again = await timed_up(mesh, text)
    print(f"{mesh.runtime}: all gone {took:.1f} s after the kill, up again in {again:.1f} s")
    assert took < 5 * 1
    if mesh.runtime == "docker":
        assert await names(mesh) == before, "containers were not taken over"
    else:
        assert not await names(mesh) & before
    await served(mesh)
