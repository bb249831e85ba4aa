"""Second revisions that are bad in five ways, brought in under load, all at once as services of
one mesh; on either runtime. Each has to go back by itself."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any, Final

from tests.support.load import Load, Tally
from tests.support.mesh import ORIGIN, TestMesh

RATES: Final = {"errors": 100, "slow": 100, "never": 20, "crash": 20, "gone": 20}
FAULTS: Final = {"never": "never-healthy", "gone": ""}
SECONDS: Final = 70.0
PATIENCE: Final = 90.0
HELD: Final = "held"
"""The folder beside the Compose file in which `go` lets the service `gate` get healthy."""

_GATE: Final = """\
  gate:
    image: {image}
    command: [sh, -c, 'until [ -e /held/go ]; do sleep 0.1; done; exec python3 /origin.py']
    volumes: ['{origin}:/origin.py:ro', './held:/held:ro']
    x-mesh: {{health: {{start_timeout: 120s}}}}
"""


def compose(mesh: TestMesh, image: str, faulty: bool) -> str:
    """Two replicas each; the second version of each service has its own fault. What `gone` is made
    of is gone when it is to start: as a local process, a program; on Docker, its image, which it
    had when it was deployed. There it waits for a service that the test holds up."""
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
    """The image that is there when it is deployed, and no more when it is to run."""
    return f"{mesh.environment['PROJECT']}-gone:2"


async def make_lost_image(mesh: TestMesh, image: str) -> str:
    """An image of its own; gives its id."""
    container = await docker("create", image, "true")
    made = await docker("commit", "--change", "ENV NEW=1", container, lost_image(mesh))
    await docker("rm", container)
    return made


async def docker(*arguments: str) -> str:
    """One command of the Docker client; gives what it said."""
    process = await asyncio.create_subprocess_exec(
        "docker", *arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    return out.decode().strip()


async def newest(mesh: TestMesh, service: str) -> dict[str, Any]:
    """The newest release of a service."""
    project = mesh.environment["PROJECT"]
    of = f"/v1/projects/{project}/services/{service}/releases?limit=1"
    (release,) = await mesh.api(of)
    return dict(release)


async def bring_in(
    mesh: TestMesh, image: str, accepted: Callable[[], Awaitable[None]]
) -> tuple[dict[str, Tally], str]:
    """The good first revisions, then, under load, the bad ones, with the control process killed on
    the way; `accepted` is awaited once the deployment was. Gives what the clients saw of each
    service, and what `meshd deploy` said in the end."""
    up = await mesh.up(compose(mesh, image, faulty=False))
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
        path.write_text(compose(mesh, image, faulty=True))
        deploying = asyncio.create_task(
            mesh.run("deploy", "-f", str(path), "-o", "json", timeout=PATIENCE)
        )
        while (await newest(mesh, "errors"))["number"] == 1:
            assert not deploying.done(), deploying.result()
            await asyncio.sleep(0.1)
        await accepted()
        await mesh.until("errors", lambda status: status["ready"] == 3, 30)
        mesh.kill(mesh.child("meshd.daemon"))
        deploy = await deploying
        for load in loads.values():
            await load.finished()
    assert deploy.code == 1, deploy.out + deploy.err
    told = json.loads(deploy.out)["detail"]
    return {name: load.tally for name, load in loads.items()}, told


async def judge(mesh: TestMesh, seen: dict[str, Tally], reasons: dict[str, str]) -> None:
    """Each went back for its own reason, and cost next to nothing."""
    for service, reason in reasons.items():
        release = await newest(mesh, service)
        tally = seen[service]
        asked = tally.served + len(tally.failures)
        served, failed = _of_new(release)
        print(
            f"{mesh.runtime} {service}: {release['outcome']} after "
            f"{release['ended'] - release['at']:.0f} s, {release['cause']}; of {asked} requests "
            f"it served {served} and failed {failed}; {len(tally.failures)} failed for clients"
        )
        assert release["outcome"] == "rolled-back", release
        assert reason in release["cause"], release
        status = await mesh.service(service)
        assert {r["revision"] for r in status["replicas"]} == {release["previous"]}
        assert status["ready"] == 2
        if service == "slow":  # all that it served at all
            assert served + failed < 0.005 * asked
        if service == "errors":
            assert len(tally.failures) < 0.005 * asked
        else:
            assert tally.failures == []


def _of_new(release: dict[str, Any]) -> tuple[int, int]:
    """What was served well and badly by the new revision, as the report of the release has it; one
    that was over within its first second has none."""
    served = release["tally"]["revisions"] if release["tally"] else {}
    counts = served.get(release["revision"], {"served": 0, "failed": 0})
    return counts["served"], counts["failed"]
