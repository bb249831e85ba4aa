"""Replicas that hold data, in virtual time: no two containers at once where one is desired, with
programs that take their whole grace period and with kills of the control process."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from meshd.model.rollout import RolloutState
from meshd.reconcile.execute.executor import Executor
from meshd.spec.model import Mount, Project
from tests.fakes.rollout_scene import Scene, run, scene_in, shop

GRACE = 7.0
DATABASE = (Mount(type="volume", source="db", target="/data"),)


def database(version: str, replicas: int = 1, order: str | None = None, **more: Any) -> Project:
    """A project whose service has a volume and takes its whole grace period to stop."""
    project = shop(version, replicas, STOP="slow", **more)
    (web,) = project.services
    update = web.update.model_copy(update={"order": order})
    fields = {"volumes": DATABASE, "stop_grace_period": GRACE, "update": update}
    return project.model_copy(update={"services": (web.model_copy(update=fields),)})


async def settle(scene: Scene, replicas: int = 1) -> None:
    """Wait until only the desired replicas exist, and they are ready."""

    def at_rest() -> bool:
        wanted = scene.rollout.effective_revision
        boxes = scene.runtime.boxes.values()
        right = [b for b in boxes if b.alive and b.seen.revision == wanted]
        idle = not scene.control.reconciler.view().running
        ready = sum(state == "ready" for state in scene.plane.workers[0].states().values())
        return len(right) == len(boxes) == ready == replicas and idle

    await scene.until(lambda: not scene.rollout.is_unfinished and at_rest())


EVENTS: dict[str, tuple[Project, RolloutState]] = {
    "update": (database("2"), RolloutState.DONE),
    "canary": (database("2", rollout={"strategy": "canary", "interval": 4}), RolloutState.DONE),
    "blue-green": (database("2", rollout={"strategy": "blue-green"}), RolloutState.DONE),
    "never healthy": (database("2", BEHAVE="sick"), RolloutState.ROLLED_BACK),
    "crash": (database("2", BEHAVE="crash"), RolloutState.ROLLED_BACK),
    "explicit": (database("2", order="stop-first"), RolloutState.DONE),
}


@pytest.mark.parametrize("replicas", [1, 2])
@pytest.mark.parametrize("name", EVENTS)
def test_an_update_never_runs_an_additional_replica(
    tmp_path: Path, name: str, replicas: int
) -> None:
    project, outcome = EVENTS[name]
    (web,) = project.services
    second = project.model_copy(
        update={"services": (web.model_copy(update={"replicas": replicas}),)}
    )

    async def main() -> None:
        async with scene_in(tmp_path) as scene:
            scene.deploy(database("1", replicas))
            await settle(scene, replicas)
            await asyncio.sleep(12)
            scene.deploy(second)
            await settle(scene, replicas)
            assert scene.rollout.state is outcome, scene.story()
            assert scene.runtime.peaks["web"] == replicas, scene.story()

    run(main)


def test_an_explicit_start_first_runs_an_additional_replica(tmp_path: Path) -> None:
    async def main() -> None:
        async with scene_in(tmp_path) as scene:
            scene.deploy(database("1", order="start-first"))
            await settle(scene)
            scene.deploy(database("2", order="start-first"))
            await settle(scene)
            assert scene.runtime.peaks["web"] == 2

    run(main)


def hang(scene: Scene, name: str) -> None:
    scene.runtime.boxes[name].hangs = True


def drift(scene: Scene, name: str) -> None:
    scene.runtime.change_by_others(name, drift="was changed by something other than meshd")


def kill(scene: Scene, name: str) -> None:
    scene.runtime.end(name, 137)


@pytest.mark.parametrize("damage", [hang, drift, kill])
@pytest.mark.parametrize("restart", [False, True], ids=["", "new control process"])
def test_a_damaged_replica_is_replaced_once_it_has_ended(
    tmp_path: Path, damage: Callable[[Scene, str], None], restart: bool
) -> None:
    async def main() -> None:
        async with scene_in(tmp_path) as scene:
            scene.deploy(database("1"))
            await settle(scene)
            (name,) = scene.runtime.boxes
            damage(scene, name)
            if restart:
                await scene.until(lambda: name in scene.runtime.stopped or damage is kill)
                await asyncio.sleep(1.0)
                await scene.control.die()
                scene.control = scene._started()
            await scene.until(lambda: name not in scene.runtime.boxes)
            await settle(scene)
            assert scene.runtime.peaks["web"] == 1, scene.story()

    run(main)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("name", ["update", "never healthy"])
def test_a_kill_at_any_operation_starts_no_additional_replica(
    tmp_path: Path, name: str, after: bool
) -> None:
    """Also between the stop of the old replica and the start of the new one."""
    second, outcome = EVENTS[name]

    async def main() -> None:
        number = 0
        while True:
            directory = tmp_path / str(number)
            directory.mkdir()
            async with scene_in(directory) as scene:
                scene.deploy(database("1"))
                await settle(scene)
                scene.operations.clear()
                scene.kill_at, scene.after = number, after
                scene.deploy(second)
                await settle(scene)
                assert scene.rollout.state is outcome, scene.story()
                assert scene.runtime.peaks["web"] == 1, scene.story()
                deaths = scene.deaths
            if not deaths:
                break
            number += 1
        assert number >= 4

    run(main)


def test_a_kill_while_the_old_replica_stops_starts_no_second_one(tmp_path: Path) -> None:
    async def main() -> None:
        async with scene_in(tmp_path) as scene:
            scene.deploy(database("1"))
            await settle(scene)
            (old,) = scene.runtime.boxes
            scene.deploy(database("2"))
            await scene.until(lambda: old in scene.runtime.stopped)
            for _ in range(4):  # the program ends after seven seconds
                await asyncio.sleep(1.0)
                executor: Executor = scene.control.reconciler._executor
                await executor.close()
                await scene.control.die()
                scene.control = scene._started()
                assert scene.runtime.boxes[old].running
                assert len(scene.runtime.boxes) == 1
            await settle(scene)
            assert scene.runtime.peaks["web"] == 1, scene.story()

    run(main)
