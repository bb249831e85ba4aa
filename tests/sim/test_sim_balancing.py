"""The balancing rules in simulation, and the CPU cost of a pick."""

import sys
from collections.abc import Iterator

import pytest

from bench.balancing import Run, Scene
from bench.pick import cost
from proxy.wire.snapshot import Algorithm

BOUNDS = {10: 1.0, 100: 3.0}
"""Number of replicas → microseconds that a pick may cost on an idle machine."""
SLACK = 5.0
"""Machines are shared: a figure on a clock fails at this many times its bound."""


@pytest.fixture
def untraced() -> Iterator[None]:
    """Stop the measurement of coverage, which makes a line of Python several times slower."""
    trace = sys.gettrace()
    sys.settrace(None)
    yield
    sys.settrace(trace)


def missed(algorithm: Algorithm, load: float, workers: int = 1, *, equal: bool = False) -> float:
    slowness = (1.0,) * 20 if equal else Scene.slowness
    scene = Scene(slowness, load=load, seconds=60.0, workers=workers)
    return Run(algorithm, scene, seed=1).run().miss_percent


@pytest.mark.parametrize(
    ("load", "workers", "bound"), [(0.75, 1, 0.3), (0.9, 1, 0.6), (0.9, 4, 0.8)]
)
def test_hot_cold_keeps_away_from_slow_replicas(load: float, workers: int, bound: float) -> None:
    found = missed("hot-cold", load, workers)
    print(f"{found:.2f} % over the objective at load {load} with {workers} workers")
    assert found < bound


def test_hot_cold_beats_the_others() -> None:
    best = missed("hot-cold", 0.9)
    assert best < missed("peak-ewma", 0.9) / 2 < missed("least-request", 0.9)
    assert missed("round-robin", 0.9) > 15


@pytest.mark.parametrize("algorithm", ["hot-cold", "peak-ewma", "least-request", "round-robin"])
def test_hot_cold_is_as_good_on_equal_replicas(algorithm: Algorithm) -> None:
    assert missed(algorithm, 0.75, equal=True) < 0.3


def test_slow_replicas_take_load_that_fast_ones_cannot() -> None:
    """At 0.97 of all capacity the fast replicas alone would be overloaded by 5 %."""
    outcome = Run("hot-cold", Scene(load=0.97, seconds=60.0), seed=1).run()
    slow = sum(outcome.picked[:4]) / outcome.requests
    print(f"the slow ones got {slow:.1%}, {outcome.miss_percent:.2f} % were late or refused")
    assert 0.03 < slow < 0.08
    assert outcome.miss_percent < 15


@pytest.mark.parametrize(("replicas", "bound"), BOUNDS.items())
@pytest.mark.parametrize("algorithm", ["hot-cold", "peak-ewma", "weighted", "maglev", "ring-hash"])
@pytest.mark.usefixtures("untraced")
def test_a_pick_is_cheap(algorithm: Algorithm, replicas: int, bound: float) -> None:
    found = cost(algorithm, replicas, picks=2000, rounds=15)
    print(f"{algorithm}: {found:.2f} µs a pick of {replicas}, bound {bound}")
    assert found < SLACK * bound
