"""A full disk: the stored state stays as it was, the error names file and reason, and everything
that need not be stored continues."""

import asyncio
import resource
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from meshd.api.client import Client
from meshd.api.server import serve
from meshd.model.errors import Rejected, StoreWriteError
from meshd.model.rollout import Override, RolloutState
from meshd.spec.model import Project
from meshd.store.events import UNWRITTEN, EventLog
from meshd.store.lock import StateLocked
from meshd.store.store import Store
from tests.fakes.control import FakeControl

SHOP = Project.model_validate({"name": "shop", "services": [{"name": "web", "image": "a"}]})
BIG = Project.model_validate(
    {"name": "shop", "services": [{"name": "web", "image": "a", "environment": {"A": "x" * 99999}}]}
)


def fill(store: Store) -> None:
    """Keep the file from growing, as on a full disk."""
    pages = store.database.execute("PRAGMA page_count").fetchone()[0]
    store.database.execute(f"PRAGMA max_page_count = {pages}")


def free(store: Store) -> None:
    store.database.execute("PRAGMA max_page_count = 1000000")


def test_a_write_that_does_not_fit_changes_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.open()
    store.deploy(SHOP, {"web": "r1"}, "me", "", 1.0)
    fill(store)
    for _ in range(2):
        with pytest.raises(StoreWriteError) as caught:
            store.deploy(BIG, {"web": "r2"}, "me", "", 2.0)
        assert str(caught.value) == (
            f"the state in {tmp_path} cannot be written: database or disk is full; nothing was "
            "changed"
        )
        assert store.rollouts["shop/web"].revision == "r1"
        assert store.projects["shop"].project == SHOP
    store.set_override("shop/web", Override(3, 0.0))
    free(store)
    store.deploy(BIG, {"web": "r2"}, "me", "", 2.0)
    store.close()
    store.open()
    assert store.rollouts["shop/web"].revision == "r2"
    assert store.overrides["shop/web"].replicas == 3
    store.close()


@contextmanager
def no_more(path: Path) -> Iterator[None]:
    """Keep all files of this process from growing beyond the size of this one, so that the commit
    fails, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_failed_commit_changes_nothing_in_memory(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.open()
    two = [*SHOP.services, SHOP.services[0].model_copy(update={"name": "old"})]
    both = SHOP.model_copy(update={"services": tuple(two)})
    store.deploy(both, {"web": "r1", "old": "r1"}, "me", "", 1.0)
    store.set_override("shop/old", Override(2, 0.0))
    writes: list[Callable[[], object]] = [
        lambda: store.set_override("shop/web", Override(3, 0.0)),
        lambda: store.set_override("shop/old", None),
        lambda: store.set_scaling({"shop/web": (9, {}, 0)}, 2.0),
        lambda: store.deploy(SHOP, {"web": "r2"}, "me", "", 2.0),
        lambda: store.advance("shop/web", 1, 2.0),
        lambda: store.pause("shop/web", "", 2.0),
        lambda: store.resume("shop/web", 2.0),
        lambda: store.finish("shop/web", RolloutState.DONE, "", 2.0),
        lambda: store.leave("shop"),
        lambda: store.forget("shop"),
    ]

    def in_memory() -> tuple[object, ...]:
        return (
            dict(store.rollouts), dict(store.overrides), dict(store.scaling), dict(store.projects),
        )  # fmt: skip

    before = in_memory()
    for write in writes:
        with no_more(tmp_path / "meshd.db-wal"), pytest.raises(StoreWriteError):
            write()
        assert in_memory() == before
    for write in writes:
        write()
    assert in_memory() == ({}, {}, {}, {})
    store.close()


@pytest.mark.parametrize("free_bytes", [0, 100])  # no space at all, or only for the lock file
def test_a_state_that_cannot_be_opened_names_its_directory_and_is_unlocked(
    tmp_path: Path, free_bytes: int
) -> None:
    length = tmp_path / "length"
    length.write_bytes(b"x" * free_bytes)
    state = tmp_path / "state"
    state.mkdir()
    store = Store(state)
    with no_more(length), pytest.raises(StoreWriteError) as caught:
        store.open()
    assert str(caught.value).startswith(f"the state in {state} cannot be opened: ")
    assert "make sure its disk has free space" in str(caught.value)
    other = Store(state)
    other.open()  # neither the lock nor half a schema is left
    other.deploy(SHOP, {"web": "r1"}, "me", "", 1.0)
    other.close()


def test_a_control_process_starts_with_what_it_can_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)
    store.open()
    store.deploy(SHOP, {"web": "r1"}, "me", "", 1.0)
    epoch = store.next_epoch()
    secret = store.secret()
    # As after a kill: the write-ahead log is not merged into the file.
    killed = tmp_path / "killed"
    killed.mkdir()
    for name in ("meshd.db", "meshd.db-wal"):
        shutil.copy(tmp_path / name, killed / name)
    store.close()
    again = Store(killed)

    def full(_: object) -> sqlite3.Connection:
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(Store, "_connect", full)
        again.open()
        assert again.problem == f"the state in {killed} cannot be written: database or disk is full"
        assert again.projects["shop"].project == SHOP
        assert again.secret() == secret
        assert again.next_epoch() == epoch + 1
        events = EventLog(again)
        events.open()
        events.record(2.0, "deploy", "seen")
        with pytest.raises(StoreWriteError, match=r"disk is full; nothing was changed"):
            again.set_override("shop/web", Override(3, 0.0))
        assert again.overrides == {}
        with pytest.raises(StateLocked):
            Store(killed).open()
    # With room it continues with the file itself.
    again._retry_at = 0.0
    again.set_override("shop/web", Override(3, 0.0))
    events.flush()
    assert again.problem == ""
    again.close()
    last = Store(killed)
    last.open()
    assert last.overrides["shop/web"].replicas == 3
    assert last.projects["shop"].project == SHOP
    last.close()


def test_events_are_delivered_and_a_bounded_number_waits_to_be_stored(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.open()
    events = EventLog(store)
    events.open()
    fill(store)
    for number in range(3 * UNWRITTEN):
        events.record(float(number), "deploy", "x" * 1000)
    assert len(events.since(0, 10 * UNWRITTEN)) >= UNWRITTEN
    with pytest.raises(StoreWriteError):
        events.flush()
    free(store)
    events.flush()
    (stored,) = store.database.execute("SELECT count(*) FROM event").fetchone()
    assert stored == UNWRITTEN
    store.close()


class Full(FakeControl):
    """A control process with a full disk."""

    async def deploy(self, project: Project, who: str, take_over: bool = False) -> None:
        raise StoreWriteError(
            "the state in /x cannot be written: disk is full; nothing was changed"
        )


def test_a_client_gets_the_directory_and_the_reason(tmp_path: Path) -> None:
    async def main() -> None:
        async with (
            serve(Full(), tmp_path / "a.sock", "127.0.0.1:0"),
            Client(tmp_path / "a.sock") as client,
        ):
            with pytest.raises(Rejected, match=r"^the state in /x cannot be written"):
                await client.deploy(SHOP)

    asyncio.run(main())
