"""Burn rates: two windows, few misses, large budgets."""

import pytest

from meshd.notify.burn import MIN_MISSES, RULES, STEP, BurnWindow, burn_limit

FAST, MEDIUM = RULES
HOUR = 3600 // STEP


def window(*phases: tuple[int, int, int]) -> BurnWindow:
    """Return a window after phases of (steps, requests a step, misses a step)."""
    made = BurnWindow()
    requests = misses = 0
    made.add(0, 0)
    for steps, more_requests, more_misses in phases:
        for _ in range(steps):
            requests, misses = requests + more_requests, misses + more_misses
            made.add(requests, misses)
    return made


@pytest.mark.parametrize(
    ("factor", "budget", "limit"),
    [(14.4, 0.01, 0.144), (6.0, 0.01, 0.06), (14.4, 0.05, 0.525), (14.4, 0.5, 0.75)],
)
def test_the_limit_is_a_multiple_of_the_budget_and_below_all_requests(
    factor: float, budget: float, limit: float
) -> None:
    assert burn_limit(factor, budget) == pytest.approx(limit)


def test_without_traffic_nothing_burns() -> None:
    assert BurnWindow().find_burn(0.01) is None
    assert window((HOUR, 0, 0)).find_burn(0.01) is None


def test_many_misses_burn_fast() -> None:
    found = window((HOUR, 100, 20)).find_burn(0.01)
    assert found is not None
    assert (found.rule, found.ratio, found.budget) == (FAST, 0.2, 0.01)


def test_fewer_misses_burn_over_six_hours() -> None:
    assert window((6 * HOUR, 100, 8)).find_burn(0.01) is not None
    found = window((6 * HOUR, 100, 8)).find_burn(0.01)
    assert found is not None
    assert found.rule == MEDIUM
    assert window((6 * HOUR, 100, 5)).find_burn(0.01) is None


def test_it_ends_soon_after_the_last_miss() -> None:
    bad = (HOUR, 100, 50)
    assert window(bad).find_burn(0.01) is not None
    assert window(bad, (9, 100, 0)).find_burn(0.01) is not None
    # The six hours have seen enough misses, so the half hour of the second rule has to be over.
    assert window(bad, (1800 // STEP, 100, 0)).find_burn(0.01) is None


def test_a_few_misses_are_chance() -> None:
    assert window((MIN_MISSES, 1, 1)).find_burn(0.01) is None
    assert window((MIN_MISSES + 1, 1, 1)).find_burn(0.01) is not None


def test_smaller_counts_begin_again() -> None:
    made = window((HOUR, 100, 20))
    made.add(5, 5)
    assert made.find_burn(0.01) is None


def test_the_ring_forgets_what_is_older_than_six_hours() -> None:
    made = window((HOUR, 100, 100), (6 * HOUR, 100, 0), (3, 100, 5))
    assert made.find_burn(0.01) is None
