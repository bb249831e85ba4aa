"""Bad revisions under load, on local processes and the real proxy: each goes back by itself, for
what its own traffic, probes and ends show. `tests/e2e` does the same on a real engine."""

import uuid
from collections.abc import AsyncIterator

import pytest

from tests.support.bad_revisions import bring_in, judge
from tests.support.mesh import TestMesh
from tests.support.scaled import scaled_mesh

REASONS = {
    "errors": "of its requests failed",
    "slow": "of its requests took over",
    "never": "not healthy within 8 s",
    "crash": "was killed (SIGKILL)",
    "gone": "/no/such/program",
}


@pytest.fixture
async def mesh() -> AsyncIterator[TestMesh]:
    async with scaled_mesh(PROJECT=f"p-{uuid.uuid4().hex[:6]}") as made:
        yield made


async def nothing_more() -> None:
    """The program was never there."""


@pytest.mark.slow
async def test_every_bad_revision_goes_back_by_itself(mesh: TestMesh) -> None:
    seen, told = await bring_in(mesh, "none", nothing_more)
    assert "errors was rolled back" in told
    await judge(mesh, seen, REASONS)
