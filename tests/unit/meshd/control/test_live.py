"""Updates of the web page: computed once for all pages, and only what changed."""

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from meshd.api.dto import CallEdge, LiveUpdate, ProjectStatus, ServiceStatus, Status
from meshd.control.live import BEHIND, LiveFeed
from meshd.model.errors import ReaderTooSlow
from meshd.model.event import Kind
from meshd.store.events import EventLog
from tests.fakes import traffic
from tests.support.stores import open_store


class Scene:
    """A feed, and the state that it reads; `computed` counts the readings."""

    def __init__(self, folder: Path) -> None:
        self.store = open_store(folder)
        self.events = EventLog(self.store)
        self.events.open()
        status = traffic.status()
        vault = msgspec.structs.replace(status.services[0], project="bank", name="vault")
        projects = tuple(ProjectStatus(name, "up", 1, 1, 1) for name in ("bank", "shop"))
        self.status = msgspec.structs.replace(
            status, services=(*status.services, vault), projects=projects
        )
        self.computed = 0
        self.feed = LiveFeed(self._read, lambda services, _: self._calls(services), self.events)

    def _read(self) -> Status:
        self.computed += 1
        return self.status

    def _calls(self, services: tuple[ServiceStatus, ...]) -> list[CallEdge]:
        return [CallEdge("", f"{each.project}/{each.name}", each.rps) for each in services]

    def change(self, name: str, rps: float) -> None:
        """Change the load of one service."""
        services = tuple(
            msgspec.structs.replace(s, rps=rps) if s.name == name else s
            for s in self.status.services
        )
        self.status = msgspec.structs.replace(self.status, services=services)


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def following(scene: Scene, project: str = "") -> AsyncIterator[msgspec.Raw]:
    return scene.feed.follow(project, 0.0)


async def take(pages: AsyncIterator[msgspec.Raw]) -> LiveUpdate:
    return msgspec.json.decode(await anext(pages), type=LiveUpdate)


def names(update: LiveUpdate) -> list[str]:
    return [service.name for service in update.services]


async def test_twenty_pages_cost_one_computation_a_second(scene: Scene) -> None:
    scene.feed.step(1.0)
    assert scene.computed == 0, "no page is open"
    pages = [scene.feed.follow("", 1.5) for _ in range(20)]
    first = [await take(page) for page in pages]
    assert scene.computed == 1
    assert all(update.full and len(update.services) == 3 for update in first)
    for second in range(3):
        scene.feed.step(2.0 + second)
    assert scene.computed == 4
    raw = [await anext(page) for page in pages]
    assert all(each is raw[0] for each in raw), "encoded once"
    for page in pages:
        await page.aclose()  # type: ignore[attr-defined]
    scene.feed.step(9.0)
    assert scene.computed == 4


async def test_an_update_has_what_changed(scene: Scene) -> None:
    scene.events.record(1.0, Kind.DEPLOY, "first", project="shop")
    page = following(scene)
    full = await take(page)
    assert (full.full, [event.text for event in full.events]) == (True, ["first"])
    scene.change("orders", 99.0)
    scene.events.record(2.0, Kind.SCALE_UP, "2 → 3", project="shop", service="orders")
    scene.feed.step(2.0)
    update = await take(page)
    assert (update.full, names(update), update.removed) == (False, ["orders"], ())
    assert [event.text for event in update.events] == ["2 → 3"]
    assert len(update.calls) == 3
    scene.status = msgspec.structs.replace(scene.status, services=scene.status.services[1:])
    scene.feed.step(3.0)
    update = await take(page)
    assert (names(update), update.removed, update.events) == ([], ("shop/orders",), ())
    await page.aclose()  # type: ignore[attr-defined]


async def test_a_page_for_a_project_sees_only_that(scene: Scene) -> None:
    scene.events.record(1.0, Kind.DEPLOY, "ours", project="shop")
    scene.events.record(1.0, Kind.DEPLOY, "theirs", project="bank")
    everything, ours = following(scene), following(scene, "bank")
    await take(everything)
    found = await take(ours)
    assert names(found) == ["vault"]
    assert [event.text for event in found.events] == ["theirs"]
    assert [project.name for project in found.daemon.projects] == ["bank"]
    assert [call.service for call in found.calls] == ["bank/vault"]
    scene.change("orders", 99.0)
    scene.feed.step(2.0)
    assert names(await take(everything)) == ["orders"]
    assert names(await take(ours)) == []
    assert names(scene.feed.current("bank", 3.0)) == ["vault"]
    for page in (everything, ours):
        await page.aclose()  # type: ignore[attr-defined]


async def test_a_page_that_does_not_read_is_dropped(scene: Scene) -> None:
    page = following(scene)
    await take(page)
    for second in range(BEHIND + 1):
        scene.feed.step(float(second))
    for _ in range(BEHIND - 1):
        await take(page)
    with pytest.raises(ReaderTooSlow):
        await take(page)
    assert scene.computed == 1 + BEHIND + 1
    scene.feed.step(99.0)
    assert scene.computed == 1 + BEHIND + 1
