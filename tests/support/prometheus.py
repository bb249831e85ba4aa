"""A real Prometheus on loopback for a test, with its data in the test's folder."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp

from tests.support.ports import free_port
from tests.support.waiting import wait_until


class Prometheus:
    """A running server, asked by `session`."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def get(self, path: str, **parameters: str) -> Any:
        """Return the data of a GET. The API answers an error with another status."""
        async with self._session.get(f"api/v1/{path}", params=parameters) as answer:
            body = await answer.json()
            assert body["status"] == "success", body
            return body["data"]

    async def query(self, expression: str) -> list[dict[str, Any]]:
        """Return the series of an instant query."""
        found: list[dict[str, Any]] = (await self.get("query", query=expression))["result"]
        return found

    async def wait_for(self, expression: str, otherwise: str = "no data") -> list[dict[str, Any]]:
        """Wait until an instant query has a result, and return it. `otherwise` says what is wrong
        if it has none."""
        found: list[dict[str, Any]] = []

        async def has_data() -> bool:
            nonlocal found
            found = await self.query(expression)
            return bool(found)

        await wait_until(has_data, 20.0, f"data ({otherwise}: {expression})", 0.1)
        return found


@contextlib.asynccontextmanager
async def running_prometheus(config: Path, *features: str) -> AsyncIterator[Prometheus]:
    """Run a server with this configuration file; its data is in a folder next to it."""
    port = free_port()
    with (config.parent / "prometheus.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            "prometheus",
            f"--config.file={config}",
            f"--storage.tsdb.path={config.parent / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
            *([f"--enable-feature={','.join(features)}"] if features else []),
            stdout=log,
            stderr=log,
        )
    try:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}/") as session:

            async def is_ready() -> bool:
                assert process.returncode is None, Path(log.name).read_text()
                try:
                    async with session.get("-/ready") as answer:
                        return answer.status == 200
                except aiohttp.ClientConnectionError:
                    return False

            await wait_until(is_ready, 20.0, "Prometheus", 0.1)
            yield Prometheus(session)
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
