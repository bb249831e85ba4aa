"""Deployments that wait or pull while their project is taken down or deployed by someone else."""

import asyncio
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from meshd.control.deploy.admission import Admission
from meshd.control.deploy.deployments import Deployments
from meshd.control.deploy.preview import Preview
from meshd.control.lookup import Lookup
from meshd.control.rollouts import RolloutManager
from meshd.model.errors import NotFound, Rejected
from meshd.model.release import Release
from meshd.model.replica_phase import Phase
from meshd.spec.model import Mount, Project, Service
from meshd.store.releases import Releases
from meshd.store.traffic import TrafficLog
from meshd.telemetry.release_counts import ReleaseCounter
from tests.fakes import virtual
from tests.fakes.rollout_scene import Scene, run, scene_in, shop


class Users:
    """Users of one control process. Pulls wait while `pull_open` is clear, and the removal of
    networks takes `teardown_seconds`."""

    def __init__(self, scene: Scene) -> None:
        control, runtime = scene.control, scene.runtime
        self.scene = scene
        self.store = control.store
        self.pulls = 0
        self.is_ending = False
        self.pull_open = asyncio.Event()
        self.pull_open.set()
        self.teardown_seconds = 0.0
        self.torn_down: list[str] = []
        self.prepared: list[str] = []
        traffic = TrafficLog(self.store)
        preview = Preview(
            self.store, traffic, control.reconciler, random.Random(0), runtime.capabilities.pause
        )
        admission = Admission(
            runtime, self.store, control.reconciler, preview, list, list, virtual.clock
        )
        self.deployments = Deployments(
            capabilities=runtime.capabilities,
            store=self.store,
            events=control.events,
            reconciler=control.reconciler,
            claims=control.claims,
            lookup=Lookup(self.store, control.reconciler),
            admission=admission,
            preview=preview,
            is_ending=lambda: self.is_ending,
            clock=virtual.clock,
        )
        releases = Releases(self.store)
        self._rollouts = RolloutManager(
            self.store,
            releases,
            ReleaseCounter(releases, releases.in_progress),
            control.events,
            control.reconciler,
            self.deployments.undo,
            virtual.clock,
        )
        runtime.resolve = self._resolve  # type: ignore[method-assign]
        runtime.teardown = self._tear_down  # type: ignore[method-assign]
        prepare = runtime.prepare

        async def prepare_noted(project: str, service: Service, networks: object = ()) -> None:
            self.prepared.append(project)
            await prepare(project, service)

        runtime.prepare = prepare_noted  # type: ignore[method-assign]

    async def _resolve(self, services: Sequence[Service], fetch: bool = False) -> Sequence[Service]:
        self.pulls += 1
        await self.pull_open.wait()
        return services

    async def _tear_down(self, project: str) -> None:
        await asyncio.sleep(self.teardown_seconds)
        self.torn_down.append(project)

    def deploy(self, project: Project) -> "asyncio.Task[None]":
        """Deploy as a handler does whose client may leave: nothing cancels it."""
        return asyncio.ensure_future(self.deployments.deploy(project, "me"))

    async def deploy_pulling(self, project: Project) -> "asyncio.Task[None]":
        """Begin a deployment, and return while it pulls."""
        before = self.pulls
        self.pull_open.clear()
        task = self.deploy(project)
        await self.scene.until(lambda: self.pulls > before)
        return task

    async def undo(self) -> Release:
        return await self._rollouts.undo("shop", "web", 0, "you")

    async def down(self) -> None:
        async with asyncio.timeout(60):
            await self.deployments.down("shop")

    async def settle(self) -> None:
        """Wait until what was deployed runs."""
        control = self.scene.control
        await self.scene.until(
            lambda: (
                not self.scene.rollout.is_unfinished
                and sum(r.phase is Phase.READY for r in control.reconciler.view().observed.replicas)
                == 2
            )
        )


def named(name: str, version: str = "1") -> Service:
    """A service like that of the shop, without routes."""
    (web,) = shop(version).services
    mesh = web.mesh.model_copy(update={"routes": ()})
    return web.model_copy(update={"name": name, "mesh": mesh})


async def running_shop(scene: Scene) -> Users:
    users = Users(scene)
    await users.deploy(shop("1"))
    await users.settle()
    return users


def test_a_deployment_that_pulls_does_not_bring_a_project_back(tmp_path: Path) -> None:
    async def main() -> None:
        async with scene_in(tmp_path) as scene:
            users = await running_shop(scene)
            orphan = await users.deploy_pulling(shop("2"))
            await users.down()
            assert (scene.runtime.boxes, dict(users.store.projects)) == ({}, {})
            before = len(users.prepared)
            users.pull_open.set()
            with pytest.raises(Rejected, match="shop was taken down while this deployment was"):
                await orphan
            await asyncio.sleep(20)
            assert (scene.runtime.boxes, dict(users.store.projects)) == ({}, {})
            assert (len(users.prepared), scene.runtime.claimed) == (before, {})

    run(main)


def test_a_deployment_that_waits_for_another_one_does_not_either(tmp_path: Path) -> None:
    async def main() -> None:
        async with scene_in(tmp_path) as scene:
            users = await running_shop(scene)
            other = await users.deploy_pulling(Project(name="other", services=(named("db"),)))
            orphan = users.deploy(shop("2"))
            await asyncio.sleep(1)
            await users.down()
            users.pull_open.set()
            await other
            with pytest.raises(Rejected, match="was taken down"):
                await orphan
            assert list(users.store.projects) == ["other"]

    run(main)


