"""A short random sequence of operations on a real engine. `make chaos` runs long ones; tests/sim
runs thousands of steps in virtual time."""

import os

import pytest

from tests.soak.chaos import chaos

SEED = int(os.environ.get("MESHD_RANDOM_SEED", "7"))
STEPS = int(os.environ.get("MESHD_RANDOM_STEPS", "6"))


@pytest.mark.engine
@pytest.mark.slow
@pytest.mark.timeout(240 + 20 * STEPS)
async def test_random_operations_end_in_the_desired_state(engine_image: str) -> None:
    done = await chaos(engine_image, SEED, STEPS)
    print("\n".join(done.story))
    assert done.problems == [], "\n".join(done.story)
