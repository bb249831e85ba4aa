"""The shared part of the state, from one control process to another."""

import json
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from meshd.model.rollout import Override
from meshd.spec.model import Project, Service
from meshd.store.records import dump, restore
from meshd.store.schema import SchemaTooNew
from meshd.store.store import Store

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
    restore(second, content)
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


def test_the_state_of_another_version_is_refused(stores: tuple[Store, Store]) -> None:
    first, second = stores
    content = json.loads(zlib.decompress(dump(first)))
    other = zlib.compress(json.dumps({**content, "schema": 1}).encode())
    with pytest.raises(SchemaTooNew, match="run the same version on all managers"):
        restore(second, other)
