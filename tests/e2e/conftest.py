"""A mesh for each test, on local processes or a real engine, always taken down at the end."""

import shutil
import subprocess
import tempfile
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.mesh import TestMesh


@pytest.fixture(params=["process", pytest.param("docker", marks=pytest.mark.engine)])
def runtime(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def mesh(runtime: str) -> AsyncIterator[TestMesh]:
    # A short path: Unix sockets allow about a hundred characters.
    folder = Path(tempfile.mkdtemp(prefix="mt-"))
    made = TestMesh(folder, runtime, environment={"PROJECT": f"e2e-{uuid.uuid4().hex[:6]}"})
    yield made
    try:
        await made.end()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    project = made.environment["PROJECT"]
    if runtime == "docker":
        left = subprocess.run(
            ["docker", "ps", "-aq", "--filter", f"label=mesh.project={project}"],
            capture_output=True, text=True, check=True,
        ).stdout.split()  # fmt: skip
        if left:
            subprocess.run(["docker", "rm", "-f", *left], capture_output=True, check=True)
        assert not left, f"containers left behind: {left}"
