"""Bad revisions under load, on local processes and the real proxy: each is rolled back for its own
traffic, probes or exits. `tests/e2e` does the same on a real engine."""

import uuid
from collections.abc import AsyncIterator

import pytest

from tests.support.bad_revisions import check_rollbacks, deploy_bad_revisions
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
    """Do nothing: the program never existed."""


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_every_bad_revision_is_rolled_back(mesh: TestMesh) -> None:
    seen, detail = await deploy_bad_revisions(mesh, "none", nothing_more)
    assert "errors was rolled back" in detail
    await check_rollbacks(mesh, seen, REASONS)
