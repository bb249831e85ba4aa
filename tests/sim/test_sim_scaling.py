"""A rush from zero on a machine with two cores, on which every start takes CPU: what failed is
replaced before anything grows, and the number grows as fast as the machine can start replicas."""

import asyncio
import random
from contextlib import suppress
from pathlib import Path

import pytest

from meshd.model.replica import Replica
from meshd.model.request import ReloadDesired
from meshd.model.runtime import ObservedReplica, ReplicaSpec
from meshd.runtime.process.runtime import ProcessRuntime
from meshd.scaling.controller import ScalingController
from meshd.scaling.prometheus_queries import PrometheusQueries
from meshd.spec.fingerprint import compute_revision
from meshd.spec.model import Project
from meshd.store.decisions import DecisionLog
from meshd.store.traffic import TrafficLog
from meshd.telemetry.counters import EventCounters
from meshd.telemetry.ingest import Ingest
from meshd.telemetry.usage_sampler import UsageSampler
from proxy.wire.report import Histogram, Report, ServiceReport
from proxy.wire.snapshot import Generation
from tests.fakes import traffic, virtual
from tests.fakes.sim_mesh import Control
from tests.fakes.sim_plane import SimPlane
from tests.fakes.sim_runtime import SimRuntime

CORES = 2
WORK = 4.0
"""Seconds of a core that a start takes."""
RUSH = 200
"""Requests per second of the rush: 20 replicas of 10 each."""


class BusyRuntime(SimRuntime):
    """Starts share the cores: each one takes `WORK` seconds of one, first come, first served."""

    def __init__(self) -> None:
        super().__init__(random.Random(1))
        self.bad_luck = 0.0
        self._free = [0.0] * CORES

    async def start(self, replica: ReplicaSpec) -> ObservedReplica:
        seen = await super().start(replica)
        core = self._free.index(min(self._free))
        self._free[core] = max(virtual.clock(), self._free[core]) + WORK
        self.boxes[replica.name].answers_at = self._free[core]
        return seen


class Rush:
    """A scaled service `web` and a fixed one `back`, with a second of traffic every second."""

    def __init__(self, folder: Path) -> None:
        self.runtime = BusyRuntime()
        self.plane = SimPlane(self.runtime, random.Random(2), workers=1, drain=3.0)
        self.control = Control(folder, self.runtime, self.plane, start_slots=lambda: CORES)
        store = self.control.store
        self.ingest = Ingest()
        self.scaling = ScalingController(
            store,
            self.control.events,
            DecisionLog(store),
            TrafficLog(store),
            self.ingest,
            EventCounters(),
            UsageSampler(ProcessRuntime(folder)),
            PrometheusQueries(virtual.clock),
            tuple,
            lambda: self.control.reconciler.request(ReloadDesired()),
            lambda: CORES,
        )
        self._plane_task = asyncio.ensure_future(self.plane.run())
        self._sequence = 0

    def deploy(self) -> None:
        scale = {"min": 1, "max": 20, "rps": 10}
        project = Project.model_validate(
            {
                "name": "shop",
                "services": [
                    {"name": "web", "image": "app", "mesh": {"scale": scale}},
                    {"name": "back", "image": "app", "replicas": 2},
                ],
            }
        )
        revisions = {service.name: compute_revision(service) for service in project.services}
        self.control.store.deploy(project, revisions, "test", "", virtual.clock())
        self.control.reconciler.request(ReloadDesired())

    async def second(self, arrivals: int) -> None:
        begin = virtual.clock()
        await virtual.elapse(1.0)
        latency = traffic.histogram(*[0.05] * arrivals) if arrivals else Histogram()
        report = ServiceReport("shop/web", arrivals=arrivals, total=latency, first_byte=latency)
        self._sequence += 1
        end = virtual.clock()
        self.ingest.set_services(["shop/web"])
        self.ingest.add(Report(1, self._sequence, begin, end, Generation(1, 1), (report,)))
        view = self.control.reconciler.view()
        groups: dict[str, list[Replica]] = {}
        for replica in view.observed.replicas:
            groups.setdefault(replica.key, []).append(replica)
        self.scaling.step(view.desired.services, groups, end + 0.15)

    def ready(self, service: str) -> int:
        replicas = self.control.reconciler.view().observed.replicas
        return sum(each.service == service and each.serves for each in replicas)

    async def close(self) -> None:
        await self.control.kill()
        self._plane_task.cancel()
        with suppress(asyncio.CancelledError):
            await self._plane_task


@pytest.mark.parametrize("killed_after", [3, 8, 15])
def test_healing_precedes_growth_in_a_rush_from_zero(tmp_path: Path, killed_after: int) -> None:
    async def play() -> tuple[int, int, int]:
        scene = Rush(tmp_path)
        scene.deploy()
        for _ in range(20):
            await scene.second(0)
        assert (scene.ready("web"), scene.ready("back")) == (1, 2)
        healed = grown = at_heal = 0
        for second in range(1, 100):
            await scene.second(RUSH)
            if second == killed_after:
                name = next(n for n, b in scene.runtime.boxes.items() if "-back-" in n and b.alive)
                scene.runtime.end(name, 137)
            if second > killed_after and not healed and scene.ready("back") == 2:
                healed, at_heal = second - killed_after, scene.ready("web")
            grown = grown or (second if scene.ready("web") == 20 else 0)
        await scene.close()
        return healed, at_heal, grown

    healed, at_heal, grown = virtual.run(play())
    assert healed <= 2 * WORK + 1
    assert at_heal < 20
    assert grown <= 1.3 * 21 * WORK / CORES
