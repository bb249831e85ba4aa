"""A mesh on local processes for tests of scaling, and requests to it."""

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
    """Run a mesh in a folder with a short path; it is taken down at the end."""
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
    """Bring up services that run the test origin, each with its x-mesh text."""
    text = "name: scaled\nservices:\n"
    for name, policy in services.items():
        text += service_text(
            name, mesh.runtime, image or "none", policy=policy, deploy="{}",
            environment="{CONCURRENCY: '4'}",
        )  # fmt: skip
    done = await mesh.up(text)
    assert done.code == 0, done.out + done.err


async def get_all(mesh: TestMesh, path: str, count: int) -> Sequence[tuple[int, str]]:
    """Send `count` requests at once; return the status and body of each response."""
    timeout = aiohttp.ClientTimeout(total=30)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:

        async def one() -> tuple[int, str]:
            async with session.get(f"http://{mesh.address}{path}") as answer:
                return answer.status, await answer.text()

        return await asyncio.gather(*(one() for _ in range(count)))


async def events_of_kind(mesh: TestMesh, kind: str) -> list[dict[str, Any]]:
    """Return the events of one kind."""
    return [event for event in await mesh.events() if event["kind"] == kind]


async def metric(mesh: TestMesh, name: str) -> float:
    """Return the sum over all samples of exactly this name."""
    text = await mesh.text("/metrics")
    return sum(float(v) for v in re.findall(rf"^{name}(?:\{{.*\}})? (\S+)$", text, re.MULTILINE))
