"""One-off jobs in a whole mesh, on either runtime."""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.mesh import TestMesh, service_text
from tests.support.scaled import scaled_mesh

CALL = """
import os, urllib.request
print("greeting", os.environ["GREETING"], os.environ["OWN"])
def status(name):
    try:
        return urllib.request.urlopen(os.environ["MESH_URL_" + name] + "/", timeout=20).status
    except urllib.error.HTTPError as error:
        return error.code
print(status("WEB"), status("CLOSED"))
raise SystemExit(3)
"""
ENDLESS = "import time\nfor i in range(10000): print(i, flush=True); time.sleep(0.1)"


@pytest.fixture(params=[pytest.param("docker", marks=pytest.mark.engine), "process"])
async def mesh(request: pytest.FixtureRequest, engine_image: str) -> AsyncIterator[TestMesh]:
    async with scaled_mesh(request.param) as made:
        text = f"name: jobs{request.param}\nservices:\n" + "".join(
            service_text(name, made.runtime, engine_image, policy=policy, environment=environment,
                         deploy="{replicas: 1}")
            for name, policy, environment in (
                ("web", "{routes: [/], allow: [tool]}", "{}"),
                ("closed", "{allow: [web]}", "{}"),
                ("tool", "{}", "{GREETING: hello}"),
            )
        )  # fmt: skip
        made.environment["MESHD_STATE"] = str(made.state)  # what follows SERVICE is the command's
        done = await made.up(text)
        assert done.code == 0, done.out + done.err
        yield made


async def jobs(mesh: TestMesh) -> dict[str, dict[str, Any]]:
    return {job["id"]: job for job in (await mesh.api("/v1/jobs"))["jobs"]}


async def test_a_job_belongs_to_its_service_and_is_not_a_replica(mesh: TestMesh) -> None:
    ran = await mesh.run("run", "-e", "OWN=mine", "tool", "--", "python3", "-c", CALL)
    assert (ran.out.splitlines(), ran.code) == (["greeting hello mine", "200 403"], 3), ran.err
    (job,) = (await jobs(mesh)).values()
    assert (job["state"], job["exit_code"]) == ("failed", 3)
    kept = await mesh.api(f"/v1/jobs/{job['id']}/logs")
    assert [each["line"] for each in kept] == ran.out.splitlines()
    missing = await mesh.run("run", "tool", "--", "no-such-program")
    assert (missing.code, "no-such-program" in missing.err) == (125, True)

    endless = f"{ENDLESS}  # {uuid.uuid4().hex}"
    detached = (await mesh.run("run", "-d", "tool", "--", "python3", "-c", endless)).out.strip()
    async with asyncio.timeout(60):
        while (await jobs(mesh))[detached]["state"] != "running":
            await asyncio.sleep(0.1)
    status = await mesh.service("tool")
    assert [replica["name"] for replica in status["replicas"]] != [detached]
    assert (status["running"], status["ready"]) == (1, 1)
    mesh.kill(mesh.child("meshd.daemon"))
    follow = asyncio.create_task(mesh.run("jobs", "logs", "-f", detached))
    await mesh.until("tool", lambda status: status["ready"] == 1, 30)
    await asyncio.sleep(1.0)
    assert (await jobs(mesh))[detached]["state"] == "running"
    assert (await mesh.run("jobs", "stop", detached)).code == 0
    followed = await follow
    assert followed.code == 0, followed.err
    lines = followed.out.split()
    assert lines[:3] == ["0", "1", "2"]
    assert lines == sorted(set(lines), key=int)
    assert (await jobs(mesh))[detached]["state"] == "stopped"
    assert not {event["replica"] for event in await mesh.events()} & set(await jobs(mesh))

    assert (await mesh.run("run", "-d", "tool", "--", "python3", "-c", endless)).code == 0
    async with asyncio.timeout(60):
        while not processes_of(endless):
            await asyncio.sleep(0.1)
    down = await mesh.run("down")
    assert down.code == 0, down.err
    assert not processes_of(endless)


def processes_of(script: str) -> list[str]:
    """Return the processes that run a script, in containers or not."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if script.encode() in (entry / "cmdline").read_bytes().split(b"\0"):
                found.append(entry.name)
    return found
