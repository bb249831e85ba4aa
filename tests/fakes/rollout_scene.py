"""A mesh in virtual time for simulated rollouts: simulated runtime, traffic and data plane."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from meshd.control.rollouts import RolloutManager
from meshd.model.job import HookState
from meshd.model.operation import RunHook
from meshd.model.request import ReloadDesired
from meshd.model.rollout import Rollout
from meshd.spec.fingerprint import compute_revision
from meshd.spec.model import Project, Service
from meshd.store.releases import Releases
from meshd.telemetry.release_counts import ReleaseCounter
from tests.fakes import virtual
from tests.fakes.sim_mesh import DRAIN, Control
from tests.fakes.sim_plane import SimPlane
from tests.fakes.sim_runtime import SimRuntime
from tests.fakes.sim_traffic import SimTraffic

KEY = "shop/web"


class Killed(BaseException):
    """The control process was killed (kill -9)."""


def shop(version: str, replicas: int = 2, **more: Any) -> Project:
    rollout, update = more.pop("rollout", {}), more.pop("update", {})
    return Project.model_validate(
        {
            "name": "shop",
            "services": [
                {
                    "name": "web",
                    "image": "app",
                    "environment": {"V": version, **more},
                    "replicas": replicas,
                    "stop_grace_period": 1,
                    "update": {"monitor": 1, **update},
                    "mesh": {
                        "drain": DRAIN,
                        "health": {"start_timeout": 5},
                        "rollout": rollout,
                        "routes": ["/"],
                    },
                }
            ],
        }
    )


class Scene:
    """A mesh with traffic. `kill_at` is the number of the operation before or after which the
    current control process is killed."""

    def __init__(self, directory: Path, rate: int = 200) -> None:
        self.directory = directory
        self.runtime = SimRuntime(random.Random(1))
        self.runtime.bad_luck = 0.0
        self.plane = SimPlane(self.runtime, random.Random(2), workers=2, drain=DRAIN)
        self.traffic = SimTraffic(lambda: self.plane.held, self._spec, rate)
        self.jobs = Jobs()
        self.specs: dict[str, Service] = {}
        self.operations: list[tuple[str, str, int]] = []
        self.kill_at = -1
        self.after = False
        self.deaths = 0
        self._tasks = [
            asyncio.ensure_future(self.plane.run()), asyncio.ensure_future(self._seconds())
        ]  # fmt: skip
        self.control = self._started()

    def _started(self) -> Control:
        control = Control(self.directory, self.runtime, self.plane, self.jobs, self.traffic)
        apply = control.reconciler._apply

        def deadly(operation: Any, now: float) -> None:
            what = (type(operation).__name__, operation.subject, getattr(operation, "stage", 0))
            fatal = what not in self.operations and len(self.operations) == self.kill_at
            if what not in self.operations:
                self.operations.append(what)
            if fatal and not self.after:
                raise Killed
            apply(operation, now)
            if fatal:
                raise Killed

        control.reconciler._apply = deadly  # type: ignore[method-assign]
        return control

    def _spec(self, key: str, version: str) -> Service | None:
        return self.specs.get(version)

    async def _seconds(self) -> None:
        while True:
            await asyncio.sleep(1.0)
            self.traffic.run_second()

    async def close(self) -> None:
        await self.control.die()
        for task in self._tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    def deploy(self, project: Project, how: Any = "deploy") -> None:
        names = {service.name: compute_revision(service) for service in project.services}
        self.specs |= {compute_revision(service): service for service in project.services}
        self.control.store.deploy(project, names, "me", "", virtual.clock(), how)
        self.control.reconciler.request(ReloadDesired())

    def rollouts(self) -> RolloutManager:
        async def begin(_: str, choose: Callable[[], Project], who: str) -> None:
            self.deploy(choose(), "undo")

        store = self.control.store
        releases = Releases(store)
        release_counts = ReleaseCounter(releases, releases.in_progress)
        return RolloutManager(
            store,
            releases,
            release_counts,
            self.control.events,
            self.control.reconciler,
            begin,
            virtual.clock,
        )

    @property
    def rollout(self) -> Rollout:
        return self.control.store.rollouts[KEY]

    async def until(self, holds: Callable[[], bool], seconds: float = 200.0) -> float:
        """Wait until `holds`; return the virtual seconds. A killed control process is restarted."""
        began = virtual.clock()
        while not holds():
            await asyncio.sleep(0.05)
            if any(task.done() for task in self.control._tasks):
                await self.control.die()
                self.deaths += 1
                self.control = self._started()
            assert virtual.clock() - began < seconds, self.story()
            assert not self.plane.problems, self.story()
        return virtual.clock() - began

    async def settled(self, seconds: float = 200.0) -> float:
        return await self.until(lambda: not self.rollout.is_unfinished and self.at_rest(), seconds)

    def at_rest(self) -> bool:
        """Whether only desired replicas exist."""
        boxes = self.runtime.boxes.values()
        wanted = self.rollout.effective_revision
        right = [b for b in boxes if b.running and b.seen.revision == wanted]
        return len(right) == 2 and len(boxes) == 2 and not self.control.reconciler.view().running

    def revisions(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for box in self.runtime.boxes.values():
            if box.running:
                version = box.seen.revision
                found[version] = found.get(version, 0) + 1
        return found

    def shares(self) -> dict[str, float]:
        (service,) = self.plane.held.services if self.plane.held else ()
        return dict(service.split.weights) if service.split else {}

    def story(self) -> str:
        events = [f"{e.at - virtual.EPOCH:.2f} {e.kind} {e.replica} {e.text}"
                for e in self.control.events.since(0, 1000)]  # fmt: skip
        return "\n".join([*map(str, self.operations), *events[-40:], *self.plane.problems])


@asynccontextmanager
async def scene_in(directory: Path, rate: int = 200) -> AsyncIterator[Scene]:
    scene = Scene(directory, rate)
    try:
        yield scene
    finally:
        await scene.close()


def run(main: Callable[[], Awaitable[None]]) -> None:
    async def whole() -> None:
        await main()

    virtual.run(whole())


class Jobs:
    """Hooks that take 2 s each and end with `codes`; they outlive the control process."""

    def __init__(self) -> None:
        self.begun: dict[str, tuple[RunHook, float]] = {}
        self.codes: dict[str, int] = {}

    def begin(self, hook: RunHook) -> None:
        self.begun.setdefault(hook.id, (hook, virtual.clock()))

    def states(self, ids: Iterable[str]) -> dict[str, HookState]:
        found = {}
        for id in ids:
            if id in self.begun:
                hook, at = self.begun[id]
                over = virtual.clock() >= at + 2.0
                ok = not self.codes.get(hook.command[0], 0)
                found[id] = HookState(over, over and ok, "last words" if over and not ok else id)
        return found
