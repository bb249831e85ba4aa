"""A simulated mesh: the control path on a simulated runtime and data plane, in virtual time.

Used by the tests in `tests/sim/`. `ControlLife` is one life of the control process; `SimRuntime`
and `SimPlane` are the parts around it.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

from meshd.model.request import DrainRequest, ReloadDesired, RunPass
from meshd.model.rollout import Override, RolloutState
from meshd.model.runtime import ContainerHealth, ReplicaState
from meshd.reconcile.execute.apply import RolloutHooks
from meshd.reconcile.rollout.analysis_feed import TrafficSource
from meshd.spec.fingerprint import compute_revision
from meshd.spec.model import Project
from meshd.store.events import EventLog
from meshd.store.store import Store
from tests.fakes import virtual
from tests.fakes.reconciler import ControlLife
from tests.fakes.sim_plane import SimPlane
from tests.fakes.sim_runtime import READY, SimRuntime

DRAIN = 3.0
"""Seconds that a replica may take to finish its requests."""
SERVICES = ("front", "back")


class Control:
    """One run of the control process."""

    def __init__(
        self,
        directory: Path,
        runtime: SimRuntime,
        plane: SimPlane,
        hooks: RolloutHooks | None = None,
        traffic: TrafficSource | None = None,
        start_slots: Callable[[], int] = int,
    ) -> None:
        self.store = Store(directory)
        self.store.open()
        self.events = EventLog(self.store)
        self.events.open()
        life = ControlLife(
            runtime=runtime,
            store=self.store,
            events=self.events,
            held_snapshot=plane.held,
            hooks=hooks,
            traffic=traffic,
            dice=random.Random(runtime.dice.random()),
            start_slots=start_slots,
        )
        self.reconciler = life.reconciler
        self.claims = life.claims
        plane.connect(life.publisher)
        self._plane = plane
        self._tasks = [
            asyncio.ensure_future(life.watch.run()),
            asyncio.ensure_future(self.reconciler.run()),
        ]

    def check(self) -> None:
        for task in self._tasks:
            if task.done():
                task.result()

    async def kill(self) -> None:
        self.check()
        await self.die()

    async def die(self) -> None:
        """End at once, in the middle of whatever it does."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._plane.disconnect()
        self.store.close()


