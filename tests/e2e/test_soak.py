"""Rolling updates in a row under a mixed load: five here, a hundred with `make soak`."""

import pytest

from tests.soak.run import soak
from tests.support.mesh import TestMesh

ROLLOUTS = 5
RATE = 300


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("runtime", ["process"])
async def test_rollouts_in_a_row_fail_no_request(mesh: TestMesh, engine_image: str) -> None:
    result = await soak(mesh, engine_image, ROLLOUTS, RATE, print, gate=False)
    assert result.problems == []
    assert result.failures == []
    assert len(result.seconds) == ROLLOUTS
    assert result.streams >= ROLLOUTS
    assert result.served > RATE * sum(result.seconds) / 4
