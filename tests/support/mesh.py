"""A whole meshd for a test, with its own state folder and address; ended with the test."""

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from tests.support.ports import free_port
from tests.support.waiting import wait_until

ORIGIN = Path(__file__).with_name("origin.py")


@dataclass
class CommandResult:
    """Exit code and output of a command."""

    code: int
    out: str
    err: str


@dataclass
class TestMesh:
    """One daemon, its state in `folder`, its proxy at `address`, on a `runtime`."""

    __test__ = False

    folder: Path
    runtime: str
    address: str = field(default_factory=lambda: f"127.0.0.1:{free_port()}")
    environment: dict[str, str] = field(default_factory=dict)
    inside: tuple[str, ...] = ()
    """Words before each command, to run it in another namespace."""

    @property
    def state(self) -> Path:
        return self.folder / "state"

    async def run(self, *arguments: str, timeout: float = 90) -> CommandResult:
        """Run one `meshd` command on this mesh's state."""
        process = await asyncio.create_subprocess_exec(
            *self.inside, sys.executable, "-m", "meshd", *arguments, "--state", str(self.state),
            env={**os.environ, **self.environment}, cwd=self.folder,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            async with asyncio.timeout(timeout):
                out, err = await process.communicate()
        except TimeoutError:
            process.kill()
            await process.wait()
            raise
        return CommandResult(process.returncode or 0, out.decode(), err.decode())

    async def up(self, compose: str, *more: str) -> CommandResult:
        """Write `compose` into the folder and run `meshd up --detach` on it."""
        path = self.folder / "compose.yml"
        path.write_text(compose)
        return await self.run(
            "up", "-f", str(path), "--runtime", self.runtime, "--listen", self.address,
            "--metrics", "127.0.0.1:0", "--workers", "2", "--no-adopt", "--detach", *more,
        )  # fmt: skip

    async def down(self) -> CommandResult:
        return await self.run("down", "--all")

    async def end(self) -> None:
        """Run `meshd down`. Kill what it leaves, and fail the test with the end of the log."""
        failed = ""
        try:
            done = await self.down()
            if done.code not in (0, 3):
                failed = done.out + done.err
        except TimeoutError as error:
            failed = f"meshd down did not end: {error!r}"
        left = self.processes()
        await self.kill_all()
        log = self.state / "daemon.log"
        last = log.read_text(errors="replace")[-4000:] if log.exists() else ""
        assert not failed, f"{failed}\n{last}"
        assert not left, f"left running: {left}\n{last}"

    async def api(self, path: str) -> Any:
        """Return the JSON of a GET on the API socket."""
        return json.loads(await self.text(path))

    async def text(self, path: str) -> str:
        """Return the body of a GET on the API socket. Raises ClientResponseError on an error."""
        connector = aiohttp.UnixConnector(path=str(self.state / "admin.sock"))
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.get(f"http://meshd{path}") as answer,
        ):
            answer.raise_for_status()
            return await answer.text()

    async def events(self) -> list[dict[str, Any]]:
        """Return the latest events, oldest first."""
        return list(await self.api("/v1/events?limit=1000"))

    async def service(self, name: str) -> dict[str, Any]:
        """Return the status of one service. Raises KeyError."""
        for service in (await self.api("/v1/status"))["services"]:
            if service["name"] == name:
                return dict(service)
        raise KeyError(name)

    async def until(
        self, name: str, holds: Callable[[dict[str, Any]], bool], seconds: float
    ) -> tuple[float, dict[str, Any]]:
        """Wait until a service's status satisfies `holds`; return the seconds it took and the
        status. `seconds` is the limit on an idle machine, see `wait_until`."""
        last: dict[str, Any] = {}

        async def held() -> bool:
            nonlocal last
            try:
                last = await self.service(name)
            except (aiohttp.ClientError, OSError, KeyError):
                last = {}
            return bool(last) and holds(last)

        took = await wait_until(
            held, seconds, lambda: f"{name} as expected: {json.dumps(last, indent=1)}", 0.05
        )
        return took, last

    def processes(self) -> dict[int, list[str]]:
        """Return the daemon's processes with their command lines: the supervisor, found by the
        state folder in its command line, and its children."""
        found: dict[int, tuple[int, list[str]]] = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal():
                try:
                    words = (entry / "cmdline").read_bytes().decode().split("\0")
                    parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                except OSError:
                    continue
                found[int(entry.name)] = (parent, words)
        roots = {
            pid
            for pid, (_, words) in found.items()
            if "proxy" in words and any(str(self.state) in word for word in words)
        }
        return {
            pid: words for pid, (parent, words) in found.items() if pid in roots or parent in roots
        }

    def child(self, module: str) -> int:
        """Return the process id of the daemon's process that runs a module."""
        for pid, words in self.processes().items():
            if module in words:
                return pid
        raise AssertionError(f"no process runs {module}: {self.processes()}")

    def kill(self, pid: int) -> None:
        os.kill(pid, signal.SIGKILL)

    async def kill_all(self) -> None:
        """Kill the daemon's processes; return when none is left."""
        killed: set[int] = set()

        def none_left() -> bool:
            found = self.processes()
            for pid in found:
                with contextlib.suppress(ProcessLookupError):  # its supervisor has reaped it
                    self.kill(pid)
            killed.update(found)
            return not found and not any(map(_runs, killed))

        await wait_until(none_left, 10, "all processes have ended", interval=0.05)


def _runs(pid: int) -> bool:
    """Return whether a process has not ended. One that has ended but was not reaped has no
    command line."""
    try:
        return bool(Path(f"/proc/{pid}/cmdline").read_bytes())
    except OSError:
        return False


def service_text(name: str, runtime: str, image: str, **more: str) -> str:
    """Return the Compose text of one service that runs the test origin. `environment`, `deploy`
    and `policy` (x-mesh) are flow mappings in YAML."""
    where = str(ORIGIN) if runtime == "process" else "/origin.py"
    volume = "" if runtime == "process" else f'    volumes: ["{ORIGIN}:/origin.py:ro"]\n'
    return (
        f"  {name}:\n"
        f"    image: {image}\n"
        f"    command: [python3, {where}]\n"
        f"    environment: {more.get('environment', '{}')}\n"
        f"{volume}"
        f"    deploy: {more.get('deploy', '{replicas: 2}')}\n"
        f"    x-mesh: {more.get('policy', '{routes: [/]}')}\n"
    )
