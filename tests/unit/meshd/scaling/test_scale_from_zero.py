"""Start from zero, with a real store and only the workers' notice of parked requests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from meshd.model.desired import DesiredService
from meshd.model.rollout import Override
from tests.fakes.scaling_scene import KEY, NOW, Scene, desired


def web(count: int = 0, **scale: object) -> DesiredService:
    return desired(count, scale=scale)


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made = Scene(tmp_path)
    yield made
    made.close()


def test_the_first_parked_request_orders_a_replica_at_once(scene: Scene) -> None:
    scene.scaling.start_from_zero(web(), 1, 1, NOW)
    assert (scene.wanted(), scene.woken) == (1, 1)
    (event,) = scene.events.since(0, 10)
    assert (event.kind, event.text) == ("scale.wake", "0 → 1: 1 request waits for a first replica")


def test_a_burst_orders_what_it_needs_and_no_less_later(scene: Scene) -> None:
    for parked in (1, 2, 4, 8):
        for worker in (1, 2):
            scene.scaling.start_from_zero(web(), worker, parked, NOW + parked / 100)
    assert scene.wanted() == 8
    scene.scaling.start_from_zero(web(), 1, 1, NOW + 0.2)
    scene.scaling.step([web(8)], {}, NOW + 0.3)
    assert scene.wanted() == 8


def test_a_cold_start_ends_with_the_first_ready_replica(scene: Scene) -> None:
    scene.scaling.start_from_zero(web(), 1, 1, NOW)
    for seconds in (1.5, 1.9):
        scene.scaling.replica_ready(KEY, NOW + seconds)
    took = scene.counters.cold_starts[KEY]
    assert (took.count, took.sum) == (1, 1.5)


def test_a_cold_start_that_is_slower_than_expected_is_counted(scene: Scene) -> None:
    scene.scaling.start_from_zero(web(), 1, 1, NOW)
    for seconds in range(1, 90):
        scene.scaling.step([web(1)], {}, NOW + seconds)
    scene.scaling.start_from_zero(web(1), 1, 9, NOW + 89.5)
    assert scene.woken == 1  # more replicas would not help
    scene.scaling.replica_ready(KEY, NOW + 90.0)
    took = scene.counters.cold_starts[KEY]
    assert (took.count, took.sum) == (1, 90.0)


@pytest.mark.parametrize("seen", [False, True])
def test_a_start_that_was_given_up_is_not_part_of_the_next(scene: Scene, seen: bool) -> None:
    scene.scaling.start_from_zero(web(), 1, 1, NOW)
    if seen:
        scene.scaling.step([web(0)], {}, NOW + 90.0)
        scene.scaling.replica_ready(KEY, NOW + 90.0)
    assert KEY not in scene.counters.cold_starts
    scene.scaling.start_from_zero(web(), 1, 1, NOW + 91.0)
    scene.scaling.replica_ready(KEY, NOW + 93.0)
    took = scene.counters.cold_starts[KEY]
    assert (took.count, took.sum) == (1, 2.0)


def test_only_a_service_at_zero_for_lack_of_traffic_is_started(scene: Scene) -> None:
    scene.scaling.start_from_zero(web(2), 1, 1, NOW)
    scene.scaling.start_from_zero(web(min=2, max=2), 1, 1, NOW)
    scene.store.set_override(KEY, Override(0, 0.0))
    scene.scaling.start_from_zero(web(), 1, 1, NOW)
    assert (scene.wanted(), scene.woken) == (None, 0)
    scene.store.set_override(KEY, Override(0, NOW - 1))
    scene.scaling.start_from_zero(web(), 1, 1, NOW)
    assert scene.wanted() == 1
