"""A random sequence of operations on a mesh over a real engine: by its users, by others, by fate.

    python -m tests.soak.chaos [--seed 1] [--steps 60]

It has its own engine, so that the engine can be restarted too. Meanwhile a steady load
of GET requests is counted, and after each step what must hold is looked at. Exit codes: 0 when
everything ended as wanted and nothing was violated, 1 when not.
"""

import argparse
import asyncio
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import aiohttp

from tests.support.load import Load
from tests.support.mesh import TestMesh, service_text
from tests.support.own_engine import OwnEngine, own_engine

RATE: Final = 40
SETTLED: Final = 60.0
LONGEST: Final = 3600.0
CUT: Final = ("ConnectionReset", "BrokenPipe", "IncompleteRead")
"""How a client shows that the process at the other end was killed."""


@asynccontextmanager
async def mesh_on(engine: OwnEngine) -> AsyncIterator[TestMesh]:
    """A mesh on its own engine."""
    folder = Path(tempfile.mkdtemp(prefix="mt-"))
    project = f"chaos-{uuid.uuid4().hex[:6]}"
    environment = {"PROJECT": project, "DOCKER_HOST": engine.host}
    mesh = TestMesh(
        folder, "docker", f"unix:{folder}/proxy.sock", environment, inside=engine.inside
    )
    try:
        yield mesh
    finally:
        try:
            await mesh.end()
        finally:
            shutil.rmtree(folder, ignore_errors=True)


