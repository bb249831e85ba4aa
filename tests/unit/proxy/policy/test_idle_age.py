"""For how long a connection may be idle before a request that must not be repeated."""

import pytest

from proxy.policy.idle_age import LONGEST, MEMORY, UNKNOWN, IdleAge


def test_nothing_is_known_at_first() -> None:
    assert IdleAge().fresh == UNKNOWN


@pytest.mark.parametrize(
    ("open_for", "fresh"), [(0.2, UNKNOWN), (2.0, 1.0), (3.0, LONGEST), (60.0, LONGEST)]
)
def test_half_of_the_time_that_a_connection_stays_open(open_for: float, fresh: float) -> None:
    age = IdleAge()
    age.saw_open(open_for, 10.0)
    assert age.fresh == fresh


@pytest.mark.parametrize(("closed", "fresh"), [(0.6, 0.3), (1.0, 0.5), (2.0, 0.5), (60.0, 0.5)])
def test_half_of_the_age_at_which_one_was_closed(closed: float, fresh: float) -> None:
    age = IdleAge()
    age.saw_close(closed, 10.0)
    assert age.fresh == fresh


def test_the_shortest_limit_counts() -> None:
    age = IdleAge()
    age.saw_open(5.0, 9.0)
    for closed in (0.8, 0.6, 0.9):
        age.saw_close(closed, 10.0)
    assert age.fresh == 0.3
    # Older connections that are open for a moment more do not change that.
    age.saw_open(1.5, 11.0)
    assert age.fresh == 0.3


def test_a_process_that_ends_says_nothing_of_an_idle_limit() -> None:
    age = IdleAge()
    age.saw_close(0.003, 10.0)
    assert age.fresh == UNKNOWN


def test_a_connection_that_stays_open_refutes_a_limit() -> None:
    age = IdleAge()
    age.saw_close(0.2, 10.0)
    assert age.fresh == 0.1
    age.saw_open(1.0, 11.0)
    assert age.fresh == UNKNOWN


def test_a_limit_is_forgotten() -> None:
    age = IdleAge()
    age.saw_close(0.2, 10.0)
    age.saw_open(0.1, 10.0 + MEMORY)
    assert age.fresh == 0.1
    age.saw_open(0.1, 10.1 + MEMORY)
    assert age.fresh == UNKNOWN
