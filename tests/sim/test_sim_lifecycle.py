"""One-shot services, hooks in containers and the end of a project, in virtual time."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from meshd.model.replica_phase import Phase
from meshd.model.request import ReplaceReplicas, RunPass
from meshd.reconcile.progress import deployment_progress, service_state
from meshd.spec.model import Project
from tests.fakes.rollout_scene import Scene, run, scene_in

DOWN_SECONDS = 60.0
"""Longer than the drain and the grace period of every service here together."""


def project(**services: dict[str, Any]) -> Project:
    """A project of plain services; `do` is how a container behaves."""
    specs = []
    for name, given in services.items():
        environment = {"BEHAVE": given.pop("do", "good"), "V": given.pop("version", "1")}
        environment |= given.pop("environment", {})
        fields = {"name": name, "image": "app", "plain": True, "stop_grace_period": 2, **given}
        specs.append({**fields, "environment": environment})
    return Project.model_validate({"name": "shop", "services": specs})


def names(scene: Scene, service: str) -> list[str]:
    return sorted(n for n, box in scene.runtime.boxes.items() if box.seen.service == service)


def state(scene: Scene, service: str) -> str:
    view = scene.control.reconciler.view()
    found = view.service(f"shop/{service}")
    assert found is not None
    group = [r for r in view.observed.replicas if r.service == service]
    waiting = dict(view.plan.waiting).get(found.key, "")
    return service_state(found, group, waiting, {})


def progress(scene: Scene, service: str) -> tuple[bool, bool, str]:
    view = scene.control.reconciler.view()
    found = view.service(f"shop/{service}")
    assert found is not None
    group = [r for r in view.observed.replicas if r.service == service]
    failures = view.observed.failures.get((found.key, found.revision), ())
    result = deployment_progress(
        found,
        group,
        failures,
        found.rollout.cause,
        dict(view.plan.waiting).get(found.key, ""),
        dict(view.plan.blocked).get(found.key, ""),
        view.observed.outputs_kept,
    )
    return result.settled, result.ok, result.text


async def restart(scene: Scene) -> None:
    await scene.control.die()
    scene.control = scene._started()


MIGRATED = {"depends_on": ["migrate"], "wait_completed": ["migrate"]}


def test_a_one_shot_service_runs_once_for_each_revision(tmp_path: Path) -> None:
    async def main() -> None:
        async with scene_in(tmp_path) as scene:
            first = project(migrate={"do": "once"}, web=dict(MIGRATED))
            scene.deploy(first)
            await scene.until(lambda: state(scene, "web") == "ok")
            (name,) = names(scene, "migrate")
            assert state(scene, "migrate") == "completed"
            assert progress(scene, "migrate") == (True, True, "migrate: 1 completed")
            started = scene.runtime.started
            await restart(scene)
            await asyncio.sleep(30)
            scene.deploy(first)
            await asyncio.sleep(30)
            assert names(scene, "migrate") == [name]
            assert scene.runtime.started == started, "it ran again without a change"
            (web,) = names(scene, "web")
            scene.deploy(
                project(migrate={"do": "once", "version": "2"}, web={**MIGRATED, "version": "2"})
            )
            await scene.until(lambda: names(scene, "web") not in ([web], []))
            migrated = [each for each in names(scene, "migrate") if each != name]
            assert [scene.runtime.boxes[each].seen.exit_code for each in migrated] == [0]
            await scene.until(lambda: len(names(scene, "migrate")) == 1)

    run(main)


def test_dependents_fail_with_a_failed_one_shot_service(tmp_path: Path) -> None:
    async def main() -> None:
        async with scene_in(tmp_path) as scene:
            failing = {"do": "once", "environment": {"CODE": "3"}}
            scene.deploy(project(migrate=failing, web=dict(MIGRATED)))
            await scene.until(lambda: progress(scene, "web")[0])
            settled, ok, text = progress(scene, "migrate")
            assert settled
            assert not ok
            assert "exited with code 3" in text
            assert progress(scene, "web") == (
                True, False, "web: depends on migrate, which has failed (exit code 3)"
            )  # fmt: skip
            assert state(scene, "migrate") == "failed"
            records = scene.control.reconciler.view().failures.values()
            assert [record.lines for record in records] == [("last line",)]
            (name,) = names(scene, "migrate")
            await restart(scene)
            await asyncio.sleep(20)
            assert names(scene, "migrate") == [name], "it was restarted"
            scene.deploy(project(migrate=failing, web=dict(MIGRATED)))
            await scene.until(lambda: names(scene, "migrate") not in ([name], []))

    run(main)


def test_a_failed_migration_stops_the_rollout_of_its_dependents(tmp_path: Path) -> None:
    async def main() -> None:
        async with scene_in(tmp_path) as scene:
            scene.deploy(project(migrate={"do": "once"}, web=dict(MIGRATED)))
            await scene.until(lambda: state(scene, "web") == "ok")
            (migrated,), (web,) = names(scene, "migrate"), names(scene, "web")
            scene.deploy(
                project(
                    migrate={"do": "once", "version": "2", "environment": {"CODE": "1"}},
                    web={**MIGRATED, "version": "2"},
                )
            )
            rollouts = scene.control.store.rollouts
            await scene.until(lambda: rollouts["shop/web"].is_rolling_back)
            await asyncio.sleep(20)
            assert names(scene, "web") == [web], "the service that works was replaced"
            assert names(scene, "migrate") == [migrated], "the old migration ran again"
            assert "whose rollout failed" in rollouts["shop/web"].cause

    run(main)


def test_a_job_is_not_done_before_it_ended(tmp_path: Path) -> None:
    async def main() -> None:
        async with scene_in(tmp_path) as scene:
            working = {"do": "once", "environment": {"SECONDS": "20"}, "mode": "replicated-job"}
            scene.deploy(project(job={**working, "replicas": 2}))
            await asyncio.sleep(10)
            assert not progress(scene, "job")[0]
            await scene.until(lambda: progress(scene, "job")[0])
            assert progress(scene, "job") == (True, True, "job: 2 completed")

    run(main)


def test_restarts_after_failures_are_limited(tmp_path: Path) -> None:
    async def main() -> None:
        async with scene_in(tmp_path) as scene:
            policy = {"condition": "on-failure", "max_attempts": 2}
            failing = {"do": "once", "environment": {"CODE": "1"}, "restart": policy}
            scene.deploy(project(job=failing))
            await scene.until(lambda: state(scene, "job") == "failed")
            await asyncio.sleep(120)
            assert scene.runtime.started == 3
            assert state(scene, "job") == "failed"

    run(main)


def test_commands_run_after_the_start_and_before_the_stop(tmp_path: Path) -> None:
    async def main() -> None:
        async with scene_in(tmp_path) as scene:
            hooks: dict[str, Any] = {
                "post_start": [{"command": ["seed"]}],
                "pre_stop": [{"command": ["flush"]}],
            }
            scene.deploy(
                project(db=dict(hooks), web={"depends_on": ["db"], "wait_healthy": ["db"]})
            )
            await scene.until(lambda: bool(names(scene, "web")))
            (db,) = names(scene, "db")
            assert scene.runtime.executed == [(db, "seed")]
            scene.deploy(project(db={**hooks, "version": "2"}))
            await scene.until(lambda: names(scene, "db") not in ([db], []))
            assert (db, "flush") in scene.runtime.executed

    run(main)


def test_a_replica_whose_command_fails_is_stopped_and_tried_again(tmp_path: Path) -> None:
    async def main() -> None:
        async with scene_in(tmp_path) as scene:
            scene.deploy(project(db={"post_start": [{"command": ["fail"]}]}))
            await scene.until(lambda: progress(scene, "db")[0])
            _, ok, text = progress(scene, "db")
            assert not ok, scene.story()
            assert "'fail' exited with code 1: last line of the command" in text
            assert scene.runtime.started >= 3
            events = [event.text for event in scene.control.events.since(0, 1000)]
            assert not any("removed by something other" in text for text in events)

    run(main)


def test_a_stop_does_not_wait_for_a_command_that_hangs(tmp_path: Path) -> None:
    async def main() -> None:
        async with scene_in(tmp_path) as scene:
            scene.deploy(project(db={"pre_stop": [{"command": ["hang"]}]}))
            await scene.until(lambda: state(scene, "db") == "ok")
            scene.control.store.leave("shop")
            took = await scene.until(lambda: not scene.control.store.projects)
            assert took < 15
            events = [event.text for event in scene.control.events.since(0, 1000)]
            assert any("pre_stop" in text and "did not end" in text for text in events)

    run(main)


STATES: dict[str, dict[str, Any]] = {
    "ready": {},
    "completed": {"do": "once"},
    "failed": {"do": "once", "environment": {"CODE": "1"}},
    "crash-loop": {"do": "crash", "restart": {"condition": "any"}},
    "in a command": {"post_start": [{"command": ["hang"]}]},
    "unhealthy": {"do": "good", "healthcheck": {"test": ["CMD", "x"]}},
    "waiting": {"depends_on": ["other"], "wait_completed": ["other"]},
    "paused": {},
}


@pytest.mark.parametrize("name", STATES)
@pytest.mark.parametrize("restarted", [False, True], ids=["", "new control process"])
def test_a_project_goes_down_in_every_state(tmp_path: Path, name: str, restarted: bool) -> None:
    async def main() -> None:
        async with scene_in(tmp_path) as scene:
            others = {"other": {}} if name == "waiting" else {}
            scene.deploy(project(web=dict(STATES[name]), **others))
            await asyncio.sleep(10)
            if name == "paused":
                scene.runtime.pause_by_others(names(scene, "web")[0])
            if restarted:
                await restart(scene)
                await asyncio.sleep(1)
            scene.control.store.leave("shop")
            scene.control.reconciler.request(RunPass())
            await scene.until(lambda: not scene.control.store.projects, DOWN_SECONDS)
            assert not scene.runtime.boxes

    run(main)


def test_a_plain_service_starts_and_stops_without_workers(tmp_path: Path) -> None:
    """Its traffic does not pass through the mesh."""

    async def main() -> None:
        async with scene_in(tmp_path) as scene:
            scene.plane.disconnect()
            scene.deploy(project(db={}))
            await scene.until(lambda: state(scene, "db") == "ok")
            (replica,) = scene.control.reconciler.view().observed.replicas
            assert replica.phase is Phase.READY
            scene.deploy(project(db={"version": "2"}))
            took = await scene.until(
                lambda: names(scene, "db") not in ([replica.name], []), DOWN_SECONDS
            )
            assert took < 10

    run(main)


def test_a_restart_by_hand_continues_in_the_next_control_process(tmp_path: Path) -> None:
    async def main() -> None:
        async with scene_in(tmp_path) as scene:
            scene.deploy(project(web={"replicas": 3}))
            await scene.until(lambda: state(scene, "web") == "ok")
            before = set(names(scene, "web"))
            cause = "restarted by ops"
            scene.control.reconciler.request(ReplaceReplicas(tuple(before), cause))
            await scene.until(lambda: not before <= set(names(scene, "web")))
            await restart(scene)
            await scene.until(lambda: before.isdisjoint(names(scene, "web")))
            await scene.until(lambda: state(scene, "web") == "ok")
            after = set(names(scene, "web"))
            await restart(scene)
            await asyncio.sleep(30)
            assert set(names(scene, "web")) == after, "they were replaced again"

    run(main)
