"""A whole Swarm and the mesh on it come back from backups."""

import json
import shutil
from functools import partial
from pathlib import Path

import pytest

from tests.engine.test_swarm import APPLICATION, CALLER, serves
from tests.support.mesh import TestMesh
from tests.support.own_swarm import OwnNode, own_swarm
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.engine, pytest.mark.slow, pytest.mark.acceptance]


def restart_swarm(node: OwnNode) -> None:
    node.docker("swarm", "init", "--force-new-cluster", "--advertise-addr", node.address)


@pytest.mark.timeout(900)
async def test_a_swarm_and_its_mesh_are_restored(tmp_path: Path, engine_image: str) -> None:
    """First with a copy of the Raft, then into a new Swarm. Overrides are as they were."""
    text = APPLICATION.replace("IMAGE", engine_image).replace("CODE", json.dumps(CALLER))
    with own_swarm(["m1"], engine_image) as (node,):
        address = f"{node.address}:8080"
        meshes = []
        for name in ("before", "after", "third"):
            (folder := tmp_path / name).mkdir()
            environment = {"DOCKER_HOST": node.host}
            meshes.append(TestMesh(folder, "swarm", address, environment, node.inside))
        before, after, third = meshes
        served = partial(serves, node.address, 8080, "first")
        backup = str(tmp_path / "backup.tar.gz")
        try:
            started = await before.up(text)
            assert started.code == 0, started.err
            assert (await before.run("scale", "web", "3")).code == 0
            await before.until("web", lambda each: each["ready"] == 3, 60)
            assert (await before.run("backup", backup)).code == 0
            await before.kill_all()
            node.halt()
            swarm, copy = node.root / "data/swarm", tmp_path / "swarm"
            shutil.copytree(swarm, copy, ignore=lambda _, names: [n for n in names if ".sock" in n])

            shutil.rmtree(swarm)
            node.run_engine()
            assert node.docker("info", "-f", "{{.Swarm.LocalNodeState}}") == "inactive"
            node.halt()
            shutil.rmtree(swarm, ignore_errors=True)
            shutil.copytree(copy, swarm)
            node.run_engine()
            restart_swarm(node)
            restored = await after.run("restore", backup)
            assert restored.code == 0, restored.err
            again = await after.up(text)
            assert again.code == 0, again.err
            _, web = await after.until("web", lambda each: each["ready"] == 3, 120)
            assert (web["wanted"], web["override"]) == (3, 3)
            await wait_until(served, 20, "it serves after the first restore")

            await after.kill_all()
            node.docker("swarm", "leave", "--force")
            node.docker("swarm", "init", "--advertise-addr", node.address)
            assert (await third.run("restore", backup)).code == 0
            last = await third.up(text)
            assert last.code == 0, last.err
            _, web = await third.until("web", lambda each: each["ready"] == 3, 120)
            assert (web["wanted"], web["override"]) == (3, 3)
            await wait_until(served, 20, "it serves in the new Swarm")
        finally:
            for mesh in (before, after):
                await mesh.kill_all()
            await third.end()