class Chaos:
    """The operations and the invariants. `problems` are violations."""

    def __init__(self, engine: OwnEngine, mesh: TestMesh, image: str, seed: int) -> None:
        self.problems: list[str] = []
        self.story: list[str] = []
        self._engine = engine
        self._mesh = mesh
        self._image = image
        self._dice = random.Random(seed)
        self._version = 0
        self._wanted = 3
        self._generation = (0, 0)
        self._began = time.monotonic()

    async def run(self, steps: int) -> None:
        """Run the steps, then check the state at the end."""
        up = await self._mesh.up(self._compose())
        if up.code:
            raise RuntimeError(up.out + up.err)
        everything: tuple[Callable[[], Awaitable[None]], ...] = (
            self.deploy, self.scale, self.kill, self.stop, self.remove, self.pause, self.change,
            self.duplicate, self.restart_engine, self.kill_control, self.kill_worker,
        )  # fmt: skip
        chosen: list[Callable[[], Awaitable[None]]] = []
        async with Load(self._mesh.address, RATE, LONGEST, path="/?ms=5", clients=8) as load:
            for _ in range(steps):
                chosen = chosen or self._dice.sample(everything, len(everything))
                step = chosen.pop()
                self._tell(step.__name__)
                await step()
                await asyncio.sleep(self._dice.uniform(0.2, 1.5))
                await self._look()
            await self._settle()
        self._check_clients(load)

    def _compose(self) -> str:
        more = {
            "environment": f"{{VERSION: '{self._version}'}}",
            "deploy": "{replicas: 3, update_config: {monitor: 0s}}",
            "policy": "{routes: [/], rollout: {gate: false}}",  # what is good is let on at once
        }
        text = service_text("web", "docker", self._image, **more)
        return f"name: {self._mesh.environment['PROJECT']}\nservices:\n{text}"

    # What happens

    async def deploy(self) -> None:
        """Deploy a new version without waiting for it."""
        self._version += 1
        path = self._mesh.folder / "compose.yml"
        path.write_text(self._compose())
        await self._run_when_control_is_back("deploy", "-f", str(path), "--detach")

    async def scale(self) -> None:
        self._wanted = self._dice.randint(2, 4)
        await self._run_when_control_is_back("scale", "web", str(self._wanted))

    async def kill(self) -> None:
        await self._docker("kill", await self._one())

    async def stop(self) -> None:
        await self._docker("stop", "-t", "2", await self._one())

    async def remove(self) -> None:
        await self._docker("rm", "-f", await self._one())

    async def pause(self) -> None:
        await self._docker("pause", await self._one())

    async def change(self) -> None:
        await self._docker("update", "--cpus", "1.5", await self._one())

    async def duplicate(self) -> None:
        """Run a container with the labels of a replica."""
        name = await self._one()
        shown = await self._docker("inspect", "--format", "{{json .Config.Labels}}", name)
        if shown:
            marks = [word for k, v in json.loads(shown).items() for word in ("--label", f"{k}={v}")]
            network = f"{self._mesh.environment['PROJECT']}.web"
            await self._docker(
                "run", "-d", "--network", network, *marks, self._image, "sleep", "99"
            )

    async def restart_engine(self) -> None:
        await asyncio.to_thread(self._engine.stop)
        await asyncio.sleep(self._dice.uniform(0.0, 1.0))
        await asyncio.to_thread(self._engine.start)

    async def kill_control(self) -> None:
        self._mesh.kill(self._mesh.child("meshd.daemon"))

    async def kill_worker(self) -> None:
        """Only its connections are lost; these clients are counted separately."""
        self._mesh.kill(self._mesh.child("proxy.worker"))

    # What must hold

    async def _look(self) -> None:
        """Check that generations only grow, and that the engine runs every routed endpoint."""
        status = await self._status()
        generation = tuple(status["generation"])
        if generation < self._generation:
            self._wrong(f"generation {generation} after {self._generation}")
        self._generation = generation
        replicas = [r for s in status["services"] for r in s["replicas"]]
        ready = [r["name"] for r in replicas if r["phase"] == "ready"]
        if len(set(ready)) != len(ready):
            self._wrong(f"listed twice: {ready}")

    async def _settle(self) -> None:
        """Check that the actual state is the desired one, and stays so after a killed control
        process."""
        self._tell("settle")
        before = await self._as_wanted()
        self._tell("kill_control, once more")
        await self.kill_control()
        after = await self._as_wanted()
        if before != after:
            self._wrong(f"a new control process changed what was right: {before} → {after}")

    async def _as_wanted(self) -> dict[str, str]:
        """Wait until the actual state is the desired one; return name → address of the replicas."""
        deadline = time.monotonic() + SETTLED
        found, why = {}, "nothing was seen"
        while time.monotonic() < deadline:
            await asyncio.sleep(0.3)
            status = (await self._status())["services"]
            if not status:
                continue
            web = status[0]
            found = {r["name"]: r["address"] for r in web["replicas"]}
            revisions = {r["revision"] for r in web["replicas"]}
            phases = {r["phase"] for r in web["replicas"]}
            runs = set((await self._docker("ps", "--format", "{{.Names}}")).split())
            paused = await self._docker("ps", "-q", "--filter", "status=paused")
            why = (
                f"{self._wanted} wanted; state {web['state']}, revision {web['revision']}, "
                f"{revisions}, {phases}; running {sorted(runs)}, replicas {sorted(found)}, "
                f"paused {paused!r}"
            )
            if (
                len(found) == self._wanted == web["wanted"]
                and web["state"] == "ok"
                and revisions == {web["revision"]}
                and phases == {"ready"}
                and runs == set(found)
                and not paused
                and await self._serves_version()
            ):
                return found
        self._wrong(f"not as wanted after {SETTLED:g} s: {why}")
        return found

    async def _serves_version(self) -> bool:
        connector = aiohttp.UnixConnector(path=self._mesh.address.removeprefix("unix:"))
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.get("http://x/") as answer,
        ):
            answer_body = await answer.json()
        return bool(answer_body["version"] == str(self._version))

    def _check_clients(self, load: Load) -> None:
        """Check the failures of clients. A killed worker loses its connections. Otherwise no GET
        may fail while replicas exist, because lost GETs are retried."""
        killed = sum("kill_worker" in line for line in self.story)
        failures = load.result.failures
        lost = [text for _, text in failures if text.startswith(CUT)]
        others = [text for _, text in failures if text not in lost]
        if len(lost) > 8 * killed or others:
            self._wrong(f"{len(lost)} connections lost to {killed} killed workers; {others[:5]}")
        self._tell(f"{load.result.served} served, {len(failures)} failed")

    # How

    async def _one(self) -> str:
        """Return a running replica, as the engine lists it."""
        names = await self._docker("ps", "--format", "{{.Names}}", "--filter", "status=running")
        return self._dice.choice(sorted(names.split()) or ["none"])

    async def _status(self) -> dict[str, Any]:
        """Return the status, once the control process answers."""
        deadline = time.monotonic() + 30.0
        while True:
            try:
                return dict(await self._mesh.api("/v1/status"))
            except (aiohttp.ClientError, OSError):
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.1)

    async def _run_when_control_is_back(self, *arguments: str) -> None:
        """Run a user's command, and retry while the mesh or its engine is away."""
        for _ in range(20):
            done = await self._mesh.run(*arguments)
            if done.code == 0:
                return
            await asyncio.sleep(0.5)
        self._wrong(f"{arguments[0]} never came off: {done.out}{done.err}")

    async def _docker(self, *arguments: str) -> str:
        """Run one command on the engine. Its object may be gone by then, which is fine."""
        process = await asyncio.create_subprocess_exec(
            "docker", "-H", self._engine.host, *arguments,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        out, err = await process.communicate()
        if process.returncode:
            self._tell(f"docker {arguments[0]}: {err.decode().strip()[:120]}")
        return out.decode()

    def _tell(self, text: str) -> None:
        self.story.append(f"{time.monotonic() - self._began:7.2f} {text}")

    def _wrong(self, text: str) -> None:
        self.problems.append(text)
        self._tell(f"WRONG: {text}")


async def chaos(image: str, seed: int, steps: int) -> Chaos:
    """Run one sequence from start to end; remove everything afterwards."""
    with own_engine(live_restore=True) as engine:
        await asyncio.to_thread(engine.load, image)
        async with mesh_on(engine) as mesh:
            made = Chaos(engine, mesh, image, seed)
            await made.run(steps)
            if made.problems:
                for event in await mesh.events():
                    words = (event["kind"], event["replica"], event["text"])
                    made.story.append(f"{event['at']:.2f} {' '.join(words)}")
    return made


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="random operations on a mesh over an engine")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--image", default="meshd-base:bookworm", help="with python3")
    options = parser.parse_args()
    result = asyncio.run(chaos(options.image, options.seed, options.steps))
    print("\n".join([*result.story, *result.problems]))
    sys.exit(1 if result.problems else 0)
