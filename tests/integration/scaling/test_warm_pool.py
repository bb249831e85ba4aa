"""The warm pool on local processes: filled, never routed to, resumed at once, found again after a
restart."""

import time
from functools import partial
from pathlib import Path

import pytest

from tests.support.inside_replica import replica_pid
from tests.support.load import Load
from tests.support.mesh import TestMesh
from tests.support.scaled import get_all, metric, scaled_mesh, up
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow


def phases(status: dict[str, object]) -> list[str]:
    replicas = status["replicas"]
    assert isinstance(replicas, list)
    return sorted(replica["phase"] for replica in replicas)


def is_stopped(pid: int) -> bool:
    """Whether the process was sent SIGSTOP and no longer runs."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


async def filled(mesh: TestMesh, count: int, ready: int) -> dict[str, object]:
    whole = sorted(["paused"] * count + ["ready"] * ready)
    _, status = await mesh.until("web", lambda s: phases(s) == whole, 40)
    return status


async def test_the_warm_pool_is_filled_resumed_and_refilled() -> None:
    async with scaled_mesh() as mesh:
        scale = "{min: 1, max: 4, concurrency: 50, warm: 2}"
        await up(mesh, web=f"{{routes: [/], scale: {scale}}}")
        status = await filled(mesh, 2, 1)
        assert (status["wanted"], status["running"], status["ready"], status["paused"]) == (
            1, 1, 1, 2,
        )  # fmt: skip
        assert await metric(mesh, "meshd_replicas") > 0
        asleep = [r["name"] for r in status["replicas"] if r["phase"] == "paused"]  # type: ignore[attr-defined]
        for name in asleep:
            await wait_until(partial(is_stopped, replica_pid(name)), 5.0, f"{name} is stopped")
        assert len({body for _, body in await get_all(mesh, "/", 20)}) >= 1
        same = await mesh.run("diff", "-f", str(mesh.folder / "compose.yml"))
        assert (same.code, same.out) == (0, "nothing to do\n"), same.out + same.err

        mesh.kill(mesh.child("meshd.daemon"))
        status = await filled(mesh, 2, 1)
        assert {r["name"] for r in status["replicas"] if r["phase"] == "paused"} == set(asleep)  # type: ignore[attr-defined]

        async with Load(mesh.address, 100, 20, path="/?ms=10") as load:
            began = time.monotonic()
            done = await mesh.run("scale", "web", "3")
            assert done.code == 0, done.err
            ordered = time.monotonic() - began
            _, status = await mesh.until("web", lambda s: s["ready"] == 3, 10)
            took = time.monotonic() - began
            woken = {r["name"] for r in status["replicas"] if r["phase"] == "ready"}
            assert set(asleep) <= woken
            await filled(mesh, 2, 3)
        ready_events = [e for e in await mesh.events() if e["kind"] == "replica.ready"][-2:]
        print(f"scaled up after {took:.2f} s ({ordered:.2f} s of it the command): "
              f"{[e['text'] for e in ready_events]}")  # fmt: skip
        assert load.result.failures == []
        assert all("was resumed and passed its probe" in e["text"] for e in ready_events)
        down = await mesh.run("down", "--all")
        assert down.code == 0, down.err


async def test_a_service_at_zero_is_resumed_from_its_warm_pool() -> None:
    async with scaled_mesh() as mesh:
        scale = "{min: 0, max: 3, concurrency: 10, idle: 3s, warm: 1}"
        await up(mesh, web=f"{{routes: [/], scale: {scale}}}")
        await filled(mesh, 1, 0)
        began = time.monotonic()
        ((status, _),) = await get_all(mesh, "/", 1)
        took = time.monotonic() - began
        print(f"answered {took:.3f} s after the first byte, from a paused replica")
        assert status == 200
        assert took < 5.0


async def test_an_auto_warm_pool_takes_the_size_of_the_first_burst() -> None:
    async with scaled_mesh() as mesh:
        scale = "{min: 1, max: 9, concurrency: 2, warm: auto, down_window: 60s}"
        await up(mesh, web=f"{{routes: [/], scale: {scale}}}")
        await filled(mesh, 0, 1)
        async with Load(mesh.address, 40, 160, path="/?ms=100") as load:
            _, status = await mesh.until("web", lambda s: "paused" in phases(s), 40)
        assert load.result.failures == []
        wanted = status["wanted"]
        assert isinstance(wanted, int)
        assert wanted > 1
