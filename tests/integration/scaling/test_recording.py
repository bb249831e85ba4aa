"""Real traffic is recorded, and the record survives a killed control process."""

import time

import pytest

from tests.support.load import Load
from tests.support.scaled import scaled_mesh, up
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow


async def test_arrivals_and_service_time_are_recorded() -> None:
    async with scaled_mesh() as mesh:
        await up(mesh, web="{routes: [/], scale: {min: 1, max: 3, p95: 300ms}}")
        began = time.time()
        async with Load(mesh.address, 40, 26, path="/?ms=50") as load:
            await load.finished()
        where = f"/v1/projects/scaled/services/web/traffic?since={int(began) - 20}"

        async def all_recorded() -> bool:
            spans = (await mesh.api(where))["spans"]
            return sum(span["arrivals"] for span in spans) >= load.result.served - 5

        await wait_until(all_recorded, 15, "all arrivals are recorded", interval=0.5)
        mesh.kill(mesh.child("meshd.daemon"))
        await mesh.until("web", lambda s: s["ready"] >= 1, 30)
        recorded = await mesh.api(where)
        spans = recorded["spans"]
        print([(span["arrivals"], round(span["service_time"], 3)) for span in spans])
        assert abs(sum(span["arrivals"] for span in spans) - load.result.served) <= 5
        assert 0.03 < max(span["service_time"] for span in spans) < 0.5
        assert recorded["scale"]["objective"]["latency"] == 0.3
        refused = await mesh.run("simulate", "--service", "web", "--last", "1h")
        assert refused.code == 2
        assert (
            "s of traffic of scaled/web are recorded in that time; expected at least 180 s"
            in refused.err
        )
