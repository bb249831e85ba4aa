"""Constraints of placement: which nodes meet them, and who is told that none does."""

import pytest

from meshd.capacity.placement import meets, refusals
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
def test_one_node_that_meets_them_all_is_enough(constraints: tuple[str, ...]) -> None:
    assert not list(refusals([service(*constraints)], [ONE, TWO]))


def test_who_may_be_nowhere_is_told_what_there_is() -> None:
    never = service("node.labels.disk==ssd", "node.hostname==two")
    assert list(refusals([service(), never], [ONE, TWO])) == [
        "service web: no node meets deploy.placement.constraints node.labels.disk==ssd, "
        "node.hostname==two; there is one (labels com.example.zone=a, disk=SSD), "
        "two (without labels)"
    ]


def test_an_engine_that_is_away_refuses_nothing() -> None:
    assert not list(refusals([service("node.hostname==three")], []))
