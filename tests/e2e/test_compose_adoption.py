"""An application that docker-compose started: adopted, balanced, scaled by clones, released.

On an engine of the test's own, for a mesh that adopts takes in whatever is on its engine.
"""

import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.inside_replica import ran
from tests.support.load import Load
from tests.support.mesh import ORIGIN, TestMesh
from tests.support.own_engine import OwnEngine, own_engine
from tests.support.waiting import BUSY, assert_prompt

pytestmark = [pytest.mark.engine, pytest.mark.slow]
BOUND = 0.1
"""Seconds from the start event to the view, and from the first good probe to traffic."""
FILE = """
version: "3.7"
services:
  web:
    image: {image}
    command: ["python3", "/origin.py"]
    environment: {{PORT: "8080", CONCURRENCY: "4"}}
    volumes: ["{origin}:/origin.py:ro"]
    labels:
      mesh.port: "8080"
      mesh.route: /
      mesh.health: /healthz
      mesh.scale.min: "2"
      mesh.scale.max: "6"
      mesh.scale.p95: 150ms
      mesh.scale.down_window: 10s
  database:
    image: {image}
    command: ["sleep", "600"]
    init: true
"""


@dataclass(frozen=True)
class Compose:
    """Debian's docker-compose, on a project of this test alone."""

    folder: Path
    project: str
    engine: OwnEngine

    async def __call__(self, *arguments: str) -> str:
        """Run one command; return its output."""
        file = str(self.folder / "docker-compose.yml")
        done = await asyncio.to_thread(
            subprocess.run,
            ["docker-compose", "-p", self.project, "-f", file, *arguments],
            env={**os.environ, "DOCKER_HOST": self.engine.host},
            capture_output=True, text=True, timeout=100, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    async def docker(self, *arguments: str) -> str:
        """Run the Docker client; return its output."""
        code, out, err = await ran("docker", "-H", self.engine.host, *arguments)
        assert code == 0, err
        return out.decode().strip()

    def original(self, number: int) -> str:
        """Return the name of one of the containers of `web`."""
        return f"{self.project}_web_{number}"


@pytest.fixture
def engine(engine_image: str) -> Iterator[OwnEngine]:
    with own_engine(live_restore=False) as running:
        running.load(engine_image)
        yield running


@pytest.fixture
async def compose(engine: OwnEngine, engine_image: str) -> AsyncIterator[Compose]:
    folder = Path(tempfile.mkdtemp(prefix="mt-"))
    made = Compose(folder, f"e2e{uuid.uuid4().hex[:6]}", engine)
    text = FILE.format(image=engine_image, origin=ORIGIN)
    (folder / "docker-compose.yml").write_text(text)
    yield made
    await made("down", "-t", "1", "--remove-orphans")
    left = await made.docker("ps", "-aq")
    shutil.rmtree(folder, ignore_errors=True)
    assert left == "", "docker-compose down left containers behind"


@pytest.fixture
async def mesh(compose: Compose) -> AsyncIterator[TestMesh]:
    engine = compose.engine
    made = TestMesh(
        compose.folder,
        "docker",
        f"unix:{compose.folder}/proxy.sock",
        {"DOCKER_HOST": engine.host},
        engine.inside,
    )
    up = await made.run(
        "up", "--adopt", "--runtime", "docker", "--listen", made.address,
        "--metrics", "127.0.0.1:0", "--workers", "2", "--detach",
    )  # fmt: skip
    assert up.code == 0, up.out + up.err
    yield made
    await made.end()


async def in_mesh(
    mesh: TestMesh, holds: Callable[[set[str]], bool], seconds: float
) -> tuple[float, set[str]]:
    """Wait until the names of the ready replicas of `web` satisfy `holds`; return the seconds."""
    began, names = time.monotonic(), set[str]()
    while time.monotonic() - began < BUSY * seconds:
        names = {
            replica["name"]
            for service in (await mesh.api("/v1/status"))["services"]
            if service["name"] == "web"
            for replica in service["replicas"]
            if replica["phase"] == "ready"
        }
        if holds(names):
            return time.monotonic() - began, names
        await asyncio.sleep(0.02)
    events = [(event["kind"], event["text"]) for event in await mesh.events()]
    seen = [(r["name"], r["phase"], r["reason"]) for r in (await mesh.service("web"))["replicas"]]
    raise AssertionError(f"after {BUSY * seconds} s: {seen}; {events[-12:]}")


async def known_at(mesh: TestMesh, names: set[str]) -> dict[str, float]:
    """Return when each replica was first in the mesh's status (Unix time)."""
    seen: dict[str, float] = {}
    while len(seen) < len(names):
        for service in (await mesh.api("/v1/status"))["services"]:
            for replica in service["replicas"]:
                if replica["name"] in names:
                    seen.setdefault(replica["name"], time.time())
        await asyncio.sleep(0.02)
    return seen


async def started_at(compose: Compose, since: float) -> dict[str, float]:
    """Return the engine's own start time of each container."""
    lines = await compose.docker(
        "events", "--since", f"{since:.6f}", "--until", f"{time.time():.6f}",
        "--filter", "event=start", "--format", "{{.Actor.Attributes.name}} {{.TimeNano}}",
    )  # fmt: skip
    return {name: int(nano) / 1e9 for name, nano in map(str.split, lines.splitlines())}


async def times_of(engine: OwnEngine, address: str) -> dict[str, Any]:
    """Return when a replica answered its first good probe and its first request, by its own
    clock."""
    script = "import sys, urllib.request as u; print(u.urlopen(sys.argv[1]).read().decode())"
    url = f"http://{address}/_times"
    code, out, err = await ran(*engine.inside, sys.executable, "-c", script, url)
    assert code == 0, err
    return dict(json.loads(out))


async def test_adoption_of_a_docker_compose_application(mesh: TestMesh, compose: Compose) -> None:
    originals = {compose.original(1), compose.original(2)}
    await taken_in(mesh, compose, originals)
    await scaled_by_copies(mesh, compose, originals)
    await compose_stops_it(mesh, compose)
    await takes_its_leave(mesh, compose, originals)
    await compose("down", "-t", "2", "--remove-orphans")
    assert await containers(compose) == set()


async def taken_in(mesh: TestMesh, compose: Compose, originals: set[str]) -> None:
    """Containers are known soon after their start event, and used soon after their first good
    probe."""
    begin = time.time()
    async with Load(mesh.address, 100, 60, timeout=2) as before:
        knowing = asyncio.create_task(known_at(mesh, originals))
        await compose("up", "-d", "--scale", "web=2")
        known = await asyncio.wait_for(knowing, 60)
        await in_mesh(mesh, lambda names: names >= originals, 20)
        await asyncio.sleep(0.5)
    assert before.result.served > 0
    started = await started_at(compose, begin)
    late = {name: known[name] - started[name] for name in originals}
    shown = await mesh.service("web")
    waits = {}
    for replica in shown["replicas"]:
        if replica["name"] not in originals:
            continue  # what waited for the first replica may well have called for a copy
        times = await times_of(compose.engine, replica["address"])
        waits[replica["name"]] = times["request"] - times["probe"]
        assert times["request"] > times["probe"] > 0, "it was served before its first good probe"
        assert not replica["managed"]
    print(
        "known after "
        + ", ".join(f"{1000 * seconds:.0f} ms" for seconds in late.values())
        + "; traffic after the first good probe "
        + ", ".join(f"{1000 * seconds:.0f} ms" for seconds in waits.values())
    )
    assert_prompt([*late.values(), *waits.values()], BOUND)
    async with Load(mesh.address, 80, 3, path="/?ms=50") as load:
        await load.finished()
    assert load.result.failures == []
    (_, most), (_, second) = load.result.replicas.most_common(2)
    assert second > most / 2, load.result.replicas
    print(f"shares {sorted(load.result.replicas.values())}")


async def containers(compose: Compose) -> set[str]:
    """Return the names of the containers that Compose itself lists for `web`."""
    ids = (await compose("ps", "-q", "web")).split()
    if not ids:
        return set()
    names = await compose.docker("inspect", "--format", "{{.Name}}", *ids)
    return {name.lstrip("/") for name in names.splitlines()}


async def scaled_by_copies(mesh: TestMesh, compose: Compose, originals: set[str]) -> None:
    """Load starts clones, which Compose lists as its own; a container that Compose removes is
    replaced."""
    async with Load(mesh.address, 120, 300, path="/?ms=100", clients=120) as rush:
        more, names = await in_mesh(mesh, lambda names: len(names) >= 4, 30)
        assert originals < names
        assert names <= await containers(compose)
        copies = names - originals
        began = time.monotonic()
        await compose("up", "-d", "--scale", "web=2")
        took = time.monotonic() - began
        left = await in_mesh(mesh, lambda names: not copies <= names, 10)
        back, again = await in_mesh(mesh, lambda names: len(names) >= 4, 30)
        await asyncio.sleep(1)
    assert originals < again
    assert left[1] >= originals
    print(
        f"4 replicas after {more:.1f} s; docker-compose up took {took:.1f} s, and 4 again "
        f"{back:.1f} s later; {rush.result.served} served, {len(rush.result.failures)} failed"
    )
    assert rush.result.failures == []


async def compose_stops_it(mesh: TestMesh, compose: Compose) -> None:
    """A container that docker-compose stops is out of rotation before it stops answering."""
    async with Load(mesh.address, 100, 30) as load:
        await asyncio.sleep(0.5)
        stopping = asyncio.create_task(compose.docker("stop", compose.original(2)))
        out, _ = await in_mesh(mesh, lambda now: compose.original(2) not in now, 10)
        await stopping
        await asyncio.sleep(0.5)
    print(f"stopped: {load.result.served} served, {len(load.result.failures)} failed ({out:.2f} s)")
    assert load.result.failures == []
    await compose("stop", "-t", "5")
    await in_mesh(mesh, lambda names: not names, 20)
    await asyncio.sleep(2)
    status = await mesh.service("web")
    assert (status["ready"], status["wanted"]) == (0, 0), "what Compose stopped came back"


async def takes_its_leave(mesh: TestMesh, compose: Compose, originals: set[str]) -> None:
    """`meshd down` removes its clones, and leaves the containers of Compose."""
    await compose("start")
    async with Load(mesh.address, 120, 130, path="/?ms=100", clients=120):
        await in_mesh(mesh, lambda names: len(names) >= 3, 30)
    down = await mesh.down()
    assert down.code == 0, down.out + down.err
    assert await containers(compose) == originals
