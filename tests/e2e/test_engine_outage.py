"""The engine stops and starts again under a whole mesh."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from tests.support.load import Load
from tests.support.mesh import TestMesh, service_text
from tests.support.own_engine import OwnEngine, mesh_on, own_engine

pytestmark = [pytest.mark.engine, pytest.mark.slow]


@pytest.fixture
def engine(engine_image: str) -> Iterator[OwnEngine]:
    with own_engine(live_restore=True) as running:
        running.load(engine_image)
        yield running


@pytest.fixture
async def mesh(engine: OwnEngine) -> AsyncIterator[TestMesh]:
    async with mesh_on(engine) as made:
        yield made


def ready(status: dict[str, Any]) -> set[str]:
    return {r["name"] for r in status["replicas"] if r["phase"] == "ready"}


async def runtime_is(mesh: TestMesh, state: str, seconds: float) -> float:
    """Wait until the status has this state of the runtime; return the seconds it took."""
    began = time.monotonic()
    while (await mesh.api("/v1/status"))["runtime_state"] != state:
        assert time.monotonic() - began < seconds, f"not {state!r} in {seconds} s"
        await asyncio.sleep(0.05)
    return time.monotonic() - began


async def test_the_mesh_survives_an_engine_outage(
    engine: OwnEngine, mesh: TestMesh, engine_image: str
) -> None:
    text = f"name: {mesh.environment['PROJECT']}\nservices:\n" + service_text(
        "web", "docker", engine_image
    )
    up = await mesh.up(text)
    assert up.code == 0, up.out + up.err
    assert (await mesh.run("scale", "web", "3")).code == 0
    _, before = await mesh.until("web", lambda s: len(ready(s)) == 3, 30)
    await lives_on(engine, mesh, before)
    await asyncio.to_thread(engine.live_restore, False)
    await ends_with_it(engine, mesh, before)


async def lives_on(engine: OwnEngine, mesh: TestMesh, before: dict[str, Any]) -> None:
    """With live-restore: the mesh serves, reports the outage, and changes nothing."""
    async with Load(mesh.address, 200, 60) as load:
        await asyncio.sleep(1)
        await asyncio.to_thread(engine.stop)
        lost = await runtime_is(mesh, "does not answer", 10)
        shown = await mesh.run("ps")
        assert shown.code == 0
        assert "does not answer" in shown.out + shown.err
        deploy = await mesh.run("deploy", "-f", str(mesh.folder / "compose.yml"))
        assert deploy.code == 1
        assert "the docker runtime does not answer" in deploy.err
        assert ready(await mesh.service("web")) == ready(before)
        await asyncio.to_thread(engine.start)
        back = await runtime_is(mesh, "ok", 15)
        await asyncio.sleep(2)
    print(
        f"live-restore: {load.result.served} served, {len(load.result.failures)} failed; missed "
        f"after {lost:.2f} s, known to be back after {back:.2f} s"
    )
    assert load.result.failures == []
    assert load.result.served > 200
    assert lost < 5 * 1
    after = await mesh.service("web")
    assert [(r["name"], r["address"]) for r in after["replicas"]] == [
        (r["name"], r["address"]) for r in before["replicas"]
    ]


async def ends_with_it(engine: OwnEngine, mesh: TestMesh, before: dict[str, Any]) -> None:
    """Without live-restore: the containers end, and the same number of the same revision is started
    again, even if the control process is killed meanwhile."""
    await asyncio.to_thread(engine.stop)
    await runtime_is(mesh, "does not answer", 10)
    first = mesh.child("meshd.daemon")
    mesh.kill(first)
    await mesh.until("web", lambda s: mesh.child("meshd.daemon") != first, 20)
    listed = await mesh.run("ps", "-o", "json")
    assert listed.code == 0, listed.err + (mesh.state / "daemon.log").read_text()[-4000:]
    shown = json.loads(listed.out)
    assert shown["runtime_state"] == "does not answer"
    assert [(s["name"], s["wanted"]) for s in shown["services"]] == [("web", 3)]
    began = time.monotonic()
    await asyncio.to_thread(engine.start)
    started = time.monotonic() - began
    _, after = await mesh.until("web", lambda s: len(ready(s)) == 3, 45)
    healed = time.monotonic() - began - started
    print(f"without: engine up in {started:.1f} s, all replicas ready {healed:.1f} s later")
    assert healed < 5 * 5
    assert (after["wanted"], after["override"]) == (3, 3)
    assert after["revision"] == before["revision"]
    async with Load(mesh.address, 50, 1) as load:
        await load.finished()
    assert load.result.failures == []
    kinds = {event["kind"] for event in await mesh.events()}
    assert {"runtime.lost", "runtime.back"} <= kinds
