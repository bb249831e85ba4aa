"""The store: what survives a restart, the rollouts that deployments begin, and the lock."""

import os
import sqlite3
from pathlib import Path

import pytest

from meshd.model.rollout import Override, Rollout, RolloutState, next_rollout
from meshd.spec.model import Service
from meshd.store import presence
from meshd.store.events import KEPT, UNWRITTEN, EventLog
from meshd.store.lock import StateLocked
from meshd.store.schema import SchemaTooNew
from meshd.store.store import Store
from tests.support.stores import filled_store, open_store, shop_project

ROLLING, DONE, ROLLED_BACK = RolloutState.ROLLING, RolloutState.DONE, RolloutState.ROLLED_BACK


def test_everything_survives_a_restart(tmp_path: Path) -> None:
    store = filled_store(tmp_path)
    secret, epoch = store.secret(), store.next_epoch()
    store.close()
    again = open_store(tmp_path)
    assert again.projects == store.projects
    assert again.rollouts == store.rollouts
    assert again.overrides == {"shop/web": Override(4, 99.0)}
    assert again.scaling["shop/db"].desired == 3
    assert again.secret() == secret
    assert again.next_epoch() == epoch + 1
    assert again.revision("shop/web", "w1") == Service(name="web")
    assert again.revision("shop/web", "other") is None
    again.close()


def test_a_second_daemon_learns_which_process_holds_the_lock(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    with pytest.raises(StateLocked, match=f"process id {os.getpid()}"):
        Store(tmp_path).open()
    store.close()
    open_store(tmp_path).close()


def test_a_stale_socket_file_is_removed_once_the_lock_is_free(tmp_path: Path) -> None:
    (tmp_path / presence.API_SOCKET).touch()
    store = open_store(tmp_path)
    presence.remove_stale_socket(tmp_path)
    assert (tmp_path / presence.API_SOCKET).exists(), "removed while a daemon runs"
    store.close()
    presence.remove_stale_socket(tmp_path)
    assert not (tmp_path / presence.API_SOCKET).exists()
    open_store(tmp_path).close()


def test_a_later_schema_is_refused(tmp_path: Path) -> None:
    open_store(tmp_path).close()
    with sqlite3.connect(tmp_path / "meshd.db") as database:
        database.execute("PRAGMA user_version = 99")
    database.close()
    with pytest.raises(SchemaTooNew, match="schema 99"):
        Store(tmp_path).open()


def test_dropped_services_and_removed_projects_are_forgotten(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    store.deploy(shop_project("web", "db"), {"web": "w1", "db": "d1"}, "me", "", 1.0)
    store.set_override("shop/db", Override(2, 0.0))
    store.deploy(shop_project("web"), {"web": "w1"}, "me", "", 2.0)
    assert set(store.rollouts) == {"shop/web"}
    assert not store.overrides
    store.leave("shop")
    assert store.projects["shop"].leaving
    store.forget("shop")
    assert not store.projects
    assert not store.rollouts
    assert store.revision("shop/web", "w1") is None
    store.close()


@pytest.mark.parametrize(
    ("old", "revision", "begun"),
    [
        (None, "a", Rollout("a", "", ROLLING, 9.0)),
        (Rollout("a", "", DONE, 1.0), "a", None),
        (Rollout("a", "", ROLLING, 1.0), "a", None),
        (
            Rollout("a", "", DONE, 1.0),
            "b",
            Rollout("b", "a", ROLLING, 9.0),
        ),
        (
            Rollout("b", "a", ROLLING, 1.0),
            "c",
            Rollout("c", "a", ROLLING, 9.0),
        ),
        (
            Rollout("b", "a", ROLLING, 1.0),
            "a",
            Rollout("a", "", ROLLING, 9.0),
        ),
        (
            Rollout("b", "a", ROLLED_BACK, 1.0),
            "b",
            Rollout("b", "a", ROLLING, 9.0),
        ),
        (
            Rollout("b", "a", ROLLED_BACK, 1.0),
            "c",
            Rollout("c", "a", ROLLING, 9.0),
        ),
        (
            Rollout("b", "a", ROLLED_BACK, 1.0),
            "a",
            Rollout("a", "", ROLLING, 9.0),
        ),
        (
            Rollout("a", "", ROLLING, 1.0),
            "b",
            Rollout("b", "", ROLLING, 9.0),
        ),
    ],
)
def test_the_rollout_that_a_deployment_begins(
    old: Rollout | None, revision: str, begun: Rollout | None
) -> None:
    assert next_rollout(old, revision, 9.0) == begun


def test_a_rolled_back_service_runs_its_previous_revision() -> None:
    assert Rollout("b", "a", ROLLING, 1.0).effective_revision == "b"
    assert Rollout("b", "a", ROLLED_BACK, 1.0).effective_revision == "a"
    assert Rollout("b", "", ROLLED_BACK, 1.0).effective_revision == "b"


def test_an_event_id_is_not_used_again_after_a_kill(tmp_path: Path) -> None:
    ids: list[int] = []
    for stored in (0, 0, 3, 0, 700, 0, 0):
        store = open_store(tmp_path)
        log = EventLog(store)
        log.open()
        for _ in range(stored):
            ids.append(log.record(1.0, "deploy", "stored").id)
        log.flush()
        for _ in range(UNWRITTEN - 1):
            ids.append(log.record(1.0, "deploy", "returned, then the process was killed").id)
        store.close()
    assert ids == sorted(set(ids))


def test_event_ids_continue_after_a_restart_and_old_events_are_dropped(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    log = EventLog(store)
    log.open()
    for number in range(KEPT + 500):
        log.record(float(number), "deploy", "text", project="shop", service="web")
    log.flush()
    store.close()
    store = open_store(tmp_path)
    log = EventLog(store)
    log.open()
    more = log.record(1.0, "deploy", "more", numbers={"n": 1.0}).id
    assert more > KEPT + 500
    assert [e.id for e in log.since(KEPT + 499, 10)] == [KEPT + 500, more]
    assert log.last_of("shop/web") == "text"
    log.flush()
    assert log.since(KEPT + 500, 10)[0].numbers == {"n": 1.0}
    # The same number of events is kept, although ids skip some numbers at each start.
    kept = log.since(0, 2 * KEPT)
    assert len(kept) == KEPT
    assert (kept[0].id, kept[-1].id) == (502, more)
    store.close()
