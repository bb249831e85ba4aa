"""Services with data on a real engine: one container at a time on a volume, and stop signals."""

import asyncio
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import aiohttp
import pytest

from meshd.runtime.base import EventKind
from tests.fakes.replicas import (
    ReceivedEvents,
    docker,
    docker_runtime,
    replica_spec,
    service,
    start_and_wait,
    unique_project,
)
from tests.support.mesh import TestMesh
from tests.support.scaled import scaled_mesh
from tests.support.waiting import elapse

pytestmark = pytest.mark.engine
PROJECT = unique_project("data")
VOLUME = f"{PROJECT}_store"
GRACE = 3
STUBBORN_SERVER = """
import http.server, os, signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        bad = self.path == "/healthz" and os.path.exists("/tmp/bad")
        body = os.environ["VERSION"].encode()
        self.send_response(503 if bad else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_): pass
http.server.ThreadingHTTPServer(("", int(os.environ["PORT"])), Handler).serve_forever()
"""


def compose(version: str, image: str) -> str:
    script = STUBBORN_SERVER.replace("\n", "\n        ")
    return f"""
name: {PROJECT}
services:
  db:
    image: {image}
    command:
      - python3
      - -c
      - |
        {script}
    environment: {{VERSION: "{version}"}}
    volumes: ["store:/data", "/scratch"]
    stop_grace_period: {GRACE}s
    deploy: {{update_config: {{monitor: 0s}}}}
    x-mesh: {{routes: [/], health: {{interval: 500ms}}, parking: {{timeout: 60s}}}}
volumes: {{store: {{}}}}
"""


