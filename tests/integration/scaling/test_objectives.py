"""Objectives from other sources than the traffic: a query, a schedule, the CPU."""

import json

import pytest
from aiohttp import web

from tests.support.scaled import scaled_mesh, up

pytestmark = pytest.mark.slow


async def test_the_largest_of_a_query_and_a_schedule_wins() -> None:
    asked: list[str] = []
    level = {"value": 30.0}

    async def answer(request: web.Request) -> web.Response:
        asked.append(request.query["query"])
        result = [{"metric": {}, "value": [0, str(level["value"])]}]
        return web.json_response(
            {"status": "success", "data": {"resultType": "vector", "result": result}}
        )

    app = web.Application()
    app.router.add_get("/api/v1/query", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    try:
        async with scaled_mesh() as mesh:
            query = f"{{url: 'http://127.0.0.1:{port}', query: sum(jobs), per_replica: 10}}"
            always = "[{cron: '* * * * *', duration: 1h, min: 2, timezone: Europe/Berlin}]"
            scale = f"{{min: 1, max: 6, cpu: 80, prometheus: {query}, schedule: {always}}}"
            await up(mesh, web=f"{{routes: [/], scale: {scale}}}")
            await mesh.until("web", lambda s: s["wanted"] == 3 and s["ready"] == 3, 30)
            level["value"] = 55.0
            took, _ = await mesh.until("web", lambda s: s["wanted"] == 6, 30)
            print(f"{took:.1f} s after the queue grew: {len(asked)} queries")
            assert set(asked) == {"sum(jobs)"}
            decision = json.loads((await mesh.run("explain", "web", "-o", "json")).out)["decision"]
            assert decision["candidates"]["external"] == 6
            assert decision["candidates"]["schedule"] == 2
            assert (
                "2 for schedule: external needs 6, and the largest need wins"
                in decision["rejected"]
            )
            assert decision["signals"]["external"] == 55.0
            await runner.cleanup()
            await mesh.until("web", lambda s: s["wanted"] == 6, 5)
    finally:
        await runner.cleanup()
