"""The preference for the own node in simulation: requests stay, and no node is overloaded."""

import pytest

from bench.locality import Nodes, mean_locality
from proxy.wire.snapshot import Algorithm

SEEDS = (1, 2)


@pytest.mark.parametrize("algorithm", ["hot-cold", "least-request"])
def test_with_clients_everywhere_most_requests_stay(algorithm: Algorithm) -> None:
    found = mean_locality(algorithm, Nodes(load=0.6, seconds=20.0), SEEDS)
    print(found)
    assert found.local > 0.75
    assert found.missed < 0.3


@pytest.mark.parametrize("uneven", [0.4, 0.8])
@pytest.mark.parametrize("algorithm", ["hot-cold", "least-request"])
def test_with_most_clients_at_one_node_it_is_not_overloaded(
    algorithm: Algorithm, uneven: float
) -> None:
    """At 0.75 of all capacity, with 1.2 and 2.4 times the capacity of the first node's replicas."""
    scene = Nodes(load=0.75, seconds=20.0, uneven=uneven)
    found = mean_locality(algorithm, scene, SEEDS)
    without = mean_locality(algorithm, Nodes(**{**vars(scene), "prefer": False}), SEEDS)
    print(found, without)
    assert found.local > without.local + 0.1
    assert found.p99 < 1.15 * without.p99
    assert found.first_p99 < 1.15 * without.first_p99
    assert found.missed < without.missed + 0.2
