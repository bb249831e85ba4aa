"""The whole control path on a simulated runtime and data plane, in virtual time.

Random operations by users, and random failures, over many seeds: afterwards what runs is what was
desired last, and no replica was ever stopped while in use.
"""

import asyncio
import os
from pathlib import Path

import pytest

from tests.fakes import virtual
from tests.fakes.sim_mesh import Scene, assert_as_desired

SEEDS = int(os.environ.get("MESHD_RANDOM_SEEDS", "4"))
STEPS = 300


async def random_operations(directory: Path, seed: int, steps: int) -> None:
    scene = Scene(directory, seed)
    try:
        await asyncio.sleep(1.0)
        scene.deploy(scene.project())
        for _ in range(steps):
            await asyncio.sleep(scene.dice.expovariate(0.4))
            await scene.step()
            assert not scene.plane.problems, f"{scene.plane.problems}\n{scene.story()}"
        scene.log.append(f"{virtual.clock() - virtual.EPOCH:.1f} last deployment")
        scene.runtime.bad_luck = 0.0
        scene.deploy(scene.project())
        await asyncio.sleep(120.0)
        scene.control.check()
        assert not scene.plane.problems, f"{scene.plane.problems}\n{scene.story()}"
        assert_as_desired(scene)
        started, stopped = scene.runtime.started, len(scene.runtime.stopped)
        await scene._restart()
        await asyncio.sleep(30.0)
        assert (scene.runtime.started, len(scene.runtime.stopped)) == (started, stopped)
        assert_as_desired(scene)
    finally:
        await scene.close()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(SEEDS))
def test_random_operations_end_in_the_desired_state(tmp_path: Path, seed: int) -> None:
    virtual.run(random_operations(tmp_path, seed, steps=STEPS))
