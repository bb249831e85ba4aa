"""The proxy of a control process that stands by is fed by the leader, which the lease names."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from meshd.daemon import standby_feed
from meshd.daemon.leadership import Leadership
from meshd.daemon.standby_feed import StandbyFeed
from meshd.runtime.base import RuntimeFailure
from meshd.runtime.lease import LeaseRecord
from meshd.store.records import dump
from tests.fakes.lease import StateOfProcess
from tests.support.node_scene import Leader, Node, snapshot
from tests.support.waiting import stays, wait_until


class HeldLease:
    """A lease that another process holds, and its stored states."""

    def __init__(self) -> None:
        self.record: LeaseRecord | None = None
        self.stored: dict[str, bytes] = {}

    async def read(self) -> LeaseRecord | None:
        if self.record is not None:
            self.record = msgspec.structs.replace(self.record, renewals=self.record.renewals + 1)
        return self.record

    async def write(self, record: LeaseRecord) -> bool:
        raise AssertionError(f"unexpected: {record}")

    async def save(self, content: bytes) -> str:
        raise AssertionError("unexpected")

    async def load(self, place: str) -> bytes:
        if place not in self.stored:
            raise RuntimeFailure("it was removed")
        return self.stored[place]

    async def own_node(self) -> str:
        return "M2"

    async def clean(self, place: str) -> None:
        raise AssertionError("unexpected")


@pytest.fixture
def leaders(tmp_path: Path) -> Iterator[list[Leader]]:
    made = [Leader(tmp_path / "first"), Leader(tmp_path / "second")]
    yield made
    for each in made:
        each.store.close()


async def test_the_proxy_of_a_standby_follows_the_leader(
    leaders: list[Leader], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(standby_feed, "POLL_SECONDS", 0.02)
    monkeypatch.setattr("meshd.daemon.leadership.RENEW_PAUSE", 0.02)
    first, second = leaders
    node, lease = Node(tmp_path / "standby"), HeldLease()
    lease.record = LeaseRecord("m1:/state", "m1", 1, address=first.address)
    leadership = Leadership(lease, "me", "M2")
    feed = StandbyFeed(node.folder, leadership, lease)
    await node.feed.open(node.folder / "feed.sock")
    tasks = [
        asyncio.create_task(leadership.acquire(StateOfProcess())),
        asyncio.create_task(feed.run()),
    ]
    try:
        first.publisher.publish(snapshot("a"))
        second.publisher.publish(snapshot("b"))
        async with first.server.serve(), second.server.serve():
            await stays(lambda: node.names() == [], 0.2, "the leader has stored no state yet")
            lease.record = msgspec.structs.replace(lease.record, records="gone")
            await stays(lambda: node.names() == [], 0.2, "the state was replaced")
            lease.stored["now"] = dump(first.store)
            lease.record = msgspec.structs.replace(lease.record, records="now")
            await wait_until(lambda: node.names() == ["shop/a"], 10)
            await wait_until(lambda: first.server.status()[0].state == "connected")
            assert first.server.status()[0].name == "m2"

            # Another one leads: with the same authority, at another address, with its own epochs.
            lease.stored["next"] = dump(second.store)
            lease.record = LeaseRecord("m3:/state", "m3", 2, 0, "next", 5, second.address)
            await wait_until(lambda: node.names() == ["shop/b"], 10)
            assert node.history == sorted(node.history)
            lease.record = LeaseRecord("", "m3", 2, 0, "next", 6, second.address)
            await wait_until(lambda: second.server.status()[0].state == "lost", 10)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        node.feed.close()


async def test_a_leader_with_its_authority_in_a_file(tmp_path: Path) -> None:
    """Its state has no key. A standby needs the file too."""
    lease = HeldLease()
    leader = Leader(tmp_path / "first")
    keys = leader.store.database.execute("SELECT value FROM meta WHERE key LIKE 'authority%'")
    (file := tmp_path / "authority").write_text("".join(value for (value,) in keys))
    leader.store.database.execute("DELETE FROM meta WHERE key = 'authority_key'")
    lease.stored["now"] = dump(leader.store)
    leader.store.close()
    leadership = Leadership(lease, "me", "m2")
    without = StandbyFeed(tmp_path, leadership, lease)
    assert await without._follow("127.0.0.1:9", "now") is None
    assert await without._follow("127.0.0.1:9", "now") is None
    feed = StandbyFeed(tmp_path, leadership, lease, str(file))
    task = await feed._follow("127.0.0.1:9", "now")
    assert task is not None
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
