"""Bad revisions under load, on local processes and the real proxy: each goes back by itself, for
what its own traffic, probes and ends show. All at once, as services of one mesh; and the control
process is killed on the way."""

import asyncio
import json
import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from tests.support.load import Load
from tests.support.mesh import ORIGIN, TestMesh
from tests.support.scaled import scaled_mesh

RATES = {"errors": 100, "slow": 100, "never": 20, "crash": 20, "gone": 20}
FAULTS = {"never": "never-healthy"}
SECONDS = 70.0


@pytest.fixture
async def mesh() -> AsyncIterator[TestMesh]:
    async with scaled_mesh(PROJECT=f"p-{uuid.uuid4().hex[:6]}") as made:
        yield made


def compose(version: str, faulty: bool) -> str:
    """Two replicas each; the second version of each service has its own fault. `gone` names a
    program that is not there."""
    lines = ["services:"]
    for name in RATES:
        fault = FAULTS.get(name, name) if faulty else ""
        missing = name == "gone" and faulty
        lines += [
            f"  {name}:",
            "    image: none",
            f"    command: [{'/no/such/program' if missing else sys.executable}, {ORIGIN}]",
            f"    environment: {{VERSION: '{version}', FAULT: '{'' if missing else fault}'}}",
            "    deploy: {replicas: 2}",
            f"    x-mesh: {{routes: ['/{name}'], health: {{start_timeout: 8s}}}}",
        ]
    return "\n".join(lines)


async def newest(mesh: TestMesh, service: str) -> dict[str, Any]:
    """The newest release of a service."""
    project = mesh.environment["PROJECT"]
    of = f"/v1/projects/{project}/services/{service}/releases?limit=1"
    (release,) = await mesh.api(of)
    return dict(release)


def bad_share(release: dict[str, Any], revision: str) -> tuple[int, int]:
    """What was served well and badly by one revision, as the report of the release has it; a
    release that was over within its first second has none."""
    served = release["tally"]["revisions"] if release["tally"] else {}
    counts = served.get(revision, {"served": 0, "failed": 0})
    return counts["served"], counts["failed"]


@pytest.mark.slow
async def test_every_bad_revision_goes_back_by_itself(mesh: TestMesh) -> None:
    up = await mesh.up(f"name: {mesh.environment['PROJECT']}\n{compose('1', faulty=False)}")
    assert up.code == 0, up.out + up.err
    async with AsyncExitStack() as stack:
        loads = {
            name: await stack.enter_async_context(
                Load(mesh.address, rate, SECONDS, path=f"/{name}?ms=15", clients=8)
            )
            for name, rate in RATES.items()
        }
        await asyncio.sleep(4)
        path = mesh.folder / "compose.yml"
        name = mesh.environment["PROJECT"]
        path.write_text(f"name: {name}\n{compose('2', faulty=True)}")
        deploying = asyncio.create_task(
            mesh.run("deploy", "-f", str(path), "-o", "json", timeout=SECONDS)
        )
        while (await newest(mesh, "errors"))["number"] == 1:
            assert not deploying.done(), deploying.result()
            await asyncio.sleep(0.1)
        await mesh.until("errors", lambda status: status["ready"] == 3, 30)
        mesh.kill(mesh.child("meshd.daemon"))
        deploy = await deploying
        for load in loads.values():
            await load.finished()
    assert deploy.code == 1, deploy.out + deploy.err
    releases = {service: await newest(mesh, service) for service in RATES}
    reasons = {
        "errors": "of its requests failed",
        "slow": "of its requests took over",
        "never": "not healthy within 8 s",
        "crash": "was killed (SIGKILL)",
        "gone": "/no/such/program",
    }
    for service, release in releases.items():
        tally = loads[service].tally
        asked = tally.served + len(tally.failures)
        served, failed = bad_share(release, release["revision"])
        print(
            f"{service}: {release['outcome']} after {release['ended'] - release['at']:.0f} s, "
            f"{release['cause']}; of {asked} requests it served {served} and failed {failed}"
        )
        assert release["outcome"] == "rolled-back", release
        assert reasons[service] in release["cause"], release
        status = await mesh.service(service)
        assert {r["revision"] for r in status["replicas"]} == {release["previous"]}
        assert status["ready"] == 2
    assert "errors was rolled back" in json.loads(deploy.out)["detail"]
    # Requests that a client saw fail, and those that the slow one served at all.
    asked = {s: loads[s].tally.served + len(loads[s].tally.failures) for s in RATES}
    assert len(loads["errors"].tally.failures) < 0.005 * asked["errors"]
    assert sum(bad_share(releases["slow"], releases["slow"]["revision"])) < 0.005 * asked["slow"]
    for service in ("slow", "never", "crash", "gone"):
        assert loads[service].tally.failures == []
