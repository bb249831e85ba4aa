"""Learned state survives the control process, and the revision that it was learned from."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.scaling_scene import KEY, NOW, Scene, desired, replicas


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made = Scene(tmp_path)
    yield made
    made.close()


def kept(scene: Scene) -> dict[str, object]:
    state = json.loads(scene.store.scaling[KEY].state)
    assert isinstance(state, dict)
    return state


def test_a_clean_exit_loses_nothing_and_a_kill_at_most_30_s(scene: Scene) -> None:
    service = desired(2, scale={"min": 1, "p95": "200ms"})
    for _ in range(45):
        scene.second(service, replicas(2), arrivals=20, took=0.05)
    scene.restart(killed=True)
    assert kept(scene)["capacity"]["service_time"] == pytest.approx(0.05, rel=0.1)
    for _ in range(5):
        scene.second(service, replicas(2), arrivals=20, took=0.02)
    scene.scaling.close(scene.clock)
    before = kept(scene)
    scene.restart()
    scene.second(service, replicas(2))
    scene.scaling.close(scene.clock)
    after = kept(scene)
    assert after["capacity"]["service_time"] == before["capacity"]["service_time"]
    assert after["demand"]["rates"][:-1] == before["demand"]["rates"][-31:]


def test_a_new_revision_starts_with_the_learned_state(scene: Scene) -> None:
    old = desired(2, scale={"min": 1, "p95": "200ms"})
    for _ in range(40):
        scene.second(old, replicas(2), arrivals=20, took=0.05)
    new = desired(2, revision="r2", scale={"min": 1, "p95": "200ms"})
    scene.second(new, replicas(2, "r2"), arrivals=20, took=0.05)
    scene.scaling.close(scene.clock)
    assert kept(scene)["capacity"]["service_time"] == pytest.approx(0.05, rel=0.1)


def test_each_start_up_is_learned_once(scene: Scene) -> None:
    service = desired(1, scale={"min": 1, "p95": "200ms"})
    scene.second(service, replicas(1, created_at=NOW - 50, ready_since=NOW - 40))
    late = replicas(1, created_at=NOW - 20, ready_since=NOW + 1.5)
    for _ in range(3):
        scene.second(service, late)
    scene.scaling.close(scene.clock)
    capacity = kept(scene)["capacity"]
    assert (capacity["started"], capacity["startup"]) == (1, 21.5)
    scene.restart()
    for _ in range(3):
        scene.second(service, late)
    scene.scaling.close(scene.clock)
    assert kept(scene)["capacity"]["started"] == 1


def test_a_state_of_another_version_is_ignored(scene: Scene) -> None:
    scene.store.set_scaling({KEY: (3, {"desired": "many"}, 0)}, NOW)
    scene.second(desired(3, scale={"min": 1}), replicas(3))
    assert scene.wanted() is not None


def test_the_size_of_the_warm_pool_is_learned_and_survives(scene: Scene) -> None:
    scale = {"min": 1, "max": 60, "warm": "auto", "concurrency": None, "rps": 10}
    service = desired(2, scale=scale)
    for second in range(10):
        scene.second(service, replicas(2), arrivals=10 if second < 5 else 60)
    rush = (scene.wanted() or 0) - 2
    assert rush >= 4
    assert scene.store.scaling[KEY].warm == rush
    scene.restart(killed=True)
    assert scene.store.scaling[KEY].warm == rush
    scene.second(service, replicas(6), arrivals=60)
    assert scene.store.scaling[KEY].warm == rush


def test_a_service_of_which_nothing_is_known_keeps_its_number_without_data(scene: Scene) -> None:
    """For example after an upgrade whose daemon cannot read the stored state."""
    service = desired(6, scale={"min": 1, "p95": "200ms"})
    scene.scaling.step([service], {KEY: replicas(6)}, scene.clock)
    assert scene.wanted() == 6
    scene.second(service, replicas(6), arrivals=20, took=0.05)
    assert scene.wanted() == 6
