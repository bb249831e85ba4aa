"""Rollouts in virtual time: analyzed by simulated traffic, controlled by hand, and with the control
process killed at every single operation."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from meshd.model.errors import Rejected
from meshd.model.replica_phase import ALIVE
from meshd.model.rollout import RolloutState
from meshd.reconcile.progress import deployment_progress
from meshd.spec.fingerprint import compute_revision
from meshd.spec.model import Project
from tests.fakes import sim_traffic
from tests.fakes.rollout_scene import Scene, run, scene_in, shop


@dataclass
class Case:
    """A second revision, its expected outcome, and how many of 200 requests a second it may
    fail."""

    name: str
    second: Project
    outcome: str
    reason: str = ""


FAST = {"interval": 4, "steps": [0.1, 0.5], "keep": 5}
CASES = [
    Case("rolling", shop("2"), "done"),
    Case("stop-first", shop("2", update={"order": "stop-first"}), "done"),
    Case("errors", shop("2", ERRORS="0.05"), "rolled-back", "of its requests failed"),
    Case("slow", shop("2", MS="60"), "rolled-back", "of its requests took over"),
    Case("canary", shop("2", rollout={"strategy": "canary", **FAST}), "done"),
    Case("blue-green", shop("2", rollout={"strategy": "blue-green", **FAST}), "done"),
    Case("vanished", shop("2", BEHAVE="vanished"), "rolled-back", "image app is not on the engine"),
    Case("never healthy", shop("2", BEHAVE="sick"), "rolled-back", "not healthy within 5 s"),
]


@asynccontextmanager
async def brought_in(
    directory: Path, case: Case, kill_at: int = -1, after: bool = False
) -> AsyncIterator[Scene]:
    """Deploy the first revision, then the second of a case, and run the rollout to its end."""
    async with scene_in(directory) as scene:
        scene.deploy(shop("1"))
        await scene.settled()
        await asyncio.sleep(12)
        scene.operations.clear()
        scene.kill_at, scene.after = kill_at, after
        scene.deploy(case.second)
        await scene.settled()
        assert (case.name, scene.rollout.state.word) == (case.name, case.outcome), scene.story()
        assert case.reason in scene.rollout.cause
        for worker in scene.plane.workers:
            await scene.until(lambda w=worker: len(w.states()) == 2)  # type: ignore[misc]
        yield scene


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_a_second_revision_completes_or_is_rolled_back(tmp_path: Path, case: Case) -> None:
    async def main() -> None:
        async with brought_in(tmp_path, case) as scene:
            second = compute_revision(case.second.services[0])
            took = scene.rollout.since - scene.rollout.stage_since
            bad = scene.traffic.failed.get(second, 0)
            served = scene.traffic.served.get(second, 0)
        print(f"{case.name}: {case.outcome}, {served} served, {bad} bad, last stage {took:.0f} s")
        if case.outcome == "rolled-back":
            assert scene.rollout.stage == 0, "while at most one step was exposed"
            assert bad <= 8
            assert served <= 200

    run(main)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_a_kill_at_any_operation_does_not_change_the_outcome(
    tmp_path: Path, case: Case, after: bool
) -> None:
    async def main() -> None:
        number, deaths = 0, 0
        while True:
            directory = tmp_path / str(number)
            directory.mkdir()
            async with brought_in(directory, case, number, after) as scene:
                pass
            deaths += scene.deaths
            if not scene.deaths:
                break
            number += 1
            assert number < 100
        print(f"{case.name}: killed at each of {number} operations")
        assert deaths == number
        assert number >= 3

    run(main)


@pytest.mark.parametrize(
    ("match", "outcome"), [([], "rolled-back"), (["header:X-Canary=yes"], "done")]
)
def test_a_canary_by_condition_may_fail_slightly_more_often(
    tmp_path: Path, match: list[str], outcome: str
) -> None:
    async def main() -> None:
        async with scene_in(tmp_path) as scene:
            scene.deploy(shop("1", ERRORS="0.02"))
            await scene.settled()
            await asyncio.sleep(12)
            way = {"strategy": "canary", **FAST, "match": match}
            scene.deploy(shop("2", ERRORS="0.06", rollout=way))
            await scene.until(lambda: scene.rollout.state is not RolloutState.ROLLING)
            assert scene.rollout.state.word == outcome, scene.story()

    run(main)


def test_an_image_lost_during_a_rollout_rolls_it_back(tmp_path: Path) -> None:
    async def main() -> None:
        async with scene_in(tmp_path) as scene:
            first = shop("1", 4)
            scene.deploy(first)
            await scene.until(lambda: scene.rollout.state is RolloutState.DONE)
            await asyncio.sleep(12)
            (web,) = shop("2", 4).services
            second = web.model_copy(update={"image": "app:2"})
            scene.deploy(first.model_copy(update={"services": (second,)}))
            await scene.until(lambda: scene.rollout.stage == 1)
            scene.runtime.lost.add("app:2")
            await scene.until(lambda: scene.rollout.state is not RolloutState.ROLLING)
            assert scene.rollout.state is RolloutState.ROLLED_BACK, scene.story()
            assert "image app:2 is not on the engine" in scene.rollout.cause
            await scene.until(lambda: scene.revisions() == {scene.rollout.effective_revision: 4})
            assert scene.traffic.failed.get(compute_revision(second), 0) == 0

    run(main)


@pytest.mark.parametrize("forgotten", [False, True], ids=["stored", "lost"])
def test_a_revision_that_fails_after_a_step_and_a_kill_is_rolled_back(
    tmp_path: Path, forgotten: bool
) -> None:
    async def main() -> None:
        async with scene_in(tmp_path) as scene:
            scene.deploy(shop("1", 6))
            await scene.until(lambda: scene.rollout.state is RolloutState.DONE)
            await asyncio.sleep(12)
            second = shop("2", 6, update={"delay": 60})
            scene.deploy(second)
            await scene.until(lambda: scene.rollout.stage == 1)
            if forgotten:  # as a state from before there were stored trials
                with scene.control.store.transaction() as database:
                    database.execute("DELETE FROM canary_analysis")
            await scene.control.kill()
            scene.control = scene._started()
            await asyncio.sleep(5)
            assert scene.rollout.state is RolloutState.ROLLING, scene.story()
            name = scene.rollout.revision
            (bad,) = shop("2", 6, ERRORS="0.05").services
            scene.specs[name] = bad
            await scene.until(lambda: scene.rollout.state is not RolloutState.ROLLING)
            assert scene.rollout.state is RolloutState.ROLLED_BACK, scene.story()
            assert "of its requests failed" in scene.rollout.cause
            assert scene.traffic.failed[name] <= 30

    run(main)


def test_evidence_accumulates_over_short_lived_processes(tmp_path: Path) -> None:
    """The new revision gets about 2 requests a second: no process sees more than one failure."""

    async def main() -> None:
        async with scene_in(tmp_path, rate=100) as scene:
            scene.deploy(shop("1"))
            await scene.settled()
            await asyncio.sleep(12)
            scene.deploy(shop("2", ERRORS="0.2", rollout={"gate": {"warm": 0}}))
            most, seen = 0, 0
            for _ in range(60):
                if scene.rollout.state is not RolloutState.ROLLING:
                    break
                await scene.control.kill()
                scene.control = scene._started()
                await asyncio.sleep(2.2)
                failed = int(scene.traffic.failed.get(scene.rollout.revision, 0))
                most, seen = max(most, failed - seen), failed
                assert failed < 30, scene.story()
            assert scene.rollout.state is RolloutState.ROLLED_BACK, scene.story()
            assert most <= 2

    run(main)


def test_equal_revisions_pass_despite_many_kills(
    tmp_path: Path,
) -> None:
    async def main() -> None:
        async with scene_in(tmp_path) as scene:
            scene.deploy(shop("1", ERRORS="0.03"))
            await scene.settled()
            for version in range(2, 8):
                await asyncio.sleep(12)
                scene.deploy(shop(str(version), ERRORS="0.03", update={"delay": 15}))
                for _ in range(60):
                    if scene.rollout.state is not RolloutState.ROLLING:
                        break
                    await scene.control.kill()
                    scene.control = scene._started()
                    await asyncio.sleep(3)
                assert scene.rollout.state is RolloutState.DONE, scene.story()

    run(main)


def test_a_replica_that_was_just_started_is_not_reported_as_removed(tmp_path: Path) -> None:
    async def main() -> None:
        async with scene_in(tmp_path, rate=0) as scene:
            every = {"parallelism": 8, "monitor": 0}
            for version in range(8):
                scene.deploy(shop(str(version), 8, rollout={"gate": False}, update=every))
                await scene.until(lambda: scene.rollout.state is RolloutState.DONE)
            kinds = [event.kind for event in scene.control.events.since(0, 1000)]
            assert "replica.started" in kinds
            assert "replica.died" not in kinds, scene.story()

    run(main)


def test_a_full_disk_delays_a_rollout_but_not_healing(
    tmp_path: Path,
) -> None:
    async def main() -> None:
        async with scene_in(tmp_path) as scene:
            scene.deploy(shop("1"))
            await scene.settled()
            await asyncio.sleep(12)
            scene.deploy(shop("2"))
            database = scene.control.store.database
            database.execute("PRAGMA query_only = ON")  # no write succeeds
            await asyncio.sleep(30)
            assert scene.rollout.state is RolloutState.ROLLING
            old = [b for b in scene.runtime.boxes.values() if b.running]
            scene.runtime.end(old[0].seen.name, 1)
            await asyncio.sleep(30)
            scene.control.check()
            assert len([b for b in scene.runtime.boxes.values() if b.running]) >= 2
            database.execute("PRAGMA query_only = OFF")
            await scene.settled()
            assert scene.rollout.state is RolloutState.DONE, scene.story()
            assert scene.deaths == 0

    run(main)


def test_a_paused_rollout_stays_as_it_is_and_resumes_there(
    tmp_path: Path,
) -> None:
    async def main() -> None:
        async with scene_in(tmp_path) as scene:
            scene.deploy(shop("1"))
            await scene.settled()
            canary = shop("2", rollout={"strategy": "canary", "interval": 4, "steps": [0.25, 0.5]})
            scene.deploy(canary)
            await scene.until(lambda: scene.shares().get(scene.rollout.revision, 0) == 0.25)
            scene.rollouts().pause("shop", "web", "me")
            mix, shares = scene.revisions(), scene.shares()
            await asyncio.sleep(30)
            await scene.control.kill()
            scene.control = scene._started()
            await asyncio.sleep(30)
            assert (scene.revisions(), scene.shares()) == (mix, shares)
            assert scene.rollout.cause == "paused by me"
            with pytest.raises(Rejected, match="web has no rollout in progress"):
                scene.rollouts().pause("shop", "web", "me")
            assert scene.rollout.stage == 0
            scene.rollouts().resume("shop", "web", "me")
            await scene.until(lambda: scene.rollout.stage == 1)
            await scene.settled()
            assert scene.rollout.state is RolloutState.DONE
            kinds = [e.kind for e in scene.control.events.since(0, 1000) if "rollout" in e.kind]
            assert kinds[2:] == [
                "rollout.shifted", "rollout.paused", "rollout.resumed", "rollout.shifted",
                "rollout.shifted", "rollout.done",
            ][-len(kinds[2:]) :]  # fmt: skip

    run(main)


@pytest.mark.parametrize("started", [0, 1])
def test_a_project_with_a_paused_rollout_can_be_taken_down(tmp_path: Path, started: int) -> None:
    async def main() -> None:
        async with scene_in(tmp_path) as scene:
            scene.deploy(shop("1"))
            await scene.settled()
            scene.deploy(shop("2", rollout={"strategy": "canary", "steps": [0.5]}))
            await scene.until(lambda: len(scene.revisions()) == 1 + started)
            scene.rollouts().pause("shop", "web", "me")
            scene.control.store.leave("shop")
            await scene.until(lambda: not scene.runtime.boxes, 60)

    run(main)


def test_an_undo_restores_the_last_good_release_and_is_in_the_history(tmp_path: Path) -> None:
    async def main() -> None:
        async with scene_in(tmp_path) as scene:
            for version in ("1", "2"):
                scene.deploy(shop(version))
                await scene.settled()
            first, second = (compute_revision(shop(v).services[0]) for v in ("1", "2"))
            begun = await scene.rollouts().undo("shop", "web", 0, "you")
            assert (begun.number, begun.revision, begun.how) == (3, first, "undo")
            await scene.control.kill()
            scene.control = scene._started()
            took = await scene.settled()
            assert (scene.rollout.revision, scene.rollout.state) == (first, RolloutState.DONE)
            assert took < 15
            with pytest.raises(Rejected, match="runs already"):
                await scene.rollouts().undo("shop", "web", 1, "you")
            await scene.rollouts().undo("shop", "web", 2, "you")
            await scene.settled()
            assert scene.rollout.revision == second
            events = [
                (r.number, r.revision, r.who, r.how, r.changed, r.outcome)
                for r in reversed(scene.rollouts().releases("shop", "web", 10))
            ]
            assert events == [
                (1, first, "me", "deploy", "new service", "done"),
                (2, second, "me", "deploy", "environment V", "done"),
                (3, first, "me", "undo", "environment V", "done"),
                (4, second, "me", "undo", "environment V", "done"),
            ]

    run(main)


def test_blue_green_is_undone_at_once_while_old_replicas_are_kept(tmp_path: Path) -> None:
    async def main() -> None:
        async with scene_in(tmp_path) as scene:
            way = {"strategy": "blue-green", "keep": 60}
            scene.deploy(shop("1", rollout=way))
            await scene.settled()
            first = scene.rollout.revision
            scene.deploy(shop("2", rollout=way))
            second = scene.rollout.revision
            await scene.until(lambda: scene.revisions().get(second) == 2)
            assert scene.shares().get(second, 0.0) == 0.0
            await scene.until(lambda: scene.rollout.state is RolloutState.DONE)
            assert scene.shares() == {second: 1.0}
            assert scene.revisions() == {first: 2, second: 2}
            await scene.rollouts().undo("shop", "web", 0, "me")
            took = await scene.until(lambda: first not in shares_closed(scene))
            assert took < 1.0
            await scene.settled()
            assert scene.revisions() == {first: 2}

    def shares_closed(scene: Scene) -> set[str]:
        (service,) = scene.plane.held.services if scene.plane.held else ()
        ready = [e for e in service.endpoints if e.state == "ready"]
        served = sim_traffic.shares(ready, service.split)
        return {e.revision for e in ready} - served.keys()

    run(main)


@pytest.mark.parametrize(
    ("settings", "update", "most", "least"),
    [
        ({}, {}, 5, 4),
        ({"max_surge": "50%"}, {}, 6, 4),
        ({"max_surge": 0, "max_unavailable": "25%"}, {}, 4, 3),
        ({}, {"order": "stop-first", "parallelism": 2}, 4, 2),
        ({}, {"parallelism": 0}, 8, 4),
    ],
)
def test_a_rollout_keeps_within_surge_and_unavailable(
    tmp_path: Path, settings: dict[str, Any], update: dict[str, Any], most: int, least: int
) -> None:
    async def main() -> None:
        async with scene_in(tmp_path, rate=0) as scene:
            scene.deploy(shop("1", 4, rollout=settings, update=update))
            await scene.until(lambda: scene.rollout.state is RolloutState.DONE)
            scene.deploy(shop("2", 4, rollout=settings, update=update))
            running, ready = [], []

            def look() -> bool:
                (service,) = scene.plane.held.services if scene.plane.held else ()
                ready.append(sum(e.state == "ready" for e in service.endpoints))
                alive = [
                    r for r in scene.control.reconciler.view().observed.replicas if r.phase in ALIVE
                ]
                running.append(len(alive))
                return scene.rollout.state is RolloutState.DONE

            await scene.until(look)
            assert (max(running), min(ready)) == (most, least)

    run(main)


HOOKS = {"before": "migrate", "after": "smoke", "on_failure": "tell"}


@pytest.mark.parametrize(
    ("codes", "outcome", "ran", "started"),
    [
        ({}, "done", ["before", "after"], 2),
        ({"migrate": 1}, "rolled-back", ["before", "failure"], 0),
        ({"smoke": 1}, "rolled-back", ["before", "after", "failure"], 2),
    ],
)
def test_hooks_run_once_each_and_can_stop_a_rollout(
    tmp_path: Path, codes: dict[str, int], outcome: str, ran: list[str], started: int
) -> None:
    async def main() -> None:
        number = 0
        while True:
            directory = tmp_path / str(number)
            directory.mkdir()
            async with scene_in(directory, rate=0) as scene:
                scene.deploy(shop("1"))
                await scene.settled()
                scene.jobs.codes.update(codes)
                before = scene.runtime.started
                scene.operations.clear()
                scene.kill_at = number
                second = shop("2", rollout=HOOKS)
                scene.deploy(second)
                await scene.settled()
                await scene.until(lambda s=scene: len(s.jobs.begun) == len(ran))  # type: ignore[misc]
                assert scene.rollout.state.word == outcome, scene.story()
                assert list(scene.jobs.begun) == [f"shop-web-{word}-2" for word in ran]
                names = {hook.revision for hook, _ in scene.jobs.begun.values()}
                assert names == {compute_revision(second.services[0])}
                if outcome != "done":
                    assert scene.rollout.cause == "last words"
                if not scene.deaths:
                    assert scene.runtime.started - before == started + (
                        2 if started and outcome != "done" else 0
                    )
                    return
                number += 1
                assert number < 60

    run(main)


def test_a_failed_hook_of_a_first_deployment_starts_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        async with scene_in(tmp_path, rate=0) as scene:
            scene.jobs.codes["migrate"] = 1
            scene.deploy(shop("1", rollout=HOOKS))
            await scene.until(lambda: scene.rollout.state is RolloutState.HALTED)
            await asyncio.sleep(10)
            assert not scene.runtime.boxes
            (service,) = scene.control.reconciler.view().desired.services
            progress = deployment_progress(service, (), (), scene.rollout.cause, "")
            assert (progress.settled, progress.ok, progress.text) == (
                True,
                False,
                "web is paused: last words",
            )
            scene.jobs.codes.clear()
            scene.deploy(shop("1", rollout=HOOKS))
            await scene.settled()
            assert scene.rollout.state is RolloutState.DONE

    run(main)
