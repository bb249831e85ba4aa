"""A short random sequence of operations on a real engine; `make chaos` runs long ones. The
thousands of steps are in virtual time (tests/sim)."""

import os

import pytest

from tests.soak.chaos import chaos

SEED = int(os.environ.get("MESHD_RANDOM_SEED", "7"))
STEPS = int(os.environ.get("MESHD_RANDOM_STEPS", "6"))


@pytest.mark.engine
@pytest.mark.slow
@pytest.mark.timeout(240 + 20 * STEPS)
async def test_whatever_happens_ends_as_it_was_wanted(engine_image: str) -> None:
    done = await chaos(engine_image, SEED, STEPS)
    print("\n".join(done.story))
    assert done.problems == [], "\n".join(done.story)
