"""Scaling to zero and from zero, on local processes and through the real proxy."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from tests.support.mesh import TestMesh
from tests.support.scaled import events_of_kind, get_all, metric, scaled_mesh, up
from tests.support.waiting import elapse

pytestmark = pytest.mark.slow


@pytest.fixture
async def mesh() -> AsyncIterator[TestMesh]:
    async with scaled_mesh() as made:
        yield made


async def test_an_idle_service_scales_to_zero_and_a_burst_starts_enough_replicas(
    mesh: TestMesh,
) -> None:
    scale = "{min: 0, max: 6, concurrency: 4, idle: 3s, down_window: 30s}"
    await up(mesh, web=f"{{routes: [/], scale: {scale}, health: {{path: /healthz}}}}")
    await mesh.until("web", lambda s: s["wanted"] == 0 and not s["replicas"], 30)

    began = time.monotonic()
    ((status, _),) = await get_all(mesh, "/", 1)
    first = time.monotonic() - began
    assert status == 200
    assert first < 20.0
    await mesh.until("web", lambda s: s["wanted"] == 0 and not s["replicas"], 30)

    began = time.monotonic()
    answers = await get_all(mesh, "/?ms=50", 20)
    burst = time.monotonic() - began
    wakes = await events_of_kind(mesh, "scale.wake")
    print(f"first request {first:.2f} s, burst of 20 {burst:.2f} s: {[w['text'] for w in wakes]}")
    assert {status for status, _ in answers} == {200}
    # On a busy machine the first replicas answer before all have come, and fewer start at once.
    assert max(wake["numbers"]["parked"] for wake in wakes) >= 5
    woken = await mesh.service("web")
    assert woken["wanted"] >= 2
    assert await metric(mesh, "meshd_cold_start_seconds_count") == 2
    assert await metric(mesh, "meshd_cold_start_seconds_sum") > 0


async def test_an_override_to_zero_is_not_scaled_up(mesh: TestMesh) -> None:
    policy = "{routes: [/], scale: {min: 0, max: 2}, parking: {timeout: 1s}}"
    await up(mesh, web=policy)
    done = await mesh.run("scale", "web", "0")
    assert done.code == 0, done.err
    await mesh.until("web", lambda s: not s["replicas"], 20)
    ((status, _),) = await get_all(mesh, "/", 1)
    assert status == 503
    assert (await mesh.service("web"))["replicas"] == []


async def test_a_monitor_on_a_background_route_does_not_keep_a_service_awake(
    mesh: TestMesh,
) -> None:
    routes = "[/, {path: /healthz, background: true}]"
    await up(mesh, web=f"{{routes: {routes}, scale: {{min: 0, max: 2, idle: 3s}}}}")
    ((status, _),) = await get_all(mesh, "/", 1)
    assert status == 200
    statuses: set[int] = set()

    async def monitor_until_zero() -> None:
        while (await mesh.service("web"))["replicas"]:
            ((status, _),) = await get_all(mesh, "/healthz", 1)
            statuses.add(status)
            await elapse(0.3, "the interval of the monitor")

    await asyncio.wait_for(monitor_until_zero(), 30)
    assert 200 in statuses
    ((status, body),) = await get_all(mesh, "/healthz", 1)
    assert status == 503
    assert "background route" in body
    assert len(await events_of_kind(mesh, "scale.wake")) == 1
    ((status, _),) = await get_all(mesh, "/", 1)
    assert status == 200
    assert len(await events_of_kind(mesh, "scale.wake")) == 2
