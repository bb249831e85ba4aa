"""One mesh on local processes for tests of scaling, and what they ask of it."""

import asyncio
import re
import shutil
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from tests.support.mesh import TestMesh, service_text


@asynccontextmanager
async def scaled_mesh(runtime: str = "process", **environment: str) -> AsyncIterator[TestMesh]:
    """A mesh in a short-named folder, down at the end whatever happens."""
    folder = Path(tempfile.mkdtemp(prefix="ms-"))
    mesh = TestMesh(folder, runtime, environment=environment)
    try:
        yield mesh
    finally:
        try:
            await mesh.end()
        finally:
            shutil.rmtree(folder, ignore_errors=True)


async def up(mesh: TestMesh, image: str = "", **services: str) -> None:
    """Bring services up that run the test origin; each is given by its x-mesh."""
    text = "name: scaled\nservices:\n"
    for name, policy in services.items():
        text += service_text(
            name, mesh.runtime, image or "none", policy=policy, deploy="{}",
            environment="{CONCURRENCY: '4'}",
        )  # fmt: skip
    done = await mesh.up(text)
    assert done.code == 0, done.out + done.err


async def get_all(mesh: TestMesh, path: str, count: int) -> Sequence[tuple[int, str]]:
    """So many requests at once: the status and body of each."""
    timeout = aiohttp.ClientTimeout(total=30)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:

        async def one() -> tuple[int, str]:
            async with session.get(f"http://{mesh.address}{path}") as answer:
                return answer.status, await answer.text()

        return await asyncio.gather(*(one() for _ in range(count)))


async def told(mesh: TestMesh, kind: str) -> list[dict[str, Any]]:
    """The events of one kind."""
    return [event for event in await mesh.events() if event["kind"] == kind]


async def metric(mesh: TestMesh, name: str) -> float:
    """The sum over all samples of that exact name."""
    text = await mesh.text("/metrics")
    return sum(float(v) for v in re.findall(rf"^{name}(?:\{{.*\}})? (\S+)$", text, re.MULTILINE))
