"""Two meshes on one engine: a project belongs to one of them."""

import asyncio
import json
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.support.inside_replica import Inside
from tests.support.mesh import TestMesh, service_text

pytestmark = [pytest.mark.engine, pytest.mark.slow]


@asynccontextmanager
async def mesh_of(project: str) -> AsyncIterator[TestMesh]:
    folder = Path(tempfile.mkdtemp(prefix="mt-"))
    mesh = TestMesh(folder, "docker", environment={"PROJECT": project})
    try:
        yield mesh
    finally:
        await mesh.end()
        shutil.rmtree(folder, ignore_errors=True)


def spec(project: str, image: str) -> str:
    return f"name: {project}\nservices:\n" + service_text(
        "web", "docker", image, deploy="{replicas: 1}", policy=f"{{routes: [/{project}]}}"
    )


def containers(project: str) -> list[str]:
    command = ["docker", "ps", "-q", "--no-trunc", "--filter", f"label=mesh.project={project}"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


def volume(project: str) -> bool:
    name = f"meshd.claim.{project}"
    command = ["docker", "volume", "inspect", name]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


async def test_a_project_has_one_holder(engine_image: str) -> None:
    shop, bank = (f"{name}-{uuid.uuid4().hex[:6]}" for name in ("shop", "bank"))
    async with mesh_of(shop) as first, mesh_of(bank) as second:
        ups = await asyncio.gather(
            first.up(spec(shop, engine_image)), second.up(spec(bank, engine_image))
        )
        assert [up.code for up in ups] == [0, 0], ups
        running = containers(shop)

        refused = await second.up(spec(shop, engine_image))
        assert refused.code != 0
        assert f"held by the mesh with its state in {first.state}" in refused.err
        assert "which runs" in refused.err

        await first.kill_all()
        shutil.rmtree(first.state)
        refused = await second.up(spec(shop, engine_image))
        assert refused.code != 0
        assert "--take-over" in refused.err
        taken = await second.up(spec(shop, engine_image), "--take-over")
        assert taken.code == 0, taken.out + taken.err
        assert containers(shop) == running, "running replicas stay as they are"

        status = await second.api("/v1/status")
        assert {s["project"]: s["ready"] for s in status["services"]} == {shop: 1, bank: 1}
        assert {p["name"]: p["state"] for p in status["projects"]} == {shop: "up", bank: "up"}
        listed = (await second.run("ps", "--all")).out.splitlines()
        assert [line.split()[0] for line in listed[1:3]] == sorted([shop, bank])
        # A name means the service of the caller's project, also if another project has the name.
        for service in status["services"]:
            (replica,) = service["replicas"]
            answer = await Inside(replica["name"], docker=True).call("web")
            assert json.loads(answer.text)["replica"] == replica["name"]
        assert (await second.down()).code == 0
        assert containers(shop) == containers(bank) == []
        assert not volume(shop)
        assert not volume(bank)
