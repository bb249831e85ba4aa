"""The size of the warm pool."""

import random

import pytest

from autoscaler import ScalingSettings, simulate
from autoscaler.policy import make, warm_pool
from autoscaler.policy.state import BurstHistory


def ordered(*orders: tuple[float, int], startup: float = 10.0) -> BurstHistory:
    history = BurstHistory()
    for now, count in orders:
        history = warm_pool.observe(history, count, startup, now)
    return history


@pytest.mark.parametrize(
    ("orders", "size"),
    [
        ([], 0),
        ([(1.0, 3)], 3),
        ([(1.0, 3), (5.0, 2), (11.0, 1)], 6),  # all within one start-up time
        ([(1.0, 3), (20.0, 2)], 3),  # the pool was full again by then
        ([(1.0, 3), (20.0, -2), (21.0, 0)], 3),
        ([(1.0, 9), (40_000.0, 1)], 1),  # the large burst is forgotten after six hours
    ],
)
def test_the_pool_is_as_large_as_the_largest_burst(
    orders: list[tuple[float, int]], size: int
) -> None:
    assert warm_pool.pool_size(ordered(*orders), 100) == size
    assert warm_pool.pool_size(ordered(*orders), 2) == min(size, 2)


def test_the_history_is_bounded() -> None:
    history = ordered(*((30.0 * step, 1 + step % 7) for step in range(20_000)))
    assert len(history.largest) == warm_pool.KEPT
    assert len(history.orders) == 1
    assert warm_pool.pool_size(history, 100) == 7


def test_a_learned_pool_serves_bursts_that_come_again() -> None:
    rates = ([20.0] * 170 + [300.0] * 30) * 8
    settings = ScalingSettings(min=1, max=60, latency=0.4, share=99.6)
    figures = {}
    for warm in (0, None):
        model = simulate.ServiceModel(warm=warm)
        figures[warm] = simulate.run(rates, make(settings), model, random.Random(1))
    assert figures[None].missed_pct < 0.6 * figures[0].missed_pct
    assert figures[None].warm_hours > 0.0 == figures[0].warm_hours
