"""Which nodes meet which constraints."""

import pytest

from meshd.model.placement import allowed_nodes, count_global, label_of, meets
from meshd.model.runtime import Availability, Node
from meshd.spec.model import Service

ONE = Node("one", 4.0, 2**30, {"disk": "SSD", "com.example.zone": "a"})
TWO = Node("two", 4.0, 2**30)
LEADER = Node("m1", 1.0, 1, role="leader", id="abc", platform="linux/x86_64")
WORKER = Node("w1", 1.0, 1, role="worker", id="def", platform="linux/aarch64")


@pytest.mark.parametrize(
    ("constraint", "one", "two"),
    [
        ("node.hostname==one", True, False),
        ("node.hostname != one", False, True),
        ("node.labels.disk==ssd", True, False),
        ("engine.labels.disk == ssd", True, False),
        ("node.labels.disk!=ssd", False, True),
        ("node.labels.com.example.zone==a", True, False),
    ],
)
def test_which_nodes_meet_a_constraint(constraint: str, one: bool, two: bool) -> None:
    assert (meets(ONE, constraint), meets(TWO, constraint)) == (one, two)


@pytest.mark.parametrize(
    ("constraint", "leader", "worker"),
    [
        ("node.role==manager", True, False),
        ("node.role == worker", False, True),
        ("node.id!=abc", False, True),
        ("node.platform.os==linux", True, True),
        ("node.platform.arch==x86_64", True, False),
    ],
)
def test_constraints_that_only_a_swarm_has(constraint: str, leader: bool, worker: bool) -> None:
    assert (meets(LEADER, constraint), meets(WORKER, constraint)) == (leader, worker)


def test_a_global_service_has_one_replica_for_each_node_that_takes_some() -> None:
    workers = Service(name="web", mode="global", swarm_constraints=("node.role==worker",))
    drained = Node("w2", 1.0, 1, role="worker", availability=Availability.DRAIN)
    nodes = [LEADER, WORKER, drained]
    assert allowed_nodes(workers, nodes) == [WORKER, drained]
    assert count_global(workers, nodes) == 1
    assert (label_of(ONE, "node.labels.disk"), label_of(TWO, "engine.labels.disk")) == ("SSD", "")
