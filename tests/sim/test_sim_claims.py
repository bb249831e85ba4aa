"""Two meshes on one runtime, in virtual time: neither touches the other's replicas."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from meshd.model.request import ReloadDesired
from meshd.model.runtime import ObservedReplica, ReplicaState
from meshd.reconcile.ownership.claims import ProjectHeldElsewhere
from meshd.spec.fingerprint import compute_revision
from meshd.spec.labels import COMPOSE_PROJECT, INSTANCE, SERVICE
from meshd.spec.model import Project
from meshd.store.events import EventLog
from meshd.store.store import Store
from tests.fakes import virtual
from tests.fakes.reconciler import ControlLife
from tests.fakes.sim_plane import SimPlane
from tests.fakes.sim_runtime import Box, SimRuntime


class Mesh:
    """One mesh with its own state."""

    def __init__(self, directory: Path, runtime: SimRuntime, adopts: bool = True) -> None:
        directory.mkdir(exist_ok=True)
        self.store = Store(directory)
        self.store.open()
        self.events = EventLog(self.store)
        self.events.open()
        life = ControlLife(runtime=runtime, store=self.store, events=self.events, adopts=adopts)
        self.reconciler, self.claims = life.reconciler, life.claims
        plane = SimPlane(runtime, random.Random(1), workers=1, drain=1.0)
        plane.connect(life.publisher)
        parts = (life.watch.run(), self.reconciler.run(), plane.run())
        self._tasks = [asyncio.ensure_future(part) for part in parts]

    async def deploy(self, name: str, replicas: int = 2, take_over: bool = False) -> None:
        service = {"name": "web", "image": "app", "replicas": replicas}
        project = Project.model_validate({"name": name, "services": [service]})
        async with self.claims.deploying(name, take_over):
            revisions = {each.name: compute_revision(each) for each in project.services}
            self.store.deploy(project, revisions, "test", "", virtual.clock())
            self.reconciler.request(ReloadDesired())

    def event_texts(self, kind: str) -> list[str]:
        return [event.text for event in self.events.since(0, 1000) if event.kind == kind]

    async def end(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.store.close()


@asynccontextmanager
async def meshes(
    folder: Path, runtime: SimRuntime, *names: str, adopts: bool = True
) -> AsyncIterator[list[Mesh]]:
    made = [Mesh(folder / name, runtime, adopts) for name in names]
    await asyncio.sleep(1.0)
    try:
        yield made
    finally:
        for mesh in made:
            await mesh.end()


def sim() -> SimRuntime:
    runtime = SimRuntime(random.Random(7))
    runtime.bad_luck = 0.0
    return runtime


def names(runtime: SimRuntime, project: str) -> set[str]:
    return {n for n, box in runtime.boxes.items() if box.seen.project == project and box.running}


def theirs(runtime: SimRuntime) -> None:
    """Return a container as docker-compose starts it, with its labels."""
    marks = {COMPOSE_PROJECT: "old", SERVICE: "web", "mesh.scale.min": "2", "mesh.scale.max": "3"}
    seen = ObservedReplica(
        "old_web_1", "id", "old", "web", "r", ReplicaState.RUNNING, managed=False,
        host="10.0.0.9", port=999, created_at=1.0, started_at=1.0, labels=marks,
    )  # fmt: skip
    runtime.boxes[seen.name] = Box(seen, "good", 0.0)


def test_two_meshes_with_separate_projects(tmp_path: Path) -> None:
    async def story() -> None:
        runtime = sim()
        async with meshes(tmp_path, runtime, "a", "b") as (a, b):
            await a.deploy("shop")
            await b.deploy("bank", replicas=3)
            await asyncio.sleep(30.0)
            assert len(names(runtime, "shop")) == 2
            assert len(names(runtime, "bank")) == 3
            assert runtime.started == 5
            assert runtime.stopped == []
            started_by = {
                box.seen.project: box.seen.labels[INSTANCE] for box in runtime.boxes.values()
            }
            assert started_by == {"shop": a.store.instance(), "bank": b.store.instance()}
            with pytest.raises(
                ProjectHeldElsewhere, match=f"held by the mesh with its state in {tmp_path}/a"
            ):
                await b.deploy("shop")
            with pytest.raises(ProjectHeldElsewhere, match="which runs"):
                await b.deploy("shop", take_over=True)
            assert set(runtime.claimed) == {"shop", "bank"}

    virtual.run(story())


def test_a_project_of_a_lost_state_is_taken_over_only_on_request(tmp_path: Path) -> None:
    async def story() -> None:
        runtime = sim()
        async with meshes(tmp_path, runtime, "a") as (a,):
            await a.deploy("shop")
            await asyncio.sleep(10.0)
        before = names(runtime, "shop")
        async with meshes(tmp_path, runtime, "b") as (b,):
            with pytest.raises(
                ProjectHeldElsewhere, match="does not run; start that mesh again with --state"
            ):
                await b.deploy("shop")
            await b.deploy("shop", take_over=True)
            await asyncio.sleep(20.0)
            assert names(runtime, "shop") == before, "what runs right is kept"
            # The first one comes back, and finds that it is not its any more.
            async with meshes(tmp_path, runtime, "a") as (a,):
                await asyncio.sleep(20.0)
                (text,) = a.event_texts("claim.refused")
                assert f"{tmp_path}/b" in text
                assert a.claims.refusals["shop"] in text
                assert a.reconciler.view().desired.services == ()
            assert names(runtime, "shop") == before
            assert runtime.stopped == []

    virtual.run(story())


def test_a_pruned_claim_is_restored(tmp_path: Path) -> None:
    async def story() -> None:
        runtime = sim()
        async with meshes(tmp_path, runtime, "a", "b") as (a, b):
            await a.deploy("shop")
            await asyncio.sleep(10.0)
            runtime.claimed.clear()
            with pytest.raises(
                ProjectHeldElsewhere, match="has replicas of the mesh with instance"
            ):
                await b.deploy("shop")
            await asyncio.sleep(15.0)
            assert runtime.claimed["shop"].instance == a.store.instance()

    virtual.run(story())


def test_replicas_older_than_claims_belong_to_the_mesh(tmp_path: Path) -> None:
    async def story() -> None:
        runtime = sim()
        async with meshes(tmp_path, runtime, "a") as (a,):
            await a.deploy("shop")
            await asyncio.sleep(10.0)
        runtime.claimed.clear()
        for box in runtime.boxes.values():
            box.seen = replace(box.seen, labels={})
        before = names(runtime, "shop")
        async with meshes(tmp_path, runtime, "a") as (a,):
            await asyncio.sleep(20.0)
            assert names(runtime, "shop") == before
            assert runtime.claimed["shop"].instance == a.store.instance()

    virtual.run(story())


def test_only_one_mesh_adopts(tmp_path: Path) -> None:
    async def story() -> None:
        runtime = sim()
        async with meshes(tmp_path, runtime, "a") as (a,):
            theirs(runtime)
            await asyncio.sleep(20.0)
            assert [service.key for service in a.reconciler.view().desired.services] == ["old/web"]
            assert len(names(runtime, "old")) == 2, "one copy"
            async with meshes(tmp_path, runtime, "b") as (b,):
                await asyncio.sleep(20.0)
                assert b.reconciler.view().desired.services == ()
                assert len(b.event_texts("claim.refused")) == 1
            assert len(names(runtime, "old")) == 2
        # The one that adopted was killed: another continues with it.
        async with meshes(tmp_path, runtime, "b") as (b,):
            await asyncio.sleep(20.0)
            assert [service.key for service in b.reconciler.view().desired.services] == ["old/web"]
            runtime.remove_by_others("old_web_1")
            await asyncio.sleep(60.0)
            assert names(runtime, "old") == set()
            assert runtime.claimed == {}

    virtual.run(story())


def test_a_mesh_that_does_not_adopt(tmp_path: Path) -> None:
    async def story() -> None:
        runtime = sim()
        async with meshes(tmp_path, runtime, "a", adopts=False) as (a,):
            theirs(runtime)
            await a.deploy("shop")
            await asyncio.sleep(20.0)
            assert [service.key for service in a.reconciler.view().desired.services] == ["shop/web"]
            assert names(runtime, "old") == {"old_web_1"}
            assert set(runtime.claimed) == {"shop"}

    virtual.run(story())
