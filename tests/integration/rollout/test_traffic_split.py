"""Revisions that share the traffic, as clients of the real proxy see it: a canary by header, its
weight steps, and a blue-green switch. No request of the load may fail."""

import asyncio
import sys
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import aiohttp
import pytest

from tests.support.load import Load
from tests.support.mesh import ORIGIN, TestMesh
from tests.support.scaled import events_of_kind, scaled_mesh
from tests.support.waiting import BUSY, wait_until

PATIENCE = 60.0
HEADER = "X-Canary: yes\r\n"
# A busy machine is not to decide what comes of these: what is slow hardly counts.
RULES = {
    "steps": "{strategy: canary, steps: [20%, 50%], interval: 3s, "
    "match: ['header:X-Canary=yes'], gate: {requests: 40, wait: 4s, slower: 20}}",
    "switch": "{strategy: blue-green, keep: 2s, gate: {slower: 20}}",
}


@pytest.fixture
async def mesh() -> AsyncIterator[TestMesh]:
    async with scaled_mesh(PROJECT=f"v-{uuid.uuid4().hex[:6]}") as made:
        yield made


def compose(mesh: TestMesh, version: str) -> str:
    lines = [f"name: {mesh.environment['PROJECT']}", "services:"]
    for name, rules in RULES.items():
        lines += [
            f"  {name}:",
            "    image: none",
            f"    command: [{sys.executable}, {ORIGIN}]",
            f"    environment: {{VERSION: '{version}'}}",
            "    deploy: {replicas: 2, update_config: {monitor: 1s}}",
            f"    x-mesh: {{routes: ['/{name}'], rollout: {rules}}}",
        ]
    return "\n".join(lines)


async def order(mesh: TestMesh, what: str) -> None:
    """`pause` or `resume` the rollout."""
    connector = aiohttp.UnixConnector(path=str(mesh.state / "admin.sock"))
    of = f"/v1/projects/{mesh.environment['PROJECT']}/services/steps/{what}"
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.post(f"http://meshd{of}", headers={"X-Meshd-User": "test"}) as answer,
    ):
        assert answer.status == 204, await answer.text()


async def stage(mesh: TestMesh) -> int:
    """Return how many stages of the canary are completed."""
    shifted = await events_of_kind(mesh, "rollout.shifted")
    return sum(event["service"] == "steps" for event in shifted)


async def versions(load: Load, count: int) -> Counter[str]:
    """Count the versions of the next `count` answers to a running load."""
    first = len(load.result.versions)

    def enough() -> bool:
        assert load.result.failures == []
        return len(load.result.versions) >= first + count

    await wait_until(enough, PATIENCE / BUSY, f"{count} more answers")
    return Counter(load.result.versions[first : first + count])


async def seen(load: Load, version: str) -> None:
    """Wait for the first answer of a version."""
    await wait_until(
        lambda: version in load.result.versions, PATIENCE / BUSY, f"an answer of version {version}"
    )


@pytest.mark.slow
@pytest.mark.timeout(240)
async def test_clients_get_the_revision_by_header_and_weight(mesh: TestMesh) -> None:
    up = await mesh.up(compose(mesh, "1"))
    assert up.code == 0, up.out + up.err
    async with AsyncExitStack() as stack:
        loads = {
            name: await stack.enter_async_context(
                Load(mesh.address, rate, 3 * PATIENCE, path, clients=8, headers=headers)
            )
            for name, rate, path, headers in (
                ("everybody", 120, "/steps", ""),
                ("chosen", 20, "/steps", HEADER),
                ("switch", 60, "/switch", ""),
            )
        }
        assert await versions(loads["chosen"], 10) == {"1": 10}
        path = mesh.folder / "compose.yml"
        path.write_text(compose(mesh, "2"))
        deploying = asyncio.create_task(mesh.run("deploy", "-f", str(path), timeout=3 * PATIENCE))
        # Only those whom the header names, and all of these.
        await seen(loads["chosen"], "2")
        await order(mesh, "pause")
        assert await stage(mesh) == 0
        assert await versions(loads["everybody"], 100) == {"1": 100}
        assert "2" not in loads["everybody"].result.versions
        chosen_from = loads["chosen"].result.versions.index("2")
        shares = []
        for number in (1, 2):
            await order(mesh, "resume")

            async def shifted(number: int = number) -> bool:
                assert not deploying.done(), deploying.result()
                return await stage(mesh) >= number

            await wait_until(shifted, PATIENCE / BUSY, f"stage {number}", interval=0.02)
            await order(mesh, "pause")
            await seen(loads["everybody"], "2")
            shares.append((await versions(loads["everybody"], 400))["2"] / 400)
            assert await stage(mesh) == number
        await order(mesh, "resume")
        deploy = await deploying
        assert deploy.code == 0, deploy.out + deploy.err
        after = [await versions(load, 20) for load in loads.values()]
    print(f"shares {shares}, {[load.result.served for load in loads.values()]} served")
    assert 0.1 < shares[0] < 0.3
    assert 0.38 < shares[1] < 0.62
    assert after == [{"2": 20}] * 3
    assert set(loads["chosen"].result.versions[chosen_from + 40 :]) == {"2"}
    switch = loads["switch"].result.versions
    first, last = switch.index("2"), len(switch) - 1 - switch[::-1].index("1")
    print(f"switched over {last - first} answers")
    assert last - first < 120
    for name in RULES:
        await mesh.until(
            name, lambda s: [r["revision"] for r in s["replicas"]] == [s["revision"]] * 2, 20
        )
    for load in loads.values():
        assert load.result.failures == []
