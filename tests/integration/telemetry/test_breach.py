"""A running mesh whose service misses its latency objective saves what its workers remember."""

import asyncio
import json
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from meshd.telemetry.objectives import MIN_REQUESTS
from tests.support.mesh import TestMesh, service_text
from tests.support.waiting import wait_until

SLOW_MS = 60
POLICY = "{routes: [/], scale: {min: 1, max: 1, p95: 20ms}}"
TRACE = "0af7651916cd43dd8448eb211c80319c"


@pytest.fixture
async def mesh(tmp_path: Path) -> AsyncIterator[TestMesh]:
    made = TestMesh(tmp_path, "process")
    try:
        web = service_text("web", "process", "none", policy=POLICY)
        text = f"name: shop\nservices:\n{web.replace('python3', sys.executable)}"
        done = await made.up(text.replace("    deploy: {replicas: 2}\n", ""))
        assert done.code == 0, done.err
        yield made
    finally:
        await made.end()


async def test_a_breach_saves_a_record_by_itself(mesh: TestMesh) -> None:
    assert json.loads((await mesh.run("record", "list", "-o", "json")).out) == []
    headers = {"traceparent": f"00-{TRACE}-b7ad6b7169203331-00"}
    async with aiohttp.ClientSession(headers=headers) as session:

        async def ask() -> None:
            async with session.get(f"http://{mesh.address}/?ms={SLOW_MS}") as answer:
                assert answer.status == 200

        await asyncio.gather(*[ask() for _ in range(2 * MIN_REQUESTS)])

    async def saved() -> bool:
        return any(each["workers"] for each in await mesh.api("/v1/records"))

    await wait_until(saved, 10, "a record of the workers", interval=0.1)
    (record,) = json.loads((await mesh.run("record", "list", "-o", "json")).out)
    assert record["service"] == "shop/web"
    assert re.match(r"objective missed: 0\.0 % of \d+ requests within 20 ms", record["reason"])
    flights = await mesh.api(f"/v1/records/{record['id']}")
    requests = [flight["request"] for flight in flights]
    assert {request["target"] for request in requests} == {f"/?ms={SLOW_MS}"}
    assert all(request["first_byte"] >= SLOW_MS / 1000 for request in requests)
    assert {request["trace_id"] for request in requests} == {TRACE}
    assert {flight["choice"] for flight in flights} == {"only"}
    events = [each for each in await mesh.events() if each["kind"] == "record.saved"]
    assert [record["id"] in each["text"] for each in events] == [True]
    shown = await mesh.run("record", "show", record["id"], "--slower-than", "50ms")
    assert "only endpoint" in shown.out
