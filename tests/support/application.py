"""The application in `tests/e2e/application`, under Docker Compose or under meshd.

Both forms have one interface, so that the same checks run on both. The images come from Debian
packages: no registry is needed.
"""

import asyncio
import contextlib
import fcntl
import json
import os
import shutil
import socket
import subprocess
import tempfile
import urllib.parse
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp

from tests.support.mesh import TestMesh
from tests.support.ports import free_port

SOURCE = Path(__file__).parents[1] / "e2e" / "application"
IMAGE = os.environ.get("MESHD_APPLICATION_IMAGE", "meshd-application:bookworm")
PACKAGES = (
    "python3", "python3-psycopg2", "python3-redis", "postgresql-15", "redis-server", "nginx-light",
    "mosquitto", "mosquitto-clients", "curl",
)  # fmt: skip
PLACE_OF_MESH_SETTINGS = "    # x-mesh\n"


def build_image() -> None:
    """Build the image with all the servers, unless the engine has it."""
    with (Path(tempfile.gettempdir()) / "meshd-application.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # other streams of tests wait here
        known = subprocess.run(
            ["docker", "image", "inspect", IMAGE], check=False, capture_output=True
        )
        if known.returncode == 0:
            return
        with tempfile.TemporaryDirectory() as folder:
            archive = f"{folder}/rootfs.tar"
            include = f"--include={','.join(PACKAGES)}"
            subprocess.run(
                ["mmdebstrap", "--quiet", "--variant=minbase", include, "bookworm", archive],
                check=True,
                capture_output=True,
                timeout=300,
            )
            subprocess.run(["docker", "import", archive, IMAGE], check=True, capture_output=True)


async def run(*command: str, cwd: Path | None = None, env: dict[str, str] | None = None) -> str:
    """Run a command; return its output. Raises AssertionError with all it said if it fails."""
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=cwd,
        env={**os.environ, **(env or {})},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(180):
        out, _ = await process.communicate()
    assert process.returncode == 0, f"{' '.join(command)}: {out.decode()}"
    return out.decode()


class Application:
    """A copy of the application in `folder`, with free ports and `project` as its name.

    - `web`, `front`, `udp`: its ports on 127.0.0.1.
    """

    label = ""
    """The label that holds the name of a container's service."""

    def __init__(self, folder: Path, project: str) -> None:
        self.folder, self.project = folder, project
        self.web, self.front, self.udp = free_port(), free_port(), free_port()
        self.environment = {
            "COMPOSE_PROJECT_NAME": project,
            "BASE": IMAGE,
            "WEB_PORT": str(self.web),
            "PROXY_PORT": str(self.front),
            "UDP_PORT": str(self.udp),
        }
        shutil.copytree(SOURCE, folder, dirs_exist_ok=True)
        (folder / "password.txt").write_text("secret")

    def edit(self, old: str, new: str) -> None:
        """Replace a text in the Compose file."""
        file = self.folder / "compose.yml"
        text = file.read_text()
        assert old in text
        file.write_text(text.replace(old, new))

    async def up(self) -> None:
        """Start it, or apply the changes of the file."""
        raise NotImplementedError

    async def down(self) -> None:
        """End it; volumes stay."""
        raise NotImplementedError

    async def ids(self, service: str, *more: str) -> list[str]:
        """Return the ids of the running containers of a service; with `-a` also of others."""
        found = await run(
            "docker", "ps", "-q", "--no-trunc", *more, "--filter", f"label={self.label}={service}",
            "--filter", f"label={self.label.rpartition('.')[0]}.project={self.project}",
        )  # fmt: skip
        return found.split()

    async def inspect(self, service: str, *more: str) -> dict[str, Any]:
        """Return the engine's description of the only container of a service."""
        (container,) = await self.ids(service, *more)
        (found,) = json.loads(await run("docker", "inspect", container))
        return dict(found)

    async def pid(self, service: str) -> int:
        """Return the process id of the only running container of a service; 0 while there is
        none: it has ended, and its successor has not started."""
        found = await self.ids(service)
        if len(found) != 1:
            return 0
        try:
            return int(await run("docker", "inspect", "-f", "{{.State.Pid}}", found[0]))
        except AssertionError:  # removed since it was listed
            return 0

    async def inside(self, service: str, *command: str) -> str:
        """Run a command in a container of a service."""
        return await run("docker", "exec", (await self.ids(service))[0], *command)

    async def ask(self, path: str, argument: str = "", *, port: int = 0) -> Any:
        """Return the answer of the web service to one request. Raises on any other status."""
        url = f"http://127.0.0.1:{port or self.web}{path}?{urllib.parse.quote(argument)}"
        timeout = aiohttp.ClientTimeout(total=10)
        async with aiohttp.ClientSession(timeout=timeout) as session, session.get(url) as answer:
            text = await answer.text()
            assert answer.status == 200, f"{path}: {answer.status} {text}"
            return json.loads(text)

    async def send_datagram(self, text: str) -> str:
        """Send a datagram to the published UDP port; return the answer."""

        def exchange() -> str:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.settimeout(3)
                sock.sendto(text.encode(), ("127.0.0.1", self.udp))
                return sock.recv(2048).decode()

        return await asyncio.to_thread(exchange)

    async def remove_everything(self) -> None:
        """Remove what is left of it on the engine, its volumes too."""
        marks = ("mesh.project", "com.docker.compose.project")
        for mark in marks:
            only = ("--filter", f"label={mark}={self.project}")
            for kind, force in (("container", ("-f", "-v")), ("network", ()), ("volume", ())):
                listing = ("ps", "-aq") if kind == "container" else (kind, "ls", "-q")
                left = (await run("docker", *listing, *only)).split()
                if left:
                    await run("docker", kind, "rm", *force, *left)


class ComposeApplication(Application):
    """The application under docker-compose."""

    label = "com.docker.compose.service"

    async def _compose(self, *words: str) -> str:
        return await run(
            "docker-compose", "-f", "compose.yml", *words, cwd=self.folder, env=self.environment
        )

    async def up(self) -> None:
        await self._compose("up", "-d")

    async def down(self) -> None:
        await self._compose("down")


class MeshApplication(Application):
    """The application under meshd."""

    label = "mesh.service"

    def __init__(self, mesh: TestMesh, project: str) -> None:
        super().__init__(mesh.folder, project)
        self.mesh = mesh
        mesh.environment |= self.environment

    async def up(self) -> None:
        file = self.folder / "compose.yml"
        if self.mesh.processes():
            done = await self.mesh.run("deploy", "-f", str(file), timeout=180)
        else:
            done = await self.mesh.up(file.read_text())
        assert done.code == 0, done.out + done.err

    async def down(self) -> None:
        done = await self.mesh.down()
        assert done.code == 0, done.out + done.err


@contextlib.asynccontextmanager
async def removed_afterwards(application: Application) -> AsyncIterator[Application]:
    """Use an application; nothing is left of it at the end."""
    try:
        yield application
    finally:
        with contextlib.suppress(AssertionError):
            await application.down()
        await application.remove_everything()
