"""Scale-down removes the replica with the least load, and waits for streams."""

import asyncio
import time
from typing import Any
from urllib.parse import urlencode

import aiohttp
import pytest

from tests.support.scaled import events_of_kind, get_all, scaled_mesh, up
from tests.support.waiting import stays

pytestmark = pytest.mark.slow


def names(status: dict[str, Any]) -> set[str]:
    return {replica["name"] for replica in status["replicas"]}


async def test_scale_down_removes_idle_replicas_and_waits_for_streams() -> None:
    async with scaled_mesh() as mesh:
        scale = "{min: 1, max: 4, concurrency: 2, down_window: 5s}"
        await up(mesh, web=f"{{routes: [/], scale: {scale}, drain: 300s}}")
        await mesh.run("scale", "web", "4")
        await mesh.until("web", lambda s: s["ready"] == 4, 30)
        timeout = aiohttp.ClientTimeout(total=240)
        end = mesh.folder / "end"
        async with aiohttp.ClientSession(timeout=timeout) as session:
            until = urlencode({"seconds": 200, "until": str(end)})

            async def stream() -> bytes:
                async with session.get(f"http://{mesh.address}/stream?{until}") as answer:
                    return await answer.read()

            streams = [asyncio.create_task(stream()) for _ in range(2)]
            await mesh.until("web", lambda s: sum(r["in_flight"] for r in s["replicas"]) >= 2, 10)
            status = await mesh.service("web")
            # Both streams may be on one replica.
            busy = {r["name"] for r in status["replicas"] if r["in_flight"]}
            assert 1 <= len(busy) <= 2, status["replicas"]
            began = time.monotonic()
            await mesh.run("scale", "web", "2")
            await mesh.until("web", lambda s: len(s["replicas"]) == 2, 20)
            idle_gone = time.monotonic() - began
            assert busy <= names(await mesh.service("web"))
            await mesh.run("scale", "web", "1")

            await mesh.until("web", lambda s: names(s) == busy, 20)

            async def streaming() -> bool:
                return names(await mesh.service("web")) == busy

            await stays(streaming, 1.0, "the replicas with a stream")
            end.touch()
            bodies = await asyncio.gather(*streams)
        print(f"idle ones gone after {idle_gone:.1f} s, streams whole")
        assert all(body.endswith(b"data: end") for body in bodies)
        await mesh.until("web", lambda s: len(s["replicas"]) == 1, 20)


async def test_steady_load_does_not_flap() -> None:
    async with scaled_mesh() as mesh:
        scale = "{min: 1, max: 4, concurrency: 2, down_window: 10s}"
        await up(mesh, web=f"{{routes: [/], scale: {scale}}}")
        end = time.monotonic() + 25
        while time.monotonic() < end:
            answers = await get_all(mesh, "/?ms=200", 4)
            assert {status for status, _ in answers} == {200}
        changes = [
            *(await events_of_kind(mesh, "scale.up")),
            *(await events_of_kind(mesh, "scale.down")),
        ]
        print([change["text"].split(":")[0] for change in changes])
        assert len(changes) <= 3