class Scene:
    """A mesh, its users, and random failures."""

    def __init__(self, directory: Path, seed: int) -> None:
        random.seed(seed)
        self.dice = random.Random(seed)
        self.directory = directory
        self.runtime = SimRuntime(random.Random(seed + 1))
        self.plane = SimPlane(self.runtime, random.Random(seed + 2), workers=2, drain=DRAIN)
        self.control = Control(directory, self.runtime, self.plane)
        self.version = 0
        self.log: list[str] = []
        self._plane_task = asyncio.ensure_future(self.plane.run())

    async def close(self) -> None:
        await self.control.kill()
        self._plane_task.cancel()
        with suppress(asyncio.CancelledError):
            await self._plane_task

    def project(self, behave: str = "good", order: str = "start-first") -> Project:
        self.version += 1
        return Project.model_validate(
            {
                "name": "shop",
                "services": [
                    {
                        "name": name,
                        "image": "app",
                        "environment": {"V": str(self.version), "BEHAVE": behave},
                        "replicas": 3,
                        "stop_grace_period": 1,
                        "depends_on": ["back"] if name == "front" else [],
                        "update": {"order": order, "parallelism": self.dice.randint(1, 2)},
                        "mesh": {"drain": DRAIN, "health": {"start_timeout": 5, "ready": READY}},
                    }
                    for name in SERVICES
                ],
            }
        )

    def deploy(self, project: Project) -> None:
        revisions = {service.name: compute_revision(service) for service in project.services}
        self.control.store.deploy(project, revisions, "test", "", virtual.clock())
        self.control.reconciler.request(ReloadDesired())

    async def step(self) -> None:
        """Run one random operation or failure."""
        actions: tuple[Callable[[], Awaitable[None]], ...] = (
            self._deploy, self._deploy, self._scale, self._kill, self._kill, self._stop,
            self._remove, self._hang, self._engine, self._restart, self._restart, self._worker,
            self._drain, self._pause, self._duplicate, self._change, self._out_of_memory,
            self._unhealthy, self._unready, self._pause_rollout, self._resume_rollout,
        )  # fmt: skip
        action = self.dice.choice(actions)
        self.log.append(f"{virtual.clock() - virtual.EPOCH:.1f} {action.__name__}")
        await action()
        self.control.check()

    def _box(self) -> str | None:
        names = [n for n, box in self.runtime.boxes.items() if box.running]
        return self.dice.choice(sorted(names)) if names else None

    async def _deploy(self) -> None:
        behave = self.dice.choice(("good", "good", "crash", "late", "sick", "missing"))
        self.deploy(self.project(behave, self.dice.choice(("start-first", "stop-first"))))

    async def _scale(self) -> None:
        if "shop" in self.control.store.projects:
            key = f"shop/{self.dice.choice(SERVICES)}"
            self.control.store.set_override(key, Override(self.dice.randint(0, 5), 0.0))
            self.control.reconciler.request(RunPass())

    async def _kill(self) -> None:
        name = self._box()
        if name:
            self.runtime.end(name, 137)

    async def _stop(self) -> None:
        name = self._box()
        if name:
            await self.runtime.stop_by_others(name)

    async def _remove(self) -> None:
        name = self._box()
        if name:
            self.runtime.remove_by_others(name)

    async def _hang(self) -> None:
        name = self._box()
        if name:
            self.runtime.boxes[name].hangs = True

    async def _pause(self) -> None:
        name = self._box()
        if name:
            self.runtime.pause_by_others(name)

    async def _duplicate(self) -> None:
        name = self._box()
        if name:
            self.runtime.duplicate_by_others(name)

    async def _change(self) -> None:
        name = self._box()
        if name:
            self.runtime.change_by_others(
                name, drift="was changed by something other than meshd: the memory limit"
            )

    async def _out_of_memory(self) -> None:
        name = self._box()
        if name:
            self.runtime.end(name, 137, oom_killed=True)

    async def _unhealthy(self) -> None:
        name = self._box()
        if name:
            self.runtime.change_by_others(name, health=ContainerHealth.UNHEALTHY)

    async def _unready(self) -> None:
        """The readiness probe of a replica begins to fail, or passes again."""
        name = self._box()
        if name:
            box = self.runtime.boxes[name]
            box.unready = not box.unready

    async def _pause_rollout(self) -> None:
        """A user pauses a rollout, if there is one."""
        store = self.control.store
        rolling = [key for key, each in store.rollouts.items() if each.is_rolling]
        if rolling:
            store.pause(self.dice.choice(rolling), "by hand", virtual.clock())
            self.control.reconciler.request(RunPass())

    async def _resume_rollout(self) -> None:
        store = self.control.store
        paused = [key for key, each in store.rollouts.items() if each.paused_by_user]
        if paused:
            store.resume(self.dice.choice(paused), virtual.clock())
            self.control.reconciler.request(RunPass())

    async def _engine(self) -> None:
        self.runtime.go_down()
        await asyncio.sleep(self.dice.uniform(0.1, 5.0))
        self.runtime.come_back(live_restore=self.dice.random() < 0.5)

    async def _restart(self) -> None:
        await self.control.kill()
        await asyncio.sleep(self.dice.uniform(0.0, 1.0))
        self.control = Control(self.directory, self.runtime, self.plane)

    async def _worker(self) -> None:
        self.plane.replace_worker()

    async def _drain(self) -> None:
        name = self._box()
        if name:
            self.control.reconciler.request(DrainRequest(name, "by hand"))

    def story(self) -> str:
        events = [f"{e.at - virtual.EPOCH:.2f} {e.kind} {e.service} {e.replica} {e.text}"
                for e in self.control.events.since(0, 1000)]  # fmt: skip
        return "\n".join([*self.log, *events[-60:]])


def assert_as_desired(scene: Scene) -> None:
    """What runs is what was desired last, and the workers route to exactly that."""
    store, boxes = scene.control.store, scene.runtime.boxes
    running: set[str] = set()
    for name in SERVICES:
        key = f"shop/{name}"
        override = store.overrides.get(key)
        count = override.replicas if override else 3
        rollout = store.rollouts[key]
        assert rollout.state is RolloutState.DONE, f"{key}: {rollout}\n{scene.story()}"
        boxes_of_service = {n: box for n, box in boxes.items() if box.seen.service == name}
        states = {
            n: (box.seen.state, box.seen.revision, box.hangs) for n, box in boxes_of_service.items()
        }
        expected = (ReplicaState.RUNNING, rollout.revision, False)
        assert list(states.values()) == [expected] * count, f"{states} {rollout}\n{scene.story()}"
        running |= set(boxes_of_service)
    for worker in scene.plane.workers:
        assert worker.states() == dict.fromkeys(running, "ready"), scene.story()
