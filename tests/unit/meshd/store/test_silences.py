"""Silences survive a restart and end by themselves."""

from pathlib import Path

import pytest

from meshd.model.errors import Rejected
from meshd.model.silence import NewSilence
from meshd.store.silences import MAX_SILENCES, SilenceTable
from tests.support.stores import open_store


def test_silences_are_kept_until_they_end(tmp_path: Path) -> None:
    store = open_store(tmp_path / "state")
    table = SilenceTable(store)
    assert table.all(0.0) == []
    short = table.create(NewSilence(10.0, "shop", "web", "rollout", "deploying"), "me", 100.0)
    long = table.create(NewSilence(1000.0), "me", 100.0)
    store.close()
    again = open_store(tmp_path / "state")
    table = SilenceTable(again)
    assert table.all(105.0) == [short, long]
    assert (short.until, short.who, short.reason) == (110.0, "me", "deploying")
    assert table.all(110.0) == [long]
    assert not table.remove(short.id, 110.0)
    assert table.remove(long.id, 110.0)
    assert table.all(110.0) == []
    again.close()


def test_there_is_a_limit_and_ended_ones_make_room(tmp_path: Path) -> None:
    store = open_store(tmp_path / "state")
    table = SilenceTable(store)
    for _ in range(MAX_SILENCES):
        table.create(NewSilence(10.0), "me", 100.0)
    with pytest.raises(Rejected, match="meshd silence rm"):
        table.create(NewSilence(10.0), "me", 100.0)
    table.create(NewSilence(10.0), "me", 200.0)
    assert len(table.all(200.0)) == 1
    store.close()
