"""The authority's keys, the nodes that joined, and join tokens."""

import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from meshd.model.errors import BadAuthority, Rejected
from meshd.node_proxy import table as table_module
from meshd.node_proxy.table import NodeProxyTable, read_stored_authority
from meshd.store.records import dump, restore
from meshd.store.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(tmp_path)
    made.open()
    yield made
    made.close()


def unexpected() -> tuple[str, str]:
    raise AssertionError("it was made already")


def test_the_authority_is_made_once(store: Store) -> None:
    made = ("key", "certificate")
    assert NodeProxyTable(store).authority(lambda: made) == made
    assert NodeProxyTable(store).authority(unexpected) == made


def test_a_given_authority_is_not_stored(store: Store) -> None:
    """Only its certificate is, so that another one, or none, is noticed."""
    made, given, other = ("key", "certificate"), ("given", "its own"), ("x", "other")
    table = NodeProxyTable(store)
    assert read_stored_authority(store.path.parent) is None
    assert table.authority(lambda: made) == made
    assert read_stored_authority(store.path.parent) == made
    assert table.authority(unexpected, made) == made
    assert b"authority_key" not in zlib.decompress(dump(store))
    with pytest.raises(BadAuthority, match="start with --authority-file"):
        table.authority(unexpected)
    with pytest.raises(BadAuthority, match="in a file, not in the state"):
        read_stored_authority(store.path.parent)
    assert table.authority(unexpected, given) == given
    table.add_token("t", 10.0, 0.0)
    table.join("t", "n1", 5.0)
    assert table.authority(unexpected, given) == given
    with pytest.raises(BadAuthority, match="n1 joined with another authority"):
        table.authority(unexpected, other)
    assert table.authority(unexpected, given) == given


def test_a_token_lets_one_node_in_until_it_expires(store: Store) -> None:
    table = NodeProxyTable(store)
    table.add_token("t", 10.0, 0.0)
    table.add_token("late", 10.0, 0.0)
    table.join("t", "n1", 5.0)
    assert table.nodes() == ["n1"]
    for token, node, now in (("t", "n2", 5.0), ("unknown", "n2", 5.0), ("late", "n2", 10.5)):
        with pytest.raises(Rejected, match="used or has expired"):
            table.join(token, node, now)
    with pytest.raises(Rejected, match="joined already"):
        table.join("late", "n1", 6.0)
    assert table.remove("n1")
    assert not table.remove("n1")
    table.join("late", "n1", 7.0)
    assert table.nodes() == ["n1"]


def test_open_tokens_are_bounded_and_expired_ones_make_room(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table_module, "MAX_JOIN_TOKENS", 2)
    table = NodeProxyTable(store)
    table.add_token("a", 10.0, 0.0)
    table.add_token("b", 20.0, 0.0)
    with pytest.raises(Rejected, match="2 join tokens are open"):
        table.add_token("c", 20.0, 1.0)
    table.add_token("c", 20.0, 11.0)


def test_another_leader_takes_all_of_it_over(store: Store, tmp_path: Path) -> None:
    table = NodeProxyTable(store)
    table.authority(lambda: ("key", "certificate"))
    table.add_token("t", 10.0, 0.0)
    table.add_token("u", 10.0, 0.0)
    table.join("t", "n1", 1.0)
    (tmp_path / "other").mkdir()
    other = Store(tmp_path / "other")
    other.open()
    restore(other, dump(store), 1)
    taken = NodeProxyTable(other)
    assert taken.authority(unexpected) == ("key", "certificate")
    assert taken.nodes() == ["n1"]
    taken.join("u", "n2", 1.0)
    other.close()
