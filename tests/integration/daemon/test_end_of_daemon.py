"""What a control process stores when it ends, and what it leaves to the next leader."""

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from meshd.api.client import Client, NoDaemon
from meshd.daemon import wiring
from meshd.daemon.leadership import Leadership
from meshd.daemon.wiring import Daemon, DaemonSettings
from meshd.model.event import Kind
from meshd.notify.notifier import Notifier
from meshd.store.events import EventLog
from meshd.store.records import restore
from tests.fakes.lease import KeeperOfProcess, LeaseInSwarm
from tests.support.stores import open_store, shop_project
from tests.support.waiting import wait_until


def settings(state: Path, lease: str = "") -> DaemonSettings:
    state.mkdir()
    return DaemonSettings(state=state, runtime="process", metrics="127.0.0.1:0", lease=lease)


@pytest.fixture
def swarm(monkeypatch: pytest.MonkeyPatch) -> LeaseInSwarm:
    """Return the lease that the daemons of a test have instead of one in a Swarm."""
    swarm = LeaseInSwarm()

    @asynccontextmanager
    async def opened(of: DaemonSettings) -> AsyncIterator[tuple[Leadership, KeeperOfProcess]]:
        me = of.state.name
        keeper = KeeperOfProcess(swarm, me, random.Random(1))
        yield Leadership(keeper, me, me), keeper

    monkeypatch.setattr(wiring, "opened_leadership", opened)
    return swarm


def projects_for_next_leader(swarm: LeaseInSwarm, folder: Path) -> set[str]:
    """Return the projects in the state that the next leader takes over."""
    assert swarm.record is not None
    store = open_store(folder)
    restore(store, swarm.stored[swarm.record.records], 99)
    store.close()
    store.open()
    found = set(store.projects)
    store.close()
    return found


async def leads(client: Client) -> bool:
    try:
        return not (await client.status()).standby
    except NoDaemon:
        return False


async def test_the_last_change_is_handed_over_with_the_lease(
    tmp_path: Path, swarm: LeaseInSwarm
) -> None:
    """It is made after the last renewal, and the process ends before the next one."""
    daemon = Daemon(settings(tmp_path / "a", "prod"))
    running = asyncio.create_task(daemon.run())
    async with Client(tmp_path / "a" / "admin.sock") as client:
        await wait_until(lambda: leads(client), 20, "it leads")
        await wait_until(lambda: swarm.record and swarm.record.records, 20, "its state is stored")
    daemon._stores.store.deploy(shop_project("web"), {"web": "r1"}, "me", "", time.time())
    daemon.end()
    await running
    assert swarm.record is not None
    assert swarm.record.holder == ""
    assert projects_for_next_leader(swarm, tmp_path / "b") == {"shop"}


async def test_a_process_that_ends_when_it_gets_the_lease_gives_it_back(
    tmp_path: Path, swarm: LeaseInSwarm
) -> None:
    daemon = Daemon(settings(tmp_path / "a", "prod"))
    swarm.on_write = daemon.end
    await daemon.run()
    assert swarm.record is not None
    assert (swarm.record.token, swarm.record.holder) == (1, "")


async def test_events_are_stored_when_a_part_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon = Daemon(settings(tmp_path / "a"))

    async def fail(_: Notifier) -> None:
        daemon._stores.events.record(1.0, Kind.STATE_BACK, "the last event")
        raise RuntimeError("a part failed")

    monkeypatch.setattr(Notifier, "run", fail)
    with pytest.raises(RuntimeError, match="a part failed"):
        await daemon.run()
    store = open_store(tmp_path / "a")
    log = EventLog(store)
    log.open()
    assert [event.text for event in log.since(0, 100)] == ["the last event"]
    store.close()