def test_a_first_deployment_that_pulls_is_taken_down(tmp_path: Path) -> None:
    async def main() -> None:
        async with scene_in(tmp_path) as scene:
            users = Users(scene)
            with pytest.raises(NotFound, match="no project shop"):
                await users.down()
            orphan = await users.deploy_pulling(shop("1"))
            await users.down()
            users.pull_open.set()
            with pytest.raises(Rejected, match="was taken down"):
                await orphan
            assert dict(users.store.projects) == {}
            await users.deploy(shop("1"))
            await users.settle()

    run(main)


def test_a_deployment_does_not_end_a_down_that_waits(tmp_path: Path) -> None:
    async def main() -> None:
        async with scene_in(tmp_path) as scene:
            users = await running_shop(scene)
            orphan = await users.deploy_pulling(shop("2"))
            down = asyncio.ensure_future(users.down())
            await scene.until(lambda: users.store.projects["shop"].leaving)
            users.pull_open.set()
            with pytest.raises(Rejected, match="was taken down"):
                await orphan
            await down
            assert (scene.runtime.boxes, dict(users.store.projects)) == ({}, {})

    run(main)


def test_a_project_deployed_right_after_its_end_stays(tmp_path: Path) -> None:
    async def main() -> None:
        async with scene_in(tmp_path) as scene:
            users = await running_shop(scene)
            users.teardown_seconds = 12.6
            orphan = await users.deploy_pulling(shop("2"))
            down = asyncio.ensure_future(users.down())
            await scene.until(lambda: not scene.runtime.boxes)
            users.pull_open.set()
            with pytest.raises(Rejected, match="was taken down"):
                await orphan
            assert users.store.projects["shop"].leaving
            with pytest.raises(Rejected, match="is being taken down; try again once it is gone"):
                await users.deploy(shop("3"))
            while "shop" in users.store.projects:
                await asyncio.sleep(0.001)
            # Stored between two looks of `down` at whether it is gone.
            users.store.deploy(shop("3"), {"web": "r3"}, "me", "", virtual.clock())
            await down
            assert scene.runtime.claimed
            assert list(users.store.projects) == ["shop"]

    run(main)


def test_what_was_stored_during_the_end_of_a_project_is_not_forgotten(tmp_path: Path) -> None:
    async def main() -> None:
        async with scene_in(tmp_path) as scene:
            users = await running_shop(scene)
            users.teardown_seconds = 12.6
            down = asyncio.ensure_future(users.down())
            await scene.until(lambda: not scene.runtime.boxes)
            await asyncio.sleep(5)
            scene.deploy(shop("2"))
            await down
            await asyncio.sleep(20)
            assert users.torn_down == ["shop"]
            assert list(users.store.projects) == ["shop"]

    run(main)


def test_a_daemon_that_ends_stores_no_deployment(tmp_path: Path) -> None:
    async def main() -> None:
        async with scene_in(tmp_path) as scene:
            users = await running_shop(scene)
            stored = users.store.projects["shop"]
            late = await users.deploy_pulling(shop("2"))
            users.is_ending = True
            pulls = users.pulls
            for refused in (users.deploy(shop("3")), users.undo()):
                with pytest.raises(Rejected, match="this daemon is ending; `meshd up` starts"):
                    await refused
            users.pull_open.set()
            with pytest.raises(Rejected, match="is ending"):
                await late
            assert (users.pulls, users.store.projects["shop"]) == (pulls, stored)

    run(main)


def test_an_undo_starts_from_the_deployment_that_it_waited_for(tmp_path: Path) -> None:
    def with_cache(version: str) -> Project:
        (web,) = shop(version).services
        return shop(version).model_copy(update={"services": (web, named("cache", version))})

    async def main() -> None:
        async with scene_in(tmp_path) as scene:
            users = await running_shop(scene)
            newer = await users.deploy_pulling(with_cache("2"))
            undo = asyncio.ensure_future(users.undo())
            await asyncio.sleep(1)
            users.pull_open.set()
            await newer
            assert (await undo).number == 3
            web, cache = users.store.projects["shop"].project.services
            assert web.environment["V"] == "1"
            assert cache.environment["V"] == "2"

    run(main)


def test_what_a_swarm_does_not_accept_is_refused_at_the_deployment(tmp_path: Path) -> None:
    """Its names, and the sizes of its secrets and configs."""
    empty, large = tmp_path / "empty", tmp_path / "large"
    empty.touch()
    large.write_bytes(bytes(512_000))
    mounts = [
        Mount(type="bind", source=str(file), target=f"/run/{file.name}", version="1")
        for file in (empty, large, tmp_path / "on-another-host")
    ]
    mounts.append(Mount(type="file", target="/etc/none.conf", content=""))

    async def main() -> None:
        async with scene_in(tmp_path) as scene:
            runtime = scene.runtime
            runtime.capabilities = replace(runtime.capabilities, swarm=True)
            users = Users(scene)
            web = named("web.api").model_copy(update={"volumes": tuple(mounts)})
            with pytest.raises(Rejected) as raised:
                await users.deploy(shop("1").model_copy(update={"services": (web,)}))
            config, name, first, second = str(raised.value).split("; service")
            assert config.startswith("service web.api: the secret or config at /etc/none.conf is")
            assert name.startswith("s.web.api: its replicas and jobs would have names like")
            assert f"{empty}, the secret or config at /run/empty, is empty, and" in first
            assert "at /run/large, has 512000 bytes, and a Swarm accepts at most 511999" in second
            assert dict(users.store.projects) == {}

    run(main)
