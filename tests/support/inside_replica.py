"""Requests from inside a replica: bytes that its own program could send."""

import asyncio
import base64
import os
import sys
from dataclasses import dataclass
from urllib.parse import urlsplit

from tests.support.mesh import TestMesh

SENDER = """
import base64, socket, sys
host, port, request = sys.argv[1], int(sys.argv[2]), base64.b64decode(sys.argv[3])
try:
    with socket.create_connection((host, port), 2) as connection:
        connection.settimeout(5)
        connection.sendall(request)
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
except OSError as error:
    sys.exit(f"unreachable: {error}")
sys.stdout.buffer.write(answer)
"""
UNREACHABLE = 0


@dataclass(frozen=True)
class Answer:
    """A status and the body; `UNREACHABLE` and the error where no connection was possible."""

    status: int
    text: str


def replica_pid(name: str) -> int:
    """Return the process id of a local replica, found by the name in its environment."""
    wanted = f"MESH_REPLICA={name}".encode()
    for entry in os.listdir("/proc"):
        if entry.isdecimal():
            try:
                with open(f"/proc/{entry}/environ", "rb") as file:
                    if wanted in file.read().split(b"\0"):
                        return int(entry)
            except OSError:
                continue
    raise AssertionError(f"no process carries {wanted!r}")


async def ran(*command: str, environment: dict[str, str] | None = None) -> tuple[int, bytes, bytes]:
    """Run a command; return its exit code, output and error output."""
    process = await asyncio.create_subprocess_exec(
        *command, env=environment,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await process.communicate()
    return process.returncode or 0, out, err


@dataclass(frozen=True)
class Inside:
    """Where one replica runs: its container, or a process with its environment."""

    replica: str
    docker: bool

    @classmethod
    async def first(cls, mesh: TestMesh, service: str) -> "Inside":
        """Return the first ready replica of a service."""
        replicas = (await mesh.service(service))["replicas"]
        name = next(r["name"] for r in replicas if r["phase"] == "ready")
        return cls(name, mesh.runtime == "docker")

    async def environment(self) -> dict[str, str]:
        """Return the replica's environment."""
        if self.docker:
            _, out, _ = await ran("docker", "exec", self.replica, "env", "-0")
        else:
            with open(f"/proc/{replica_pid(self.replica)}/environ", "rb") as file:
                out = file.read()
        words = [word.decode().partition("=") for word in out.split(b"\0") if word]
        return {name: value for name, _, value in words}

    async def send(self, host: str, port: int, request: bytes) -> Answer:
        """Send one request over a new connection, and return the answer."""
        words = [SENDER, host, str(port), base64.b64encode(request).decode()]
        if self.docker:
            command = ["docker", "exec", self.replica, "python3", "-c", *words]
            code, out, err = await ran(*command)
        else:
            command = [sys.executable, "-c", *words]
            code, out, err = await ran(*command, environment=await self.environment())
        if code:
            assert b"unreachable" in err, err.decode()
            return Answer(UNREACHABLE, err.decode())
        head, _, body = out.decode().partition("\r\n\r\n")
        return Answer(int(head.split(" ", 2)[1]), body)

    async def call(self, service: str, path: str = "/", *fields: str) -> Answer:
        """Call another service through the address in `MESH_URL_...`, as a program would."""
        url = urlsplit((await self.environment())[f"MESH_URL_{service.upper()}"])
        assert url.hostname is not None
        target = url.path.rstrip("/") + path
        return await self.send(url.hostname, url.port or 80, get(target, url.netloc, *fields))


def get(target: str, host: str, *fields: str) -> bytes:
    """Return a GET request that closes its connection."""
    lines = [f"GET {target} HTTP/1.1", f"Host: {host}", *fields, "Connection: close", "", ""]
    return "\r\n".join(lines).encode()
