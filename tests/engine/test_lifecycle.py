"""One-shot services, conditions, health and hooks of plain services on a real engine."""

import asyncio
import contextlib
import json
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.replicas import docker, unique_project
from tests.support.mesh import TestMesh

pytestmark = pytest.mark.engine
PROJECT = unique_project("life")
DOWN_SECONDS = 25.0
"""Longer than one grace period of 2 s, the end of the workers and of the daemon together."""


@contextlib.asynccontextmanager
async def mesh_in(folder: Path) -> AsyncIterator[TestMesh]:
    mesh = TestMesh(folder, "docker")
    try:
        yield mesh
    finally:
        await mesh.end()
        left = docker("ps", "-aq", "--filter", f"label=mesh.project={PROJECT}").split()
        if left:
            docker("rm", "-f", *left)
        assert not left, "containers are left"


def compose(services: dict[str, dict[str, Any]], image: str) -> str:
    """A Compose file in JSON, which is YAML; every container ends at once when it is stopped."""
    found = {
        name: {"image": image, "init": True, "stop_grace_period": "2s", **given}
        for name, given in services.items()
    }
    return json.dumps({"name": PROJECT, "services": found, "volumes": {"data": {}}})


def containers(service: str) -> list[str]:
    return docker(
        "ps", "-a", "--filter", f"label=mesh.project={PROJECT}",
        "--filter", f"label=mesh.service={service}", "--format", "{{.Names}}",
    ).split()  # fmt: skip


async def test_one_shot_services_their_dependents_and_a_new_control_process(
    tmp_path: Path, engine_image: str
) -> None:
    migrate = {"command": ["sh", "-c", "sleep 2; echo done"]}
    web = {
        "command": ["sleep", "600"],
        "depends_on": {"migrate": {"condition": "service_completed_successfully"}},
    }
    async with mesh_in(tmp_path) as mesh:
        up = await mesh.up(compose({"migrate": migrate, "web": web}, engine_image))
        assert up.code == 0, up.out + up.err
        assert "completed 1/1 after" in up.out
        (name,) = containers("migrate")
        times = [
            docker("inspect", "-f", state, *containers(service))
            for service, state in (("migrate", "{{.State.FinishedAt}}"),
                                   ("web", "{{.State.StartedAt}}"))
        ]  # fmt: skip
        assert times[0] < times[1], "it started before its dependency completed"
        shown = await mesh.run("ps")
        assert "completed" in shown.out
        assert "completed" in (await mesh.run("explain", "migrate")).out
        assert "done" in (await mesh.run("logs", "migrate")).out
        os.kill(mesh.child("meshd.daemon"), signal.SIGKILL)
        await mesh.until("migrate", lambda each: each["state"] == "completed", 20)
        assert containers("migrate") == [name]


async def test_a_failed_one_shot_service_ends_up_with_its_last_lines(
    tmp_path: Path, engine_image: str
) -> None:
    migrate = {"command": ["sh", "-c", "sleep 1; echo no such table; exit 4"]}
    web = {
        "command": ["sleep", "600"],
        "depends_on": {"migrate": {"condition": "service_completed_successfully"}},
    }
    async with mesh_in(tmp_path) as mesh:
        began = time.monotonic()
        up = await mesh.up(compose({"migrate": migrate, "web": web}, engine_image))
        assert time.monotonic() - began < 60
        assert up.code == 1
        assert "exited with code 4" in up.err
        assert "no such table" in up.err, up.out + up.err
        assert "web: depends on migrate, which has failed" in up.err


