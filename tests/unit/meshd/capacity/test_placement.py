"""Placement constraints: which nodes meet them, and the problem if none does."""

from dataclasses import replace

import pytest

from meshd.capacity.placement import check
from meshd.model.runtime import Node
from meshd.spec.model import Service

ONE = Node("one", 4.0, 2**30, {"disk": "SSD", "com.example.zone": "a"})
TWO = Node("two", 4.0, 2**30)


def service(*constraints: str, **more: object) -> Service:
    return Service.model_validate({"name": "web", "placement": constraints, **more})


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


def test_nodes_without_a_proxy_are_no_place_for_mesh_managed_services() -> None:
    nodes = [replace(ONE, needs_proxy=True), replace(TWO, needs_proxy=True, has_proxy=False)]
    pinned = service("node.hostname==two")
    assert check([service()], nodes) == []
    assert check([pinned], nodes) == [
        "service web: node two has no proxy: run `meshd node join` there"
    ]
    assert check([pinned.model_copy(update={"plain": True})], nodes) == []


def test_without_known_nodes_there_is_no_problem() -> None:
    assert not check([service("node.hostname==three")], [])


def test_only_a_swarm_checks_what_only_a_swarm_has() -> None:
    workers = service(swarm_constraints=["node.role==worker"])
    managers = [Node("m1", 1.0, 2**30, role="leader"), Node("m2", 1.0, 2**30, role="manager")]
    assert check([workers], managers) == []
    (problem,) = check([workers], managers, swarm=True)
    assert problem.startswith("service web: no node meets deploy.placement.constraints node.role")


@pytest.mark.parametrize(
    ("fields", "problems"),
    [
        ({"max_per_node": 2, "replicas": 4}, []),
        (
            {"max_per_node": 2, "replicas": 5},
            ["service web: deploy.placement.max_replicas_per_node: 2 allows 4 replicas on one, "
             "two, and deploy.replicas is 5"],
        ),
        ({"mode": "global", "replicas": 5}, []),
    ],
)  # fmt: skip
def test_too_many_replicas_for_the_nodes(fields: dict[str, object], problems: list[str]) -> None:
    assert check([service(**fields)], [ONE, TWO], swarm=True) == problems
    assert check([service(**fields)], [ONE, TWO]) == []
