"""Placement constraints: which nodes meet them, and the problem if none does."""

import pytest

from meshd.capacity.placement import check, meets
from meshd.model.runtime import Node
from meshd.spec.model import Service

ONE = Node("one", 4.0, 2**30, {"disk": "SSD", "com.example.zone": "a"})
TWO = Node("two", 4.0, 2**30)


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


def service(*constraints: str) -> Service:
    return Service.model_validate({"name": "web", "placement": constraints})


@pytest.mark.parametrize(
    "constraints", [(), ("node.hostname==two",), ("node.labels.disk==ssd", "node.hostname!=two")]
)
def test_one_node_that_meets_all_constraints_is_enough(constraints: tuple[str, ...]) -> None:
    assert not check([service(*constraints)], [ONE, TWO])


def test_the_problem_lists_the_nodes() -> None:
    never = service("node.labels.disk==ssd", "node.hostname==two")
    assert check([service(), never], [ONE, TWO]) == [
        "service web: no node meets deploy.placement.constraints node.labels.disk==ssd, "
        "node.hostname==two; the nodes are one (labels com.example.zone=a, disk=SSD), "
        "two (no labels)"
    ]


def test_without_known_nodes_there_is_no_problem() -> None:
    assert not check([service("node.hostname==three")], [])
