"""Real replicas for tests: a small server, a keeper, and a clean engine afterwards."""

import asyncio
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from meshd.model.runtime import ReplicaSpec, ReplicaState
from meshd.runtime.base import EventKind, Runtime, RuntimeEvent
from meshd.runtime.docker.runtime import DockerRuntime
from meshd.runtime.process.runtime import ProcessRuntime
from meshd.runtime.swarm.runtime import SwarmRuntime
from meshd.spec.model import Service
from tests.support.waiting import wait_until

SERVER = """
import http.server, os, signal
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = os.environ.get("ANSWER", "").encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_): pass
def end(*_):
    print("asked to stop", flush=True)
    os._exit(7)
signal.signal(signal.SIGTERM, end)
server = http.server.ThreadingHTTPServer(("", int(os.environ["PORT"])), Handler)
print("listening on", os.environ["PORT"], flush=True)
server.serve_forever()
"""
STUBBORN = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("up", flush=True)
time.sleep(600)
"""


def service(image: str, script: str = SERVER, name: str = "web", **fields: object) -> Service:
    """A service that runs a Python script."""
    command = ("python3", "-c", script)
    return Service.model_validate({"name": name, "image": image, "command": command, **fields})


@contextmanager
def keeper(state: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A keeper for a state directory, ended afterwards."""
    command = [sys.executable, "-m", "meshd.runtime.process.keeper", "--state", str(state)]
    process = subprocess.Popen(command)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(30)


@asynccontextmanager
async def process_runtime(state: Path) -> AsyncIterator[ProcessRuntime]:
    """A process runtime with its keeper."""
    with keeper(state):
        runtime = ProcessRuntime(state)
        await runtime.open()
        yield runtime
        await runtime.close()


@asynccontextmanager
async def docker_runtime(project: str) -> AsyncIterator[DockerRuntime]:
    """A Docker runtime; afterwards nothing of `project` is left on the engine."""
    runtime = DockerRuntime()
    await runtime.open()
    try:
        yield runtime
    finally:
        for replica in [*await runtime.list(), *await runtime.jobs()]:
            if replica.project == project:
                await asyncio.to_thread(docker, "rm", "-fv", replica.runtime_id)
        await runtime.teardown(project)
        await runtime.close()


@asynccontextmanager
async def swarm_runtime(project: str) -> AsyncIterator[SwarmRuntime]:
    """A Swarm runtime on the manager that DOCKER_HOST names; afterwards nothing of `project` is
    left."""
    runtime = SwarmRuntime()
    await runtime.open()
    try:
        yield runtime
    finally:
        for replica in [*await runtime.list(), *await runtime.jobs()]:
            if replica.project == project:
                await runtime.stop(replica.name, 0)
                await runtime.remove(replica.name)
        await runtime.teardown(project)
        await runtime.close()


def docker(*arguments: str) -> str:
    """Run the Docker client; gives what it said."""
    done = subprocess.run(  # noqa: PLW1510 (its error output belongs in the failure)
        ["docker", *arguments], capture_output=True, text=True, timeout=120
    )
    if done.returncode != 0:
        raise AssertionError(f"docker {' '.join(arguments)}: {done.stderr}")
    return done.stdout.strip()


def on_podman(runtime: Runtime) -> bool:
    """Whether the runtime's engine is Podman. docs/compose.md lists how it differs."""
    form = "{{(index .Server.Components 0).Name}}"
    return runtime.name == "docker" and docker("version", "-f", form) == "Podman Engine"


def replica_spec(project: str, name: str, of: Service, **fields: object) -> ReplicaSpec:
    """A replica of a service, named so that no other test has one like it."""
    return ReplicaSpec(f"{project}-{name}", project, of, "rev1", **fields)  # type: ignore[arg-type]


async def start_and_wait(runtime: Runtime, replica: ReplicaSpec) -> None:
    """Start a replica, and wait until it has said something."""
    await runtime.prepare(replica.project, replica.service)
    await runtime.start(replica)
    await wait_until(lambda: runtime.logs(replica.name, 1), interval=0.02)


async def state_of(runtime: Runtime, name: str) -> ReplicaState | None:
    """The state of a replica; None when there is none of that name."""
    return next((r.state for r in await runtime.list() if r.name == name), None)


async def fetch(host: str, port: int) -> str:
    """What a replica answers to GET /."""

    def get() -> str:
        with urllib.request.urlopen(f"http://{host}:{port}/", timeout=5) as response:
            return str(response.read().decode())

    return await asyncio.to_thread(get)


class ReceivedEvents:
    """The events of a runtime, with when they came."""

    def __init__(self, runtime: Runtime) -> None:
        self.events: list[tuple[float, RuntimeEvent]] = []
        self._runtime = runtime

    async def __aenter__(self) -> "ReceivedEvents":
        self._task = asyncio.create_task(self._listen())
        await self.wait(EventKind.RESYNC)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _listen(self) -> None:
        async for event in self._runtime.watch():
            self.events.append((time.time(), event))

    def kinds(self, name: str) -> list[str]:
        """The kinds of the events of one replica, in order."""
        return [str(event.kind) for _, event in self.events if event.name == name]

    async def wait(self, kind: EventKind, name: str = "", count: int = 1) -> RuntimeEvent:
        """The `count`th event of that kind."""

        def found() -> list[RuntimeEvent]:
            return [e for _, e in self.events if e.kind is kind and e.name == name]

        await wait_until(lambda: len(found()) >= count, what=f"{count} {kind} of {name}")
        return found()[count - 1]


def unique_project(prefix: str) -> str:
    """A project name of this test run alone."""
    return f"rt-{prefix}-{os.getpid()}"