async def test_the_start_period_an_unreachable_service_and_hooks(
    tmp_path: Path, engine_image: str
) -> None:
    slow = {
        "command": ["sh", "-c", "sleep 4; touch /ok; sleep 600"],
        "healthcheck": {
            "test": ["CMD", "test", "-e", "/ok"], "interval": "500ms", "retries": 1,
            "start_period": "60s",
        },
    }  # fmt: skip
    alone = {"command": ["sleep", "600"], "network_mode": "none"}
    fill = "chmod 777 /data; echo pre $$A > /data/log; chmod 666 /data/log"
    hooked = {
        "command": ["sleep", "600"],
        "volumes": ["data:/data"],
        "pre_start": [
            {"command": ["sh", "-c", fill], "environment": {"A": "a"}},
            {"command": ["sh", "-c", "echo each >> /data/log"], "per_replica": True},
        ],
        "post_start": [
            {"command": ["sh", "-c", "echo post $(id -u) >> /data/log"], "user": "1234"}
        ],
        "pre_stop": [
            {"command": ["sh", "-c", "echo stop in $$PWD >> /data/log"], "working_dir": "/tmp"}
        ],
        "depends_on": {"slow": {"condition": "service_healthy"}},
    }
    services = {"slow": slow, "alone": alone, "hooked": hooked}
    volume = f"{PROJECT}_data"
    try:
        async with mesh_in(tmp_path) as mesh:
            up = await mesh.up(compose(services, engine_image))
            assert up.code == 0, up.out + up.err
            (replica,) = (await mesh.service("hooked"))["replicas"]
            name = replica["name"]
            log = docker("exec", name, "cat", "/data/log")
            assert log.splitlines() == ["pre a", "each", "post 1234"]
            began = time.monotonic()
            down = await mesh.run("down")
            assert down.code == 0, down.err
            assert time.monotonic() - began < DOWN_SECONDS
        mount = f"{volume}:/data"
        log = docker("run", "--rm", "-v", mount, engine_image, "cat", "/data/log")
        assert log.splitlines()[-1] == "stop in /tmp"
    finally:
        docker("volume", "rm", "-f", volume)


async def test_down_ends_whatever_state_services_are_in(tmp_path: Path, engine_image: str) -> None:
    services = {
        "ready": {"command": ["sleep", "600"]},
        "paused": {"command": ["sleep", "600"]},
        "completed": {"command": ["true"]},
        "looping": {"command": ["false"], "restart": "always"},
        "failed": {"command": ["false"]},
        "unhealthy": {
            "command": ["sleep", "600"],
            "healthcheck": {"test": ["CMD", "false"], "interval": "500ms", "retries": 1},
        },
        "hanging": {"command": ["sleep", "600"], "post_start": [{"command": ["sleep", "500"]}]},
        "preparing": {
            "command": ["sleep", "600"],
            "pre_start": [{"command": ["sleep", "500"], "per_replica": True}],
        },
        "migrating": {"command": ["sleep", "600"], "pre_start": [{"command": ["sleep", "500"]}]},
        "waiting": {
            "command": ["true"],
            "depends_on": {"ready": {"condition": "service_completed_successfully"}},
        },
    }
    async with mesh_in(tmp_path) as mesh:
        keep = compose({"keep": {"command": ["sleep", "600"]}}, engine_image)
        path = tmp_path / "keep.yml"
        path.write_text(keep.replace(PROJECT, f"{PROJECT}-keep"))
        assert (await mesh.up(keep.replace(PROJECT, f"{PROJECT}-keep"))).code == 0
        file = tmp_path / "all.yml"
        file.write_text(compose(services, engine_image))
        deploying = asyncio.create_task(mesh.run("deploy", "-f", str(file), "--detach"))
        await mesh.until("unhealthy", lambda each: bool(each["replicas"]), 30)
        await mesh.until("paused", lambda each: each["ready"] == 1, 30)
        await deploying
        docker("pause", *containers("paused"))
        began = time.monotonic()
        down = await mesh.run("down", PROJECT)
        assert down.code == 0, down.out + down.err
        took = time.monotonic() - began
        print(f"down took {took:.1f} s")
        assert took < DOWN_SECONDS
        assert not docker("ps", "-aq", "--filter", f"label=mesh.project={PROJECT}")
        assert containers("keep") == []
