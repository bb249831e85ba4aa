"""Backup hooks on a real engine: a plain service keeps running, and is resumed in any case."""

import asyncio
import signal
import subprocess
import sys
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.fakes.replicas import docker, unique_project
from tests.support.mesh import TestMesh
from tests.support.scaled import events_of_kind, scaled_mesh
from tests.support.waiting import wait_until

pytestmark = pytest.mark.engine
PROJECT = unique_project("hooks")
VOLUME = f"{PROJECT}_store"
LARGE_BYTES = 40_000_000
"""More than the buffers between the engine and a reader that does not read."""
COMPOSE = """
name: {project}
services:
  db:
    image: {image}
    init: true
    command: sleep 600
    volumes: ["store:/data"]
    stop_grace_period: 1s
volumes: {{store: {{}}}}
x-mesh:
  backups:
    db:
      quiesce:
        - sh
        - -ec
        - |
          echo locked > /data/state
          if test -e /data/busy; then echo a transaction runs; exit 4; fi
      resume: sh -c 'test ! -e /data/stuck && rm -f /data/state'
      timeout: 20s
"""


def in_db(script: str) -> str:
    """Run a script in the container of the service."""
    return docker("exec", container(), "sh", "-ec", script)


def container() -> str:
    (found,) = docker("ps", "-q", "--no-trunc", "--filter", f"volume={VOLUME}").split()
    return found


def state() -> str:
    return in_db("cat /data/state 2>/dev/null || echo open")


@pytest.fixture
async def mesh(engine_image: str) -> AsyncIterator[TestMesh]:
    try:
        async with scaled_mesh("docker") as mesh:
            done = await mesh.up(COMPOSE.format(project=PROJECT, image=engine_image))
            assert done.code == 0, done.out + done.err
            await mesh.until("db", lambda s: len(s["replicas"]) == 1 == s["ready"], 30)
            yield mesh
    finally:
        subprocess.run(["docker", "volume", "rm", VOLUME], capture_output=True, check=False)


async def test_a_plain_service_is_quiesced_and_not_stopped(mesh: TestMesh, tmp_path: Path) -> None:
    before, file = container(), tmp_path / "store.tar"
    done = await mesh.run("volume", "backup", "store", "-o", str(file))
    assert done.code == 0, done.err
    assert (container(), state()) == (before, "open")
    with tarfile.open(file) as tar:
        member = tar.extractfile("./state")
        assert member is not None
        assert member.read() == b"locked\n"

    in_db("touch /data/busy")
    file.unlink()
    refused = await mesh.run("volume", "backup", "store", "-o", str(file))
    assert refused.code == 1
    assert "exited with code 4: a transaction runs" in refused.err
    assert not file.exists()
    assert (container(), state()) == (before, "open")
    live = await mesh.run("volume", "backup", "store", "--live", "-o", str(file))
    assert live.code == 0, live.err

    in_db("rm /data/busy; touch /data/stuck")
    stuck = await mesh.run("volume", "backup", "store", "-o", str(file))
    assert stuck.code == 1
    assert "MiB written" in stuck.err
    assert "NOT RESUMED" in stuck.err
    assert (container(), state()) == (before, "locked")
    assert "not resumed" in (await mesh.run("volume", "ls")).out
    assert len(await events_of_kind(mesh, "volume.resume-failed")) == 1
    in_db("rm /data/stuck")
    await wait_until(lambda: state() == "open", 20, interval=0.2)

    async def recovered() -> bool:
        return "not resumed" not in (await mesh.run("volume", "ls")).out

    await wait_until(recovered, 20)
    assert len(await events_of_kind(mesh, "volume.resumed")) == 1


@pytest.mark.parametrize("how", ["ctrl-c", "kill the command", "kill the control process"])
async def test_the_service_is_resumed_after_an_interrupted_backup(mesh: TestMesh, how: str) -> None:
    before = container()
    in_db(f"head -c {LARGE_BYTES} /dev/urandom > /data/large")
    command = [sys.executable, "-m", "meshd", "volume", "backup", "store", "--state", mesh.state]
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, limit=1000
    )
    assert process.stdout is not None
    await process.stdout.readexactly(512)  # the tar has begun, and is not read any further
    assert state() == "locked"
    if how == "kill the control process":
        mesh.kill(mesh.child("meshd.daemon"))
    else:
        process.send_signal(signal.SIGINT if how == "ctrl-c" else signal.SIGKILL)
    await process.communicate()
    assert process.returncode != 0
    await wait_until(lambda: state() == "open", 20, interval=0.2)
    assert container() == before
