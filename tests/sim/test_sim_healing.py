"""Every failure of a replica is healed in time, exactly once and with a named reason, and the other
replicas are not touched."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from meshd.model.rollout import RolloutState
from meshd.model.runtime import ContainerHealth
from meshd.store import output_archive
from meshd.store.output_archive import OutputArchive
from tests.fakes import virtual
from tests.fakes.sim_mesh import Control, Scene, assert_as_desired
from tests.fakes.sim_runtime import Box
from tests.support.waiting import wait_until

QUIET = 20.0


def hang(scene: Scene, name: str) -> None:
    scene.runtime.boxes[name].hangs = True


def remove(scene: Scene, name: str) -> None:
    scene.runtime.remove_by_others(name)


def unhealthy(scene: Scene, name: str) -> None:
    scene.runtime.change_by_others(name, health=ContainerHealth.UNHEALTHY)


def changed(scene: Scene, name: str) -> None:
    scene.runtime.change_by_others(
        name, drift="was changed by something other than meshd: the memory limit is 1"
    )


@pytest.mark.parametrize(
    ("befalls", "within", "reported"),
    [
        (lambda scene, name: scene.runtime.end(name, 3), 4.0, "exited with code 3"),
        (lambda scene, name: scene.runtime.end(name, 137), 4.0, "was killed (SIGKILL)"),
        (lambda scene, name: scene.runtime.end(name, 137, True), 4.0, "was killed: out of memory"),
        (remove, 12.0, "was removed by something other than meshd"),
        (hang, 8.0, "bad probes in a row"),
        (unhealthy, 8.0, "its container's health check fails"),
        (changed, 8.0, "was changed by something other than meshd: the memory limit is 1"),
    ],
    ids=["exit", "kill", "out of memory", "deleted", "hangs", "unhealthy", "changed"],
)
def test_a_replica_is_replaced(
    tmp_path: Path, befalls: Callable[[Scene, str], None], within: float, reported: str
) -> None:
    async def play(scene: Scene) -> None:
        before = set(scene.runtime.boxes)
        victim = sorted(before)[0]
        befalls(scene, victim)
        await asyncio.sleep(within)
        assert_as_desired(scene)
        assert victim not in scene.runtime.boxes
        assert before - {victim} <= set(scene.runtime.boxes)
        assert reported in scene.story()

    virtual.run(settled(tmp_path, play))


@pytest.mark.parametrize("late", [0.0, 3.0])
def test_the_output_of_a_failed_replica_is_kept(tmp_path: Path, late: float) -> None:
    """However long after the end of a removal the runtime answers it."""

    async def play(scene: Scene) -> None:
        scene.runtime.late_answer = late
        victim = next(name for name, box in scene.runtime.boxes.items() if box in of(scene, "back"))
        scene.runtime.end(victim, 3)
        await asyncio.sleep(8.0)
        assert_as_desired(scene)
        (record,) = scene.control.reconciler.view().failures.values()
        assert (record.replica, record.lines) == (victim, ("last line",))
        archive = OutputArchive(scene.directory / output_archive.DIRECTORY)
        ((name, lines),) = archive.read("shop", "back")
        assert name == victim
        assert [line.text for line in lines][:1] == ["last line"]
        assert "exited with code 3" in lines[-1].text

    virtual.run(settled(tmp_path, play))


def test_the_output_is_kept_if_the_control_process_ends_during_the_removal(
    tmp_path: Path,
) -> None:
    """The runtime removes the replica all the same."""

    async def play(scene: Scene) -> None:
        scene.runtime.late_answer = 3.0
        victim = next(name for name, box in scene.runtime.boxes.items() if box in of(scene, "back"))
        scene.runtime.end(victim, 3)
        await wait_until(lambda: victim not in scene.runtime.boxes, 2.0, "the removal")
        await scene.control.kill()
        scene.control = Control(scene.directory, scene.runtime, scene.plane)
        archive = OutputArchive(scene.directory / output_archive.DIRECTORY)
        ((name, lines),) = archive.read("shop", "back")
        assert (name, lines[0].text) == (victim, "last line")
        assert "exited with code 3" in lines[-1].text

    virtual.run(settled(tmp_path, play))


def test_a_replica_paused_by_another_program_is_resumed_and_kept(tmp_path: Path) -> None:
    async def play(scene: Scene) -> None:
        before = set(scene.runtime.boxes)
        scene.runtime.pause_by_others(sorted(before)[0])
        await asyncio.sleep(1.0)
        assert set(scene.runtime.boxes) == before
        assert_as_desired(scene)
        assert "was paused by something other than meshd; meshd resumes it" in scene.story()

    virtual.run(settled(tmp_path, play))


def test_a_replica_that_is_not_ready_gets_no_requests_and_is_kept(tmp_path: Path) -> None:
    async def play(scene: Scene) -> None:
        before = set(scene.runtime.boxes)
        name = sorted(before)[0]
        scene.runtime.boxes[name].unready = True
        await asyncio.sleep(3.0)
        states = [worker.states()[name] for worker in scene.plane.workers]
        assert states == ["draining", "draining"]
        assert "is not ready for requests: GET /ready answered 503" in scene.story()
        await asyncio.sleep(60.0)
        assert set(scene.runtime.boxes) == before
        scene.runtime.boxes[name].unready = False
        await asyncio.sleep(3.0)
        assert set(scene.runtime.boxes) == before
        assert_as_desired(scene)
        assert scene.runtime.stopped == []

    virtual.run(settled(tmp_path, play))


def test_a_replica_that_is_not_ready_is_replaced_by_a_new_revision(tmp_path: Path) -> None:
    async def play(scene: Scene) -> None:
        for box in scene.runtime.boxes.values():
            box.unready = True
        await asyncio.sleep(3.0)
        before = set(scene.runtime.boxes)
        scene.deploy(scene.project())
        await asyncio.sleep(30.0)
        assert not before & set(scene.runtime.boxes)
        assert_as_desired(scene)

    virtual.run(settled(tmp_path, play))


def test_a_new_replica_that_never_gets_ready_fails_its_revision(
    tmp_path: Path,
) -> None:
    async def play(scene: Scene) -> None:
        scene.runtime.born_unready = True
        before = set(scene.runtime.boxes)
        scene.deploy(scene.project())
        await asyncio.sleep(30.0)
        assert scene.control.store.rollouts["shop/back"].state is RolloutState.ROLLED_BACK
        assert {n for n in before if "-back-" in n} <= set(scene.runtime.boxes)

    virtual.run(settled(tmp_path, play))


def test_a_duplicate_is_removed_and_the_original_stays(tmp_path: Path) -> None:
    async def play(scene: Scene) -> None:
        before = set(scene.runtime.boxes)
        scene.runtime.duplicate_by_others(sorted(before)[0])
        await asyncio.sleep(15.0)
        assert set(scene.runtime.boxes) == before
        assert_as_desired(scene)

    virtual.run(settled(tmp_path, play))


def test_repeated_crashes_back_off_and_are_reported_as_a_crash_loop(tmp_path: Path) -> None:
    async def play(scene: Scene) -> None:
        for _ in range(60):
            await asyncio.sleep(1.0)
            for name, box in list(scene.runtime.boxes.items()):
                if box.seen.service == "back" and box.running:
                    scene.runtime.end(name, 9)
        starts = scene.runtime.started
        waits = dict(scene.control.reconciler.view().plan.waiting)["shop/back"]
        assert "crash loop" in waits
        loops = [e for e in scene.control.events.since(0, 1000) if e.kind == "replica.crash-loop"]
        assert [(e.project, e.service) for e in loops] == [("shop", "back")] * len(loops)
        assert 1 <= len(loops) <= 3
        assert loops[0].text.startswith("3 quick failures in a row, backing off restarts; last: ")
        assert starts < 3 * 2 + 3 * 10
        assert not any(box.running for box in of(scene, "back"))
        scene.runtime.bad_luck = 0.0
        await asyncio.sleep(180.0)
        assert_as_desired(scene)

    virtual.run(settled(tmp_path, play))


def of(scene: Scene, service: str) -> list[Box]:
    return [box for box in scene.runtime.boxes.values() if box.seen.service == service]


async def settled(directory: Path, play: Callable[[Scene], Awaitable[None]]) -> None:
    """Start two services with three ready replicas each, then run the play."""
    scene = Scene(directory, seed=1)
    scene.runtime.bad_luck = 0.0
    try:
        await asyncio.sleep(1.0)
        scene.deploy(scene.project())
        await asyncio.sleep(QUIET)
        assert_as_desired(scene)
        await play(scene)
        assert scene.plane.problems == []
    finally:
        await scene.close()