async def containers() -> list[str]:
    """Return the running containers that have the volume."""
    process = await asyncio.create_subprocess_exec(
        "docker", "ps", "-q", "--filter", f"volume={VOLUME}", stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    return out.decode().split()


class Watch:
    """Samples of the containers with the volume, and the responses to requests meanwhile."""

    def __init__(self) -> None:
        self.most = self.samples = 0
        self.statuses: dict[int, int] = {}
        self.longest = 0.0

    async def sample(self) -> None:
        while True:
            self.most = max(self.most, len(await containers()))
            self.samples += 1
            await asyncio.sleep(0.05)

    async def request(self, address: str) -> None:
        timeout = aiohttp.ClientTimeout(total=90)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            while True:
                began = time.monotonic()
                async with session.get(f"http://{address}/") as answer:
                    await answer.read()
                self.statuses[answer.status] = self.statuses.get(answer.status, 0) + 1
                self.longest = max(self.longest, time.monotonic() - began)
                await asyncio.sleep(0.05)


@asynccontextmanager
async def watched(mesh: TestMesh) -> AsyncIterator[Watch]:
    watch = Watch()
    tasks = [asyncio.create_task(watch.sample()), asyncio.create_task(watch.request(mesh.address))]
    try:
        yield watch
    finally:
        for task in tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


def mounts(container: str) -> dict[str, str]:
    """Return the names of a container's volumes by path."""
    form = "{{range .Mounts}}{{.Destination}} {{.Name}}\n{{end}}"
    lines = docker("inspect", "-f", form, container).splitlines()
    return dict(line.split() for line in lines if line.strip())


def volume_exists(name: str) -> bool:
    return name in docker("volume", "ls", "-q").split()


@pytest.fixture
def volume() -> Iterator[str]:
    yield VOLUME
    subprocess.run(["docker", "volume", "rm", VOLUME], capture_output=True, check=False)


async def test_two_containers_never_have_the_volume_at_once(engine_image: str, volume: str) -> None:
    async with scaled_mesh("docker") as mesh:
        done = await mesh.up(compose("1", engine_image))
        assert done.code == 0, done.out + done.err
        _, status = await mesh.until("db", lambda status: status["ready"] == 1, 30)
        first = mounts(status["replicas"][0]["name"])
        assert first["/data"] == volume

        async with watched(mesh) as watch:
            deploying = asyncio.create_task(mesh.up(compose("2", engine_image)))

            def is_stopping(status: dict[str, Any]) -> bool:
                assert not deploying.done(), deploying.result()
                phases = [replica["phase"] for replica in status["replicas"]]
                return bool(status["coming"]) and phases == ["stopping"]

            await mesh.until("db", is_stopping, 30)
            await elapse(GRACE / 2, "the container ignores its stop signal")
            mesh.kill(mesh.child("meshd.daemon"))
            done = await deploying
            assert done.code == 0, done.out + done.err
            await mesh.until("db", lambda s: s["ready"] == 1 == len(s["replicas"]), 60)
            await assert_replaced(mesh, {status["replicas"][0]["name"]})

            _, status = await mesh.until("db", lambda s: s["ready"] == 1 == len(s["replicas"]), 60)
            unhealthy = status["replicas"][0]["name"]
            assert mounts(unhealthy)["/scratch"] == first["/scratch"], "as Compose does"
            docker("exec", unhealthy, "touch", "/tmp/bad")
            await assert_replaced(mesh, {unhealthy})
        print(f"{watch.samples} samples, {watch.statuses}, the longest took {watch.longest:.1f} s")
        assert watch.most == 1
        assert watch.samples > 20
        assert set(watch.statuses) == {200}
        assert watch.longest >= GRACE - 1, "requests waited in the proxy"

        (last,) = (await mesh.service("db"))["replicas"]
        assert mounts(last["name"]) == first
        assert (await mesh.down()).code == 0
        assert not volume_exists(first["/scratch"])
        assert volume_exists(volume)


async def assert_replaced(mesh: TestMesh, names: set[str]) -> None:
    """Wait until another replica than `names` serves."""

    def replaced(status: dict[str, object]) -> bool:
        replicas = status["replicas"]
        assert isinstance(replicas, list)
        others = {replica["name"] for replica in replicas}
        return status["ready"] == 1 == len(others) and not others & names

    await mesh.until("db", replaced, 60)


@pytest.fixture
def image_with_stop_signal(engine_image: str) -> Iterator[str]:
    name = f"{PROJECT}-sigint"
    subprocess.run(
        ["docker", "build", "-t", name, "-"],
        input=f"FROM {engine_image}\nSTOPSIGNAL SIGINT\n".encode(),
        check=True,
        capture_output=True,
    )
    yield name
    docker("rmi", "-f", name)


@pytest.mark.parametrize(
    ("given", "number"),
    [({}, 2), ({"stop_signal": "SIGRTMIN+3"}, 37), ({"stop_signal": "SIGTERM"}, 15)],
    ids=["image", "real-time", "explicit"],
)
async def test_a_container_is_stopped_with_its_signal(
    image_with_stop_signal: str, given: dict[str, str], number: int
) -> None:
    script = (
        "import os, signal\n"
        "for number in (2, 15, 37):\n"
        "    signal.signal(number, lambda got, _: os._exit(got))\n"
        "print('up', flush=True)\n"
        "while True: signal.pause()"
    )
    name = f"signal-{number}"
    async with docker_runtime(PROJECT) as runtime, ReceivedEvents(runtime) as heard:
        web = service(image_with_stop_signal, script, name=name, **given)
        replica = replica_spec(PROJECT, name, web)
        await start_and_wait(runtime, replica)
        began = time.monotonic()
        await runtime.stop(replica.name, 10.0)
        await heard.wait(EventKind.DIED, replica.name)
        assert time.monotonic() - began < 8
        assert heard.kinds(replica.name) == ["started", "stopping", "died"]
        assert docker("inspect", "-f", "{{.State.ExitCode}}", replica.name) == str(number)


@pytest.fixture
def image_with_volume(engine_image: str) -> Iterator[str]:
    name = f"{PROJECT}-volume"
    subprocess.run(
        ["docker", "build", "-t", name, "-"],
        input=f"FROM {engine_image}\nRUN mkdir /d; echo seed > /d/seed\nVOLUME /d\n".encode(),
        check=True,
        capture_output=True,
    )
    yield name
    docker("rmi", "-f", name)


@pytest.mark.parametrize("order", ["stop-first", "start-first"])
async def test_the_volume_of_an_image_goes_to_the_successor(
    image_with_volume: str, order: str
) -> None:
    script = "import time\nprint('up', flush=True)\ntime.sleep(600)"
    kept = order == "stop-first"
    async with docker_runtime(PROJECT) as runtime:
        db = service(image_with_volume, script, name="db", update={"order": order})
        first = replica_spec(PROJECT, "db-1", db)
        await start_and_wait(runtime, first)
        assert docker("exec", first.name, "cat", "/d/seed") == "seed"
        docker("exec", first.name, "sh", "-c", "echo row > /d/row")
        second = replica_spec(PROJECT, "db-2", db)
        await start_and_wait(runtime, second)
        assert docker("exec", second.name, "ls", "/d") == "seed", "another replica has its own"
        name = mounts(first.name)["/d"]
        await runtime.stop(first.name, 0.0)
        await runtime.remove(first.name)
        third = replica_spec(PROJECT, "db-3", db)
        await start_and_wait(runtime, third)
        assert docker("exec", third.name, "ls", "/d").split() == (
            ["row", "seed"] if kept else ["seed"]
        )
        assert (mounts(third.name)["/d"] == name) == kept
        last = {mounts(each.name)["/d"] for each in (second, third)}
    assert not any(map(volume_exists, last)), "they end with the project"
