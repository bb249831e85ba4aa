"""How many replicas are worth keeping paused."""

import random

import pytest

from autoscaler import ScalingSettings, simulate
from autoscaler.policy import make, warm_pool
from autoscaler.policy.state import Rushes


def ordered(*orders: tuple[float, int], startup: float = 10.0) -> Rushes:
    rushes = Rushes()
    for now, count in orders:
        rushes = warm_pool.observe(rushes, count, startup, now)
    return rushes


@pytest.mark.parametrize(
    ("orders", "size"),
    [
        ([], 0),
        ([(1.0, 3)], 3),
        ([(1.0, 3), (5.0, 2), (11.0, 1)], 6),  # all within one start-up
        ([(1.0, 3), (20.0, 2)], 3),  # the pool was full again by then
        ([(1.0, 3), (20.0, -2), (21.0, 0)], 3),
        ([(1.0, 9), (40_000.0, 1)], 1),  # a rush of yesterday is forgotten
    ],
)
def test_the_pool_is_as_large_as_the_largest_rush(
    orders: list[tuple[float, int]], size: int
) -> None:
    assert warm_pool.size(ordered(*orders), 100) == size
    assert warm_pool.size(ordered(*orders), 2) == min(size, 2)


def test_what_is_remembered_is_bounded() -> None:
    rushes = ordered(*((30.0 * step, 1 + step % 7) for step in range(20_000)))
    assert len(rushes.largest) == warm_pool.KEPT
    assert len(rushes.orders) == 1
    assert warm_pool.size(rushes, 100) == 7


def test_a_learned_pool_catches_the_rushes_that_come_again() -> None:
    rates = ([20.0] * 170 + [300.0] * 30) * 8
    settings = ScalingSettings(min=1, max=60, latency=0.4, share=99.6)
    figures = {}
    for warm in (0, None):
        model = simulate.ServiceModel(warm=warm)
        figures[warm] = simulate.run(rates, make(settings), model, random.Random(1))
    assert figures[None].missed_pct < 0.6 * figures[0].missed_pct
    assert figures[None].warm_hours > 0.0 == figures[0].warm_hours
