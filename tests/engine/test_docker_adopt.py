"""Containers that Compose started: adopted and cloned, and Compose still manages them."""

import json
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from meshd.model.runtime import ReplicaSpec, ReplicaState
from meshd.runtime.base import EventKind
from meshd.runtime.docker.runtime import DockerRuntime
from meshd.spec.model import Service
from tests.fakes.replicas import (
    SERVER,
    ReceivedEvents,
    docker,
    docker_runtime,
    fetch,
    unique_project,
)
from tests.support.waiting import wait_until

pytestmark = pytest.mark.engine
PROJECT = unique_project("adopt")
FILE = """
version: "3.7"
services:
  web:
    image: {image}
    command: ["python3", "-c", {script}]
    environment: {{PORT: "9000", ANSWER: adopted}}
    networks: [front, back]
    volumes: ["data:/data"]
    ports: ["127.0.0.1:23090:9000"]
    labels: {{mesh.service: web, mesh.port: "9000"}}
  other:
    image: {image}
    command: ["sleep", "600"]
networks: {{front: {{}}, back: {{}}}}
volumes: {{data: {{}}}}
"""


class Compose:
    """Run Debian's docker-compose on its own file."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def __call__(self, *arguments: str) -> str:
        command = ["docker-compose", "-p", PROJECT, "-f", str(self._file), *arguments]
        done = subprocess.run(  # noqa: PLW1510 (its error output belongs in the failure)
            command, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture
def compose(tmp_path: Path, engine_image: str) -> Iterator[Compose]:
    file = tmp_path / "docker-compose.yml"
    file.write_text(FILE.format(image=engine_image, script=json.dumps(SERVER)))
    run = Compose(file)
    yield run
    run("down", "-v", "-t", "1", "--remove-orphans")


@pytest.fixture
async def runtime() -> AsyncIterator[DockerRuntime]:
    async with docker_runtime(PROJECT) as ready:
        yield ready


async def test_compose_containers_are_adopted_and_cloned(
    runtime: DockerRuntime, compose: Compose
) -> None:
    async with ReceivedEvents(runtime) as heard:
        compose("up", "-d")
        begun = await heard.wait(EventKind.STARTED, f"{PROJECT}_web_1")
        assert heard.kinds(f"{PROJECT}_other_1") == []
    (original,) = [r for r in await runtime.list() if r.project == PROJECT]
    assert begun.replica == original
    assert (original.name, original.service, original.managed) == (f"{PROJECT}_web_1", "web", False)
    assert (original.port, original.state) == (9000, ReplicaState.RUNNING)

    cloned = [
        await runtime.start(
            ReplicaSpec(name, PROJECT, Service(name="web"), "any", clone_of=original.name)
        )
        for name in (f"{PROJECT}-web-a", f"{PROJECT}-web-b")
    ]
    for clone in cloned:
        assert (clone.project, clone.service, clone.managed) == (PROJECT, "web", True)
        assert clone.revision == original.revision
        assert clone.host is not None
        assert len(clone.addresses) == 2
        await wait_until(lambda name=clone.name: runtime.logs(name, 1))
        assert await fetch(clone.host, clone.port) == "adopted"
    numbers = [c.labels["com.docker.compose.container-number"] for c in cloned]
    assert numbers == ["2", "3"]
    assert docker("exec", cloned[0].name, "sh", "-c", "touch /data/x") == ""
    assert docker("exec", original.name, "ls", "/data") == "x"

    seen = compose("ps", "-q", "web").split()
    assert set(seen) == {r.runtime_id for r in (original, *cloned)}
    compose("up", "-d")  # Compose scales back to its own count; it is not upset
    assert [r.name for r in await runtime.list() if r.project == PROJECT] == [original.name]


async def test_down_removes_clones(runtime: DockerRuntime, compose: Compose) -> None:
    compose("up", "-d")
    original = f"{PROJECT}_web_1"
    clone = ReplicaSpec(f"{PROJECT}-web-a", PROJECT, Service(name="web"), "", clone_of=original)
    await runtime.start(clone)
    compose("down", "-v", "-t", "1")
    assert [r for r in await runtime.list() if r.project == PROJECT] == []


async def test_a_compose_run_is_not_a_replica(runtime: DockerRuntime, compose: Compose) -> None:
    async with ReceivedEvents(runtime) as heard:
        compose("run", "--rm", "web", "true")
        compose("up", "-d", "web")
        await heard.wait(EventKind.STARTED, f"{PROJECT}_web_1")
        assert {event.name for _, event in heard.events} == {"", f"{PROJECT}_web_1"}
