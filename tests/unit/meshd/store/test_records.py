"""The shared part of the state, from one control process to another."""

import json
import sqlite3
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from meshd.model.rollout import Override, RolloutState
from meshd.spec.model import Project, Service
from meshd.store.records import StoredState, dump, read_token, restore
from meshd.store.schema import MIGRATIONS, SchemaTooNew, migrate
from meshd.store.store import Store

EARLIER = 9
"""The schema before rollouts that analysis halted had a separate state."""
SHOP = Project(name="shop", services=(Service(name="web", image="app:1"),))


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[tuple[Store, Store]]:
    opened = (Store(tmp_path / "a"), Store(tmp_path / "b"))
    for store in opened:
        store.path.parent.mkdir()
        store.open()
    yield opened
    for store in opened:
        store.close()


def test_another_process_continues_with_the_same_state(stores: tuple[Store, Store]) -> None:
    first, second = stores
    first.deploy(SHOP, {"web": "r1"}, "me", "", 1.0)
    first.set_override("shop/web", Override(5, 0.0))
    secret, instance = first.secret(), first.instance()
    first.next_epoch()
    old = Project(name="old", services=(Service(name="gone", image="x"),))
    second.deploy(old, {"gone": "r0"}, "me", "", 0.5)
    assert second.instance() != instance
    content = dump(first)
    assert content == dump(first)
    restore(second, content, 4)
    second.close()
    second = Store(second.path.parent)
    second.open()
    assert set(second.projects) == {"shop"}
    assert second.projects["shop"].project == SHOP
    assert second.rollouts["shop/web"].revision == "r1"
    assert second.revision("shop/web", "r1") == SHOP.services[0]
    found = second.override("shop/web", 2.0)
    assert found is not None
    assert found.replicas == 5
    assert (second.secret(), second.instance()) == (secret, instance)
    assert dump(second) == content
    second.close()


def test_a_state_knows_up_to_which_lease_it_is_current(stores: tuple[Store, Store]) -> None:
    first, second = (StoredState(store) for store in stores)
    assert first.token() == 0
    first.take_over(None, 1)
    stores[0].deploy(SHOP, {"web": "r1"}, "me", "", 1.0)
    content = first.dump()
    second.take_over(content, 2)
    assert (first.token(), second.token()) == (1, 2)
    assert second.dump() == content, "the token is about one host"
    for store in stores:
        store.close()
        store.open()
    assert (first.token(), second.token()) == (1, 2)


def test_the_state_of_an_earlier_version_is_migrated(stores: tuple[Store, Store]) -> None:
    """Managers are upgraded one after the other: the first new one takes over from an old one."""
    first, second = stores
    first.deploy(SHOP, {"web": "r1"}, "me", "", 1.0)
    content = json.loads(zlib.decompress(dump(first)))
    old = sqlite3.connect(":memory:", isolation_level=None)
    migrate(old, EARLIER)
    existing = {name for (name,) in old.execute("SELECT name FROM sqlite_master")}
    columns = [column[1] for column in old.execute("PRAGMA table_info(rollout)")]
    old.close()
    rollout = {
        "project": "shop", "service": "web", "revision": "r1", "previous": "r0",
        "state": "paused", "by_hand": 0, "swift": 1, "cause": "x",
    }  # fmt: skip
    tables = {name: rows for name, rows in content["tables"].items() if name in existing}
    tables["rollout"] = [[rollout.get(column, 0) for column in columns]]
    earlier = {**content, "schema": EARLIER, "tables": tables}
    restore(second, zlib.compress(json.dumps(earlier).encode()), 4)
    second.close()
    second = Store(second.path.parent)
    second.open()
    assert second.projects["shop"].project == SHOP
    found = second.rollouts["shop/web"]
    assert (found.revision, found.previous, found.state) == ("r1", "r0", RolloutState.HALTED)
    second.close()


def test_the_state_of_a_later_version_is_refused(stores: tuple[Store, Store]) -> None:
    first, second = stores
    second.deploy(SHOP, {"web": "r1"}, "me", "", 1.0)
    content = json.loads(zlib.decompress(dump(first)))
    later = {**content, "schema": len(MIGRATIONS) + 1}
    with pytest.raises(SchemaTooNew, match="upgrade meshd on this host"):
        restore(second, zlib.compress(json.dumps(later).encode()), 4)
    assert read_token(second) == 0
    assert set(second.projects) == {"shop"}
