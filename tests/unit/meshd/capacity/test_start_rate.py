"""What the nodes can start, learned from the starts that were seen."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.capacity.start_rate import (
    FIRST_PATIENCE,
    MEMORY,
    ReplicaStart,
    grant_starts,
    observe,
    start_capacity,
    starts_under_way,
)
from meshd.model.replica import Replica
from meshd.model.replica_phase import Phase

NOW = 10_000.0


def started(*spans: tuple[float, float], key: str = "shop/web") -> tuple[ReplicaStart, ...]:
    return tuple(ReplicaStart(key, begin, end) for begin, end in spans)


def replica(phase: Phase = Phase.READY, **more: Any) -> Replica:
    more = {"name": "web-1", "service": "web", **more}
    return Replica(project="shop", revision="r", phase=phase, **more)


@pytest.mark.parametrize(
    ("starts", "expected"),
    [
        # Nothing was seen: twice the slots.
        ((), 4),
        # One at a time shows nothing about more.
        (started((0, 1), (10, 11)), 2),
        # Four at the same time were as fast as one.
        (started((0, 1), *[(10, 11)] * 4), 6),
        # Eight at the same time took four times as long as one: the nodes carry two.
        (started((0, 1), *[(10, 14)] * 8), 3),
        # The same, ready one after the other.
        (started((0, 1), *[(10, 11 + n / 2) for n in range(1, 9)]), 3),
        # A slow and a quick service each have their own best time.
        (started((0, 30), (0, 30)) + started((0, 1), (0, 1), key="shop/quick"), 4),
        # Programs that only wait while they start: never more than 16 for each slot.
        (started((0, 1), *[(10, 11)] * 100), 32),
    ],
)
def test_the_starts_that_the_nodes_carry(starts: tuple[ReplicaStart, ...], expected: int) -> None:
    assert start_capacity(starts, slots=2) == expected


@pytest.mark.parametrize(
    ("seen", "counts"),
    [
        (replica(created_at=NOW - 5, ready_since=NOW - 0.5), True),
        (replica(created_at=NOW - 5, ready_since=NOW - 2), False),
        (replica(created_at=NOW - 500, ready_since=NOW - 0.5), False),
        (replica(created_at=NOW - 5, ready_since=NOW - 0.5, resumed_at=NOW - 1), False),
        (replica(created_at=NOW - 5, ready_since=NOW - 0.5, managed=False), False),
        (replica(Phase.PROBING, created_at=NOW - 5), False),
    ],
)
def test_starts_that_meshd_saw_from_beginning_to_end_count(seen: Replica, counts: bool) -> None:
    found = observe((), [seen], first=NOW - 100, since=NOW - 1, now=NOW)
    assert found == (started((NOW - 5, NOW - 0.5)) if counts else ())
    assert observe(found, [], NOW - 100, NOW, NOW + MEMORY) == ()


@pytest.mark.parametrize(
    ("seen", "counts"),
    [
        (replica(Phase.PENDING, since=NOW - 1), True),
        (replica(Phase.STARTING, created_at=NOW - 9), True),
        (replica(Phase.PROBING, created_at=NOW - 9), True),
        # Twice as long as the longest one that was seen.
        (replica(Phase.PROBING, created_at=NOW - 10), False),
        (replica(Phase.PROBING, created_at=NOW - 10, service="other"), True),
        (replica(Phase.PROBING, created_at=NOW - FIRST_PATIENCE, service="other"), False),
        (replica(Phase.READY, created_at=NOW - 1), False),
        (replica(Phase.FAILED, created_at=NOW - 1), False),
    ],
)
def test_a_start_is_under_way_until_it_takes_too_long(seen: Replica, counts: bool) -> None:
    found = starts_under_way([seen], started((0, 5), (0, 1)), NOW)
    assert found == ({seen.key: 1} if counts else {})


@pytest.mark.parametrize(
    ("wanted", "priorities", "free", "expected"),
    [
        ({"a": 3, "b": 1}, {}, 9, {"a": 3, "b": 1}),
        ({"a": 3, "b": 3}, {}, 4, {"a": 2, "b": 2}),
        ({"a": 9, "b": 1}, {}, 4, {"a": 3, "b": 1}),
        ({"a": 3, "b": 3}, {"b": 1}, 4, {"a": 1, "b": 3}),
        ({"a": 3, "b": 3}, {}, 1, {"a": 1, "b": 0}),
        ({"a": 3}, {}, 0, {"a": 0}),
        ({}, {}, 4, {}),
    ],
)
def test_services_take_turns_within_a_priority(
    wanted: dict[str, int], priorities: dict[str, int], free: int, expected: dict[str, int]
) -> None:
    assert grant_starts(wanted, priorities, free) == expected


@given(
    st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 9)),
    st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 2)),
    st.integers(0, 40),
)
def test_all_free_starts_are_granted_and_no_more(
    wanted: dict[str, int], priorities: dict[str, int], free: int
) -> None:
    granted = grant_starts(wanted, priorities, free)
    assert granted.keys() == wanted.keys()
    assert all(0 <= granted[key] <= wanted[key] for key in wanted)
    assert sum(granted.values()) == min(free, sum(wanted.values()))
