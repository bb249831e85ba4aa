"""A slow dependency does not scale out its callers, with the demo application."""

import asyncio
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.support.mesh import TestMesh
from tests.support.paths import ROOT
from tests.support.scaled import scaled_mesh
from tests.support.waiting import elapse

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

RATE = 10.0
SLOW = 20.0


def food(data: Path) -> str:
    """Return the four services of an order, with the demo's own objectives."""
    text = "name: food\nservices:\n"
    for name, policy in {
        "auth": "routes: [/auth], scale: {min: 1, max: 4, p95: 100ms}",
        "restaurants": "scale: {min: 1, max: 4, p95: 150ms}",
        "orders": "routes: [/orders], scale: {min: 1, max: 6, p95: 400ms}",
        "payments": "scale: {min: 1, max: 6, p95: 150ms}",
    }.items():
        environment = json.dumps(
            {"DEMO_FAULTS": "1", "DATA_DIR": str(data), "PYTHONPATH": str(ROOT)}
        )
        text += (
            f"  {name}:\n"
            f"    command: [{sys.executable}, -m, demo_services.{name}]\n"
            f"    environment: {environment}\n"
            f"    x-mesh: {{{policy}}}\n"
        )
    return text


async def token(mesh: TestMesh) -> str:
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"http://{mesh.address}/auth/login", json={"user": "ann"}) as answer,
    ):
        return str((await answer.json())["token"])


async def orders(mesh: TestMesh, seconds: float) -> list[tuple[int, float]]:
    """Send `RATE` orders a second without waiting for earlier ones; return status and seconds of
    each."""
    bearer = {"Authorization": f"Bearer {await token(mesh)}"}
    body = {"restaurant": 1, "dishes": []}
    timeout = aiohttp.ClientTimeout(total=30)
    async with aiohttp.ClientSession(timeout=timeout, headers=bearer) as session:
        for replica in (await mesh.service("restaurants"))["replicas"]:
            async with session.get(f"http://{replica['address']}/restaurants/1/menu") as menu:
                body["dishes"] = [(await menu.json())["menu"][0]["id"]]

        async def one() -> tuple[int, float]:
            began = time.monotonic()
            async with session.post(f"http://{mesh.address}/orders", json=body) as answer:
                await answer.read()
                return answer.status, time.monotonic() - began

        tasks = []
        began = time.monotonic()
        for number in range(int(seconds * RATE)):
            await elapse(max(0.0, began + number / RATE - time.monotonic()), "RATE orders a second")
            tasks.append(asyncio.create_task(one()))
        return list(await asyncio.gather(*tasks))


async def slow_payments(mesh: TestMesh, most: dict[str, int]) -> None:
    """Keep every replica of payments slow, and note the largest desired numbers."""
    timeout = aiohttp.ClientTimeout(total=5)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        while True:
            for replica in (await mesh.service("payments"))["replicas"]:
                if replica["phase"] == "ready":
                    order = {"mode": "slow", "value": SLOW}
                    url = f"http://{replica['address']}/_fault"
                    async with session.post(url, json=order) as answer:
                        answer.raise_for_status()
            for name in ("orders", "payments"):
                most[name] = max(most.get(name, 0), (await mesh.service(name))["wanted"])
            await elapse(0.5, "between two rounds over the replicas")


async def decision(mesh: TestMesh, name: str, after: float) -> dict[str, Any]:
    await elapse(after, "the orders run meanwhile")
    decided = json.loads((await mesh.run("explain", name, "-o", "json")).out)["decision"]
    assert isinstance(decided, dict)
    return decided


async def test_a_slow_dependency_does_not_scale_out_its_caller(tmp_path: Path) -> None:
    data = tmp_path / "data"
    os.makedirs(data)
    async with scaled_mesh() as mesh:
        done = await mesh.up(food(data))
        assert done.code == 0, done.out + done.err
        calm = await orders(mesh, 20)
        before = (await mesh.service("orders"))["wanted"]
        most: dict[str, int] = {}
        slowing = asyncio.create_task(slow_payments(mesh, most))
        slow, decided = await asyncio.gather(orders(mesh, 30), decision(mesh, "orders", 25))
        slowing.cancel()
        await asyncio.gather(slowing, return_exceptions=True)
        means = [sum(took for _, took in each) / len(each) for each in (calm, slow)]
        print(f"orders took {means[0]:.2f} s, then {means[1]:.2f} s; orders {before} → "
              f"{most['orders']} wanted, payments up to {most['payments']}: {decided['cause']}, "
              f"{decided['reason']}")  # fmt: skip
        assert {status for status, _ in (*calm, *slow)} == {201}
        assert means[1] > 4 * means[0]
        assert most["orders"] <= before
        assert decided["signals"]["own_calls_in_flight"] > 1.0
