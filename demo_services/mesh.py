"""The mesh as the scenario sees it from outside: the `meshd` command and the API socket."""

import asyncio
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp

COMPOSE = Path(__file__).resolve().parent / "compose.yml"
PROJECT = "food"
"""The name in `COMPOSE`."""
PAGE = 200
"""Events per request."""


class MeshError(Exception):
    """A `meshd` command failed; the text is its output."""


@dataclass
class Mesh:
    """A daemon of the scenario, with a separate state directory.

    `environment` holds the variables that the Compose file uses. The proxy sends spans to the
    collector at `otlp`, a URL; empty: it records none.
    """

    state: Path
    runtime: str
    listen: str
    environment: dict[str, str] = field(default_factory=dict)
    otlp: str = ""
    _session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        connector = aiohttp.UnixConnector(path=str(self.state / "admin.sock"))
        self._session = aiohttp.ClientSession(
            connector=connector, timeout=aiohttp.ClientTimeout(total=5)
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def command(self, *arguments: str, quiet: bool = True) -> str:
        """Run a `meshd` command and return its output. Raises MeshError if it fails."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "meshd", *arguments, "--state", str(self.state),
            env={**os.environ, **self.environment},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE if quiet else None,
            stderr=asyncio.subprocess.STDOUT if quiet else None,
        )  # fmt: skip
        output, _ = await process.communicate()
        text = output.decode(errors="replace").strip() if output else ""
        if process.returncode:
            raise MeshError(text or f"meshd {arguments[0]} exited with code {process.returncode}")
        return text

    async def up(self) -> None:
        """Start the daemon and the application, and wait until every replica is ready."""
        await self.command(
            "up", "-f", str(COMPOSE), "--runtime", self.runtime, "--listen", self.listen,
            "--metrics", "127.0.0.1:0", "--workers", "2", "--no-adopt", "--detach",
            *(("--otlp", self.otlp, "--otlp-sample", "100%") if self.otlp else ()),
            quiet=False,
        )  # fmt: skip

    async def deploy(self, **variables: str) -> None:
        """Deploy the application with changed variables, and wait for the result."""
        self.environment.update(variables)
        await self.command("deploy", "-f", str(COMPOSE))

    async def down(self) -> None:
        """Drain and stop everything, delete the application's volume, and end the daemon, which
        ends with its last project."""
        if self.runtime == "docker":
            await self.command("down", PROJECT, "--volumes", "--yes")
        else:
            await self.command("down", "--all")

    async def get(self, path: str) -> Any:
        """Return a response of the API. Raises aiohttp.ClientError."""
        assert self._session is not None
        async with self._session.get(f"http://meshd{path}") as response:
            response.raise_for_status()
            return await response.json()

    async def services(self) -> dict[str, dict[str, Any]]:
        """Return the status of every service by name."""
        return {service["name"]: service for service in (await self.get("/v1/status"))["services"]}

    async def events(self, since: int) -> list[dict[str, Any]]:
        """Return the next events with id > since, oldest first."""
        found: list[dict[str, Any]] = await self.get(f"/v1/events?since={since}&limit={PAGE}")
        return found

    async def set_fault(self, address: str, mode: str, value: float = 1) -> None:
        """Set the fault mode of a replica. A replica that crashes cannot respond; that is not an
        error."""
        timeout = aiohttp.ClientTimeout(total=5)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            try:
                async with session.post(
                    f"http://{address}/_fault", json={"mode": mode, "value": value}
                ) as response:
                    response.raise_for_status()
            except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
                if mode != "crashing":
                    raise
