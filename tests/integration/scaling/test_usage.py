"""CPU and memory of replicas, as a user sees them."""

import json

import pytest

from tests.support.scaled import metric, scaled_mesh, up

pytestmark = pytest.mark.slow


async def test_ps_and_metrics_show_cpu_and_memory_of_every_replica() -> None:
    async with scaled_mesh() as mesh:
        await up(mesh, web="{routes: [/], scale: {min: 2, max: 2}}")

        def measured(status: dict[str, object]) -> bool:
            replicas = status["replicas"]
            assert isinstance(replicas, list)
            return all(r["cpu"] is not None and r["memory"] for r in replicas)

        took, _ = await mesh.until("web", measured, 30)
        print(f"known {took:.1f} s after the deployment")
        shown = await mesh.run("ps", "-r", "-o", "json")
        assert shown.code == 0, shown.err
        for replica in json.loads(shown.out):
            assert 0.0 <= replica["cpu"] < 100.0
            assert replica["memory"] > 1 << 20
        table = (await mesh.run("ps", "-r")).out
        assert "%" in table
        assert await metric(mesh, "meshd_memory_bytes") > 2 << 20
