"""Rollout commands and undo on local processes, by the command line."""

import sys
import uuid
from collections.abc import AsyncIterator

import pytest

from tests.support.mesh import ORIGIN, CommandResult, TestMesh
from tests.support.scaled import scaled_mesh


@pytest.fixture
async def mesh() -> AsyncIterator[TestMesh]:
    async with scaled_mesh(PROJECT=f"h-{uuid.uuid4().hex[:6]}") as made:
        yield made


def compose(mesh: TestMesh, version: str, code: int) -> str:
    hook = f"[{sys.executable}, -c, 'print(\"table {version}\"); raise SystemExit({code})']"
    return f"""
name: {mesh.environment["PROJECT"]}
services:
  web:
    image: none
    command: [{sys.executable}, {ORIGIN}]
    environment: {{VERSION: '{version}'}}
    deploy: {{update_config: {{monitor: 500ms}}}}
    x-mesh: {{routes: [/], rollout: {{before: {hook}}}}}
"""


async def deploy(mesh: TestMesh, version: str, code: int = 0) -> CommandResult:
    path = mesh.folder / "compose.yml"
    path.write_text(compose(mesh, version, code))
    return await mesh.run("deploy", "-f", str(path))


async def test_a_failed_hook_stops_a_rollout_and_undo_restores_a_release(mesh: TestMesh) -> None:
    up = await mesh.up(compose(mesh, "1", 0))
    assert up.code == 0, up.out + up.err
    second = await deploy(mesh, "2")
    assert second.code == 0, second.out + second.err
    assert "web #2 done in" in second.out
    third = await deploy(mesh, "3", code=3)
    assert third.code == 1, third.out + third.err
    assert "web was rolled back" in third.err
    assert "before-3 failed: " in third.err
    assert "; table 3" in third.err
    undone = await mesh.run("rollout", "undo", "web")
    assert undone.code == 0, undone.out + undone.err
    project = mesh.environment["PROJECT"]
    releases = await mesh.api(f"/v1/projects/{project}/services/web/releases")
    assert [(r["number"], r["how"], r["outcome"]) for r in releases] == [
        (4, "undo", "done"),
        (3, "deploy", "rolled-back"),
        (2, "deploy", "done"),
        (1, "deploy", "done"),
    ]
    assert (releases[0]["revision"], releases[0]["changed"]) == (
        releases[3]["revision"],
        "environment VERSION",
    )
    restored = [releases[3]["revision"]]
    await mesh.until("web", lambda s: [r["revision"] for r in s["replicas"]] == restored, 20)
    assert await mesh.run("rollout", "pause", "web") == CommandResult(
        1, "", "meshd: web has no rollout in progress\n"
    )
