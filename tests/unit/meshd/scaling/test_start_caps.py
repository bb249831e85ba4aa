"""Caps on growing numbers by what the nodes can start."""

import re
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.capacity.start_rate import ReplicaStart
from meshd.model.replica import Replica
from meshd.model.replica_phase import Phase
from meshd.scaling.start_caps import Growth, growth_of, not_yet_started, start_caps
from tests.fakes.scaling_scene import KEY, Scene, desired, replicas


@pytest.mark.parametrize(
    ("current", "minimum", "paused", "base"),
    [(3, 1, 0, 3), (3, 5, 0, 5), (3, 1, 2, 5), (0, 0, 0, 1)],
)
def test_the_replicas_that_a_service_gets_in_any_case(
    current: int, minimum: int, paused: int, base: int
) -> None:
    pool = [msgspec.structs.replace(r, phase=Phase.PAUSED, warm=True) for r in replicas(paused)]
    assert growth_of(current, 9, minimum, 0, [*replicas(2), *pool]) == Growth(9, base)


STARTS = (ReplicaStart(KEY, 0.0, 5.0),)


@pytest.mark.parametrize(
    ("current", "group", "age", "expected"),
    [
        (5, replicas(3), 1.0, 2),
        (3, replicas(3), 1.0, 0),
        (2, replicas(3), 1.0, 0),
        (5, replicas(3), 11.0, 0),  # Longer than any start: those missing have failed.
        (5, replicas(3, warm=True), 1.0, 5),
        (5, [], 29.0, 5),
        (5, [], 31.0, 0),
    ],
)
def test_replicas_that_wait_for_their_start(
    current: int, group: list[Replica], age: float, expected: int
) -> None:
    assert not_yet_started(current, group, age, STARTS) == expected


@pytest.mark.parametrize(
    ("growths", "under_way", "caps"),
    [
        ({"a": Growth(5, 2)}, 0, {}),
        ({"a": Growth(9, 2)}, 0, {"a": (6, "6 for now: 0 starts are under way")}),
        ({"a": Growth(9, 2)}, 1, {"a": (5, "5 for now: 1 start is under way")}),
        ({"a": Growth(9, 2)}, 7, {"a": (2, "2 for now: 7 starts are under way")}),
        ({"a": Growth(3, 1), "b": Growth(9, 2, 1)}, 1,
         {"a": (1, "1 for now: 4 starts are under way"),
          "b": (5, "5 for now: 1 start is under way")}),
        ({"a": Growth(3, 5)}, 4, {}),
    ],
)  # fmt: skip
def test_numbers_grow_as_far_as_the_nodes_can_start_replicas(
    growths: dict[str, Growth], under_way: int, caps: dict[str, tuple[int, str]]
) -> None:
    found = start_caps(growths, under_way, capacity=4)
    assert found.keys() == caps.keys()
    for key, (number, text) in caps.items():
        assert found[key].number == number
        assert found[key].limit == "starts"
        assert text in found[key].reason
        assert "the nodes carry about 4 at the same time" in found[key].reason


growths = st.builds(Growth, st.integers(0, 40), st.integers(0, 20), st.integers(0, 2))


@given(st.dictionaries(st.sampled_from("abcd"), growths), st.integers(0, 20), st.integers(1, 20))
def test_the_text_of_a_cap_never_contradicts_its_numbers(
    services: dict[str, Growth], under_way: int, capacity: int
) -> None:
    for key, cap in start_caps(services, under_way, capacity).items():
        found = re.fullmatch(
            r"but (\d+) for now: (\d+) starts? (?:is|are) under way, and the nodes carry about "
            r"(\d+) at the same time",
            cap.reason,
        )
        assert found
        number, used, carried = map(int, found.groups())
        assert (number, carried) == (cap.number, capacity)
        assert services[key].base <= number < services[key].needed
        assert used >= capacity - (number - services[key].base)


def test_a_rush_orders_what_the_nodes_can_start_and_more_when_they_are_ready(
    tmp_path: Path,
) -> None:
    scene = Scene(tmp_path, start_slots=2)
    service = desired(1, scale={"min": 1, "max": 20, "rps": 10})
    group = replicas(1)
    for _ in range(3):
        scene.second(service, group, arrivals=150)
    assert scene.wanted() == 5  # Nothing was seen yet: two for each slot.
    (record,) = scene.decisions.of(KEY, 0, 1)
    assert record.desired == 5
    assert "wanted, but 5 for now: 0 starts are under way" in record.reason
    group += [
        msgspec.structs.replace(r, created_at=scene.clock, ready_since=scene.clock + 1.0)
        for r in replicas(5)[1:]
    ]
    scene.second(service, group, arrivals=150)
    # Four at the same time took as long as one.
    assert scene.wanted() == 11
    text = ", ".join(event.text for event in scene.events.since(0, 99))
    assert "1 → 5: the load needs more replicas" in text
    scene.close()


def test_healing_in_any_service_precedes_growth(tmp_path: Path) -> None:
    scene = Scene(tmp_path, start_slots=2)
    service = desired(1, scale={"min": 1, "max": 20, "rps": 10})
    coming = [
        Replica(
            name=f"other-{n}", project="shop", service="other", revision="r", phase=Phase.PENDING,
            since=scene.clock, attempt=1,
        )
        for n in range(3)
    ]  # fmt: skip
    for _ in range(2):
        scene.second(service, replicas(1), arrivals=150, others=coming)
    assert scene.wanted() == 2
    scene.close()


@pytest.mark.parametrize(("slots", "floor"), [(2, 4), (0, 15)])
def test_a_start_from_zero_orders_what_the_nodes_can_start(
    tmp_path: Path, slots: int, floor: int
) -> None:
    scene = Scene(tmp_path, start_slots=slots)
    scene.scaling.start_from_zero(desired(0), worker=1, parked=30, now=scene.clock)
    assert scene.wanted() == floor
    scene.close()
