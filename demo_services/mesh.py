"""The mesh as the scenario sees it from outside: its command line and its API socket."""

import asyncio
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp

COMPOSE = Path(__file__).resolve().parent / "compose.yml"


class CannotStart(Exception):
    """The mesh did not come up, or did not take an order; the text is its own message."""


@dataclass
class Mesh:
    """One daemon of the scenario's own, with its state in a folder of its own."""

    state: Path
    runtime: str
    listen: str
    environment: dict[str, str] = field(default_factory=dict)
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
        """Run one `meshd` command. Raises CannotStart with what it said when it fails."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "meshd", *arguments, "--state", str(self.state),
            env={**os.environ, **self.environment},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE if quiet else None,
            stderr=asyncio.subprocess.STDOUT if quiet else None,
        )  # fmt: skip
        said, _ = await process.communicate()
        text = said.decode(errors="replace").strip() if said else ""
        if process.returncode:
            raise CannotStart(text or f"meshd {arguments[0]} ended with {process.returncode}")
        return text

    async def up(self) -> None:
        """Start the daemon and the application, and wait until every replica is ready."""
        await self.command(
            "up", "-f", str(COMPOSE), "--runtime", self.runtime, "--listen", self.listen,
            "--metrics", "127.0.0.1:0", "--workers", "2", "--no-adopt", "--detach",
            quiet=False,
        )  # fmt: skip

    async def deploy(self, **settings: str) -> None:
        """Deploy again with other settings, and wait for the result."""
        self.environment.update(settings)
        await self.command("deploy", "-f", str(COMPOSE))

    async def down(self) -> None:
        """Drain and stop everything, the daemon included."""
        await self.command("down", "--all")

    async def get(self, path: str) -> Any:
        """One answer of the API. Raises aiohttp.ClientError while it is not there."""
        assert self._session is not None
        async with self._session.get(f"http://meshd{path}") as answer:
            answer.raise_for_status()
            return await answer.json()

    async def services(self) -> dict[str, dict[str, Any]]:
        """The status of every service by name."""
        return {service["name"]: service for service in (await self.get("/v1/status"))["services"]}

    async def fault(self, address: str, mode: str, value: float = 1) -> None:
        """Turn a replica's fault switch. A replica that crashes cannot answer; that is as it
        should be."""
        timeout = aiohttp.ClientTimeout(total=5)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            try:
                async with session.post(
                    f"http://{address}/_fault", json={"mode": mode, "value": value}
                ) as answer:
                    answer.raise_for_status()
            except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
                if mode != "crashing":
                    raise
