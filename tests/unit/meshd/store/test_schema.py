"""Migrations: a state file that an earlier version wrote opens, and nothing in it is lost."""

import sqlite3
from pathlib import Path

import pytest

from meshd.model.canary import CanaryAnalysis
from meshd.model.rollout import Override, Rollout, RolloutState
from meshd.reconcile.desired_state import DesiredStateBuilder
from meshd.reconcile.preview.settings_diff import diff_settings
from meshd.spec.compose import load
from meshd.spec.model import Service
from meshd.store.canary_analyses import CanaryAnalysisLog
from meshd.store.releases import Releases
from meshd.store.replacements import ReplacementLog
from meshd.store.schema import MIGRATIONS
from tests.support.stores import open_store

SCHEMA_9 = Path(__file__).with_name("schema_9.sql")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A state directory with a file of schema version 9."""
    database = sqlite3.connect(tmp_path / "meshd.db")
    database.executescript(SCHEMA_9.read_text())
    database.close()
    return tmp_path


def test_rollouts_of_an_earlier_version_are_kept(directory: Path) -> None:
    store = open_store(directory)
    assert store.rollouts == {
        "shop/done": Rollout("r2", "r1", RolloutState.DONE, 21.0, "ready", 2, 0, 20.0),
        "shop/halted": Rollout("r2", "r1", RolloutState.HALTED, 22.0, "it crashed", 2, 0, 20.0),
        "shop/paused": Rollout("r2", "r1", RolloutState.PAUSED, 23.0, "paused by ann", 2, 2, 22.0),
        "shop/rolled-back": Rollout(
            "r2", "r1", RolloutState.ROLLED_BACK, 24.0, "it crashed", 2, 0, 20.0
        ),
        "shop/rolling": Rollout("r2", "r1", RolloutState.ROLLING, 20.0, "", 2, 1, 25.0),
        "shop/undone": Rollout("r1", "", RolloutState.ROLLING, 30.0, "", 3, 0, 30.0, True),
    }
    assert store.overrides == {"shop/done": Override(4, 99.0)}
    assert store.scaling["shop/rolling"].warm == 2
    assert store.revision("shop/done", "r1") == Service(name="done", image="app:1")
    store.close()


def test_releases_and_canary_analyses_of_an_earlier_version_are_kept(directory: Path) -> None:
    store = open_store(directory)
    outcomes = {key: [r.outcome for r in Releases(store).of(key, 9)] for key in store.rollouts}
    assert outcomes == {
        "shop/done": ["done", "done"],
        "shop/halted": ["paused", "done"],
        "shop/paused": ["paused", "done"],
        "shop/rolled-back": ["rolled-back", "done"],
        "shop/rolling": ["rolling", "done"],
        "shop/undone": ["rolling", "rolled-back", "done"],
    }
    ((key, (number, analysis)),) = CanaryAnalysisLog(store).read().items()
    assert (key, number, type(analysis)) == ("shop/rolling", 2, CanaryAnalysis)
    assert (analysis.stage, analysis.failures.new, analysis.failures.new_bad) == (1, 10, 1)
    store.close()


def test_a_migrated_file_keeps_marks_of_replicas_to_replace(directory: Path) -> None:
    store = open_store(directory)
    log = ReplacementLog(store)
    assert log.read() == {}
    log.add(["a", "b"], "restarted by ops", ["a", "b"])
    log.add(["c"], "restarted by me", ["b", "c"])
    store.close()
    again = open_store(directory)
    marks = ReplacementLog(again).read()
    assert marks == {"b": "restarted by ops", "c": "restarted by me"}
    again.close()


def test_a_migrated_file_can_be_written_and_opened_again(directory: Path) -> None:
    store = open_store(directory)
    store.resume("shop/halted", 40.0)
    store.resume("shop/paused", 40.0)
    store.finish("shop/paused", RolloutState.DONE, "ready", 41.0)
    rollouts = dict(store.rollouts)
    assert store.database.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)
    store.close()
    again = open_store(directory)
    assert again.rollouts == rollouts
    again.close()


@pytest.mark.parametrize("state", [s for s in RolloutState if s is not RolloutState.ROLLING])
def test_an_ended_or_paused_rollout_only_becomes_rolling(
    tmp_path: Path, state: RolloutState
) -> None:
    store = open_store(tmp_path)
    store.rollouts["shop/web"] = Rollout("b", "a", state, 1.0)
    for other in RolloutState:
        if other is not RolloutState.ROLLING:
            with pytest.raises(ValueError, match=f"cannot go from {state.value}"):
                store.finish("shop/web", other, "", 2.0)
    store.close()


COMPOSE = """
name: shop
services:
  db:
    image: postgres:15
    volumes: ["data:/var/lib/postgresql/data"]
    expose: [5432]
  worker: {image: "shop/worker:1", command: [work], restart: on-failure}
  web: {image: "shop/web:1", expose: [8000], depends_on: [db], x-mesh: {routes: [/]}}
volumes: {data: {}}
"""
"""The file that was deployed before the state of `schema_10.sql` was written."""


def test_services_from_before_plain_ones_keep_their_kind_until_their_next_deployment(
    tmp_path: Path,
) -> None:
    database = sqlite3.connect(tmp_path / "meshd.db")
    database.executescript(Path(__file__).with_name("schema_10.sql").read_text())
    database.close()
    store = open_store(tmp_path)
    desired = DesiredStateBuilder(store).desired({}, 2000.0).services
    found = {each.spec.name: (each.spec.plain, each.spec.restart_condition) for each in desired}
    assert found == {
        "db": (False, "any"), "worker": (False, "on-failure"), "web": (False, "any")
    }  # fmt: skip
    assert [each.revision for each in desired] == ["tw7b5cpgm2", "7m2ma6nve3", "5skndvjky7"]
    path = tmp_path / "compose.yml"
    path.write_text(COMPOSE)
    after = load([path], environment={}).project
    names = frozenset(service.name for service in after.services)
    assert diff_settings(store.projects["shop"].project, after, names) == [
        "update shop/db: becomes plain (it was mesh-managed), as it has no x-mesh; restart becomes "
        "none (it was any); it is plain, reached at db:5432",
        "update shop/worker: becomes plain (it was mesh-managed), as it has no x-mesh; it is "
        "plain, reached at worker",
        "update shop/worker: update.order becomes stop-first (it was start-first), as it is plain "
        "and the file sets no order",
    ]
    store.close()
