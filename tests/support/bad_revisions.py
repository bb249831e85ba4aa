"""Revisions with five kinds of fault, deployed at once under load as services of one mesh. Each has
to be rolled back by itself, on either runtime."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any, Final

from tests.support.load import Load, LoadResult
from tests.support.mesh import ORIGIN, TestMesh
from tests.support.waiting import BUSY, elapse, wait_until

RATES: Final = {"errors": 100, "slow": 100, "never": 20, "crash": 20, "gone": 20}
FAULTS: Final = {"never": "never-healthy", "gone": ""}
SECONDS: Final = 300.0
"""Seconds that the load lasts at most; it ends soon after the deployment."""
PATIENCE: Final = 180.0
"""Seconds for the deployment."""
HELD: Final = "held"
"""A folder next to the Compose file. The service `gate` gets healthy once it has a file `go`."""

_GATE: Final = """\
  gate:
    image: {image}
    command: [sh, -c, 'until [ -e /held/go ]; do sleep 0.1; done; exec python3 /origin.py']
    volumes: ['{origin}:/origin.py:ro', './held:/held:ro']
    x-mesh: {{health: {{start_timeout: 120s}}}}
"""


def compose(mesh: TestMesh, image: str, faulty: bool) -> str:
    """Return the Compose file: a service for each fault, with two replicas each. The second version
    of a service has its fault. `gone` loses its program (local) or its image (Docker) after the
    deployment was accepted; on Docker it waits for a service that the test holds back."""
    docker = mesh.runtime == "docker"
    lines = [f"name: {mesh.environment['PROJECT']}", "services:"]
    for name in RATES:
        lost = name == "gone" and faulty
        program = "python3" if docker else "/no/such/program" if lost else sys.executable
        fault = FAULTS.get(name, name) if faulty else ""
        lines += [
            f"  {name}:",
            f"    image: {lost_image(mesh) if lost and docker else image}",
            f"    command: [{program}, {'/origin.py' if docker else ORIGIN}]",
            f"    environment: {{VERSION: '{1 + faulty}', FAULT: '{fault}'}}",
            "    deploy: {replicas: 2}",
            f"    x-mesh: {{routes: ['/{name}'], health: {{start_timeout: 8s}}}}",
        ]
        if docker:
            lines.append(f"    volumes: ['{ORIGIN}:/origin.py:ro']")
        if docker and lost:
            lines.append("    depends_on: {gate: {condition: service_healthy}}")
    gate = _GATE.format(image=image, origin=ORIGIN) if docker and faulty else ""
    return "\n".join(lines) + "\n" + gate


def lost_image(mesh: TestMesh) -> str:
    """Return the name of the image that is removed between the deployment and the start."""
    return f"{mesh.environment['PROJECT']}-gone:2"


async def make_lost_image(mesh: TestMesh, image: str) -> str:
    """Create the image that will be removed; return its id."""
    container = await docker("create", image, "true")
    made = await docker("commit", "--change", "ENV NEW=1", container, lost_image(mesh))
    await docker("rm", container)
    return made


async def docker(*arguments: str) -> str:
    """Run the Docker client; return its output."""
    process = await asyncio.create_subprocess_exec(
        "docker", *arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    return out.decode().strip()


async def newest_release(mesh: TestMesh, service: str) -> dict[str, Any]:
    """Return the newest release of a service."""
    project = mesh.environment["PROJECT"]
    of = f"/v1/projects/{project}/services/{service}/releases?limit=1"
    (release,) = await mesh.api(of)
    return dict(release)


async def deploy_bad_revisions(
    mesh: TestMesh, image: str, accepted: Callable[[], Awaitable[None]]
) -> tuple[dict[str, LoadResult], str]:
    """Deploy the good first revisions, then the bad ones under load, and kill the control process
    during the rollout. `accepted` is awaited once the deployment was accepted. Return what the
    clients saw of each service, and the detail that `meshd deploy` ended with."""
    up = await mesh.up(compose(mesh, image, faulty=False))
    assert up.code == 0, up.out + up.err
    async with AsyncExitStack() as stack:
        loads = {
            name: await stack.enter_async_context(
                Load(mesh.address, rate, SECONDS, path=f"/{name}?ms=15", clients=8)
            )
            for name, rate in RATES.items()
        }
        await elapse(4, "load on the good revisions")
        path = mesh.folder / "compose.yml"
        path.write_text(compose(mesh, image, faulty=True))
        deploying = asyncio.create_task(
            mesh.run("deploy", "-f", str(path), "-o", "json", timeout=PATIENCE)
        )

        async def is_accepted() -> bool:
            assert not deploying.done(), deploying.result()
            return (await newest_release(mesh, "errors"))["number"] > 1

        await wait_until(is_accepted, PATIENCE / BUSY, "the deployment is accepted", interval=0.1)
        await accepted()
        await mesh.until("errors", lambda status: status["ready"] == 3, 30)
        mesh.kill(mesh.child("meshd.daemon"))
        deploy = await deploying
        await elapse(5, "load on the restored revisions")
    assert deploy.code == 1, deploy.out + deploy.err
    detail = json.loads(deploy.out)["detail"]
    return {name: load.result for name, load in loads.items()}, detail


async def check_rollbacks(
    mesh: TestMesh, seen: dict[str, LoadResult], reasons: dict[str, str]
) -> None:
    """Assert that each service was rolled back for its own reason, with hardly a failed request."""
    for service, reason in reasons.items():
        release = await newest_release(mesh, service)
        result = seen[service]
        asked = result.served + len(result.failures)
        assert asked > 0
        served, failed = _of_new(release)
        print(
            f"{mesh.runtime} {service}: {release['outcome']} after "
            f"{release['ended'] - release['at']:.0f} s, {release['cause']}; of {asked} requests "
            f"it served {served} and failed {failed}; {len(result.failures)} failed for clients"
        )
        assert release["outcome"] == "rolled-back", release
        assert reason in release["cause"], release
        status = await mesh.service(service)
        assert {r["revision"] for r in status["replicas"]} == {release["previous"]}
        assert status["ready"] == 2
        if service == "slow":  # 20 to 30 here; a busy machine needs more to see a difference
            assert served + failed < 1.75 * RATES[service]
        if service == "errors":
            assert len(result.failures) < 0.35 * RATES[service]
        else:
            assert result.failures == []


def _of_new(release: dict[str, Any]) -> tuple[int, int]:
    """Return how many requests the new revision served and failed, from the release's report. A
    rollout that ended within its first second has no report."""
    served = release["tally"]["revisions"] if release["tally"] else {}
    counts = served.get(release["revision"], {"served": 0, "failed": 0})
    return counts["served"], counts["failed"]
