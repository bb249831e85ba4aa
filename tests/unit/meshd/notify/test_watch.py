"""The watch over services, nodes and disks, in virtual time."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from meshd.model.desired import DesiredService
from meshd.model.event import Event
from meshd.model.replica import Replica
from meshd.model.replica_phase import Phase
from meshd.model.runtime import Node
from meshd.notify import watch as watch_module
from meshd.notify.conditions import Disk
from meshd.notify.watch import ProblemWatch, read_disks
from meshd.spec.model import Mount, Service
from meshd.store.events import EventLog
from meshd.telemetry.totals import ObjectiveCounts
from tests.support.stores import open_store
from tests.support.waiting import wait_until


@dataclass
class Scene:
    """A mesh of one service, as the watch sees it."""

    events: EventLog
    desired: int = 2
    phase: Phase = Phase.READY
    counts: ObjectiveCounts = field(default_factory=ObjectiveCounts)
    nodes: tuple[Node, ...] = ()
    gone: bool = False
    now: float = 1000.0

    def watch(self, *paths: Path) -> ProblemWatch:
        return ProblemWatch(
            self.events, self.services, self.replicas, lambda _: self.counts,
            lambda: self.nodes, paths, lambda: self.now,
        )  # fmt: skip

    def services(self) -> Sequence[DesiredService]:
        if self.gone:
            return ()
        mounts = (Mount(type="bind", target="/data", source="/nonexistent/data"),)
        spec = Service(name="web", volumes=mounts)
        return (DesiredService("shop", spec, "r1", self.desired),)

    def replicas(self) -> Mapping[str, Sequence[Replica]]:
        found: Any = SimpleNamespace(serves=self.phase is Phase.READY, phase=self.phase)
        return {"shop/web": (found,)}

    def seen(self) -> list[Event]:
        return list(self.events.since(0, 1000))

    def kinds(self) -> list[str]:
        return [event.kind for event in self.seen()]

    def run(self, watch: ProblemWatch, seconds: int) -> None:
        for _ in range(0, seconds, 5):
            self.now += 5
            watch.step(self.now)


@pytest.fixture
def scene(tmp_path: Path) -> Any:
    store = open_store(tmp_path / "state")
    events = EventLog(store)
    yield Scene(events)
    store.close()


def test_a_service_without_a_ready_replica(scene: Scene) -> None:
    watch = scene.watch()
    scene.run(watch, 60)
    assert scene.kinds() == []
    scene.phase = Phase.PROBING
    scene.run(watch, 30)
    assert scene.kinds() == []
    scene.run(watch, 60)
    scene.phase = Phase.READY
    scene.run(watch, 10)
    assert scene.kinds() == ["service.unavailable", "service.available"]
    first = scene.seen()[0]
    assert (first.project, first.service, first.replica) == ("shop", "web", "")
    assert first.numbers == {"desired": 2}


@pytest.mark.parametrize(("desired", "phase"), [(0, Phase.GONE), (1, Phase.COMPLETED)])
def test_a_service_that_needs_no_replica_is_not_missed(
    scene: Scene, desired: int, phase: Phase
) -> None:
    scene.desired, scene.phase = desired, phase
    scene.run(scene.watch(), 120)
    assert scene.kinds() == []


def test_a_removed_service_is_forgotten(scene: Scene) -> None:
    watch = scene.watch()
    scene.phase = Phase.FAILED
    scene.run(watch, 60)
    scene.gone = True
    scene.run(watch, 60)
    assert scene.kinds() == ["service.unavailable"]


def test_a_budget_that_burns(scene: Scene) -> None:
    watch = scene.watch()
    for _ in range(20):
        scene.counts.count(100, 0)
        scene.run(watch, 30)
    for _ in range(40):
        scene.counts.count(100, 60)
        scene.run(watch, 30)
    assert scene.kinds() == ["objective.burning"]
    (event,) = scene.seen()
    assert "missed the objective: an answer without an error for 99.00%" in event.text
    for _ in range(70):
        scene.counts.count(100, 0)
        scene.run(watch, 30)
    assert scene.kinds() == ["objective.burning", "objective.met"]


def test_a_node_that_does_not_answer(scene: Scene) -> None:
    watch = scene.watch()
    scene.nodes = (Node("n1", 1, 1, state="down"),)
    scene.run(watch, 30)
    scene.nodes = (Node("n1", 1, 1),)
    scene.run(watch, 10)
    assert scene.kinds() == ["node.lost", "node.back"]
    assert {event.replica for event in scene.seen()} == {"n1"}


async def test_disks_are_read_and_a_full_one_is_an_event(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []

    def full(paths: Sequence[Path]) -> Sequence[Disk]:
        asked.append([str(path) for path in paths])
        return [Disk("/data", 1000, 950)]

    monkeypatch.setattr(watch_module, "read_disks", full)
    running = asyncio.create_task(scene.watch(tmp_path).run())
    try:
        await wait_until(scene.kinds, 10, "an event")
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert scene.kinds() == ["disk.filling"]
    assert asked == [[str(tmp_path), "/nonexistent/data"]]


def test_each_disk_is_read_once_and_missing_paths_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (found,) = read_disks([tmp_path / "missing", tmp_path, tmp_path / "sub"])
    assert found.path == str(tmp_path)
    assert 0 <= found.share <= 1
    assert found.total > 0
