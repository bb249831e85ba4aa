"""The node for one more replica: within limits, evenly over labels, and where the fewest run."""

from typing import Any

import pytest

from meshd.model.node_proxy import NodeLoad
from meshd.model.runtime import Availability, Node
from meshd.runtime.swarm.placement import NodeChoice, PendingPlaces, choose
from meshd.spec.model import Service


def node(name: str, zone: str = "", **fields: Any) -> Node:
    labels = {"zone": zone} if zone else {}
    return Node(name, 4.0, 2**33, labels, role="worker", **fields)


ABC = [node("a", "north"), node("b", "north"), node("c", "south")]
ZONES = {"spread": ["node.labels.zone"]}


@pytest.mark.parametrize(
    ("fields", "own", "tasks", "choice"),
    [
        ({}, {}, {}, NodeChoice("a")),
        ({}, {"a": 1}, {}, NodeChoice("b")),
        ({}, {"a": 1, "b": 1, "c": 1}, {"a": 5, "b": 4, "c": 9}, NodeChoice("b")),
        (ZONES, {"a": 1}, {}, NodeChoice("c")),
        (ZONES, {"a": 1, "c": 1}, {}, NodeChoice("b")),
        (ZONES, {"a": 1, "b": 1, "c": 1}, {}, NodeChoice("c")),
        ({"max_per_node": 1}, {"a": 1, "b": 1}, {}, NodeChoice("c", ("a", "b"))),
        ({"max_per_node": 1}, {"a": 1, "b": 1, "c": 1}, {}, NodeChoice(None, ("a", "b", "c"))),
        ({"mode": "global"}, {"b": 1}, {"a": 9}, NodeChoice("c", ("b",))),
        ({"placement": ["node.labels.zone==south"]}, {"c": 7}, {}, NodeChoice("c")),
        ({"swarm_constraints": ["node.role==manager"]}, {}, {}, NodeChoice()),
        ({"resources": {"reserved_cpus": 5.0}}, {}, {}, NodeChoice()),
        ({"resources": {"reserved_memory": 2**34}}, {}, {}, NodeChoice()),
    ],
)
def test_which_node_is_chosen(
    fields: dict[str, Any], own: dict[str, int], tasks: dict[str, int], choice: NodeChoice
) -> None:
    service = Service.model_validate({"name": "web", **fields})
    assert choose(service, ABC, own, tasks) == choice


def test_only_nodes_with_a_proxy_get_mesh_managed_services() -> None:
    closed = [node("a", needs_proxy=True), node("b", needs_proxy=True, has_proxy=False)]
    managed = Service.model_validate({"name": "web"})
    assert choose(managed, closed, {"a": 9}, {}) == NodeChoice("a", closed=("b",))
    assert choose(managed, closed, {}, {}, avoid=["a"]) == NodeChoice(None, closed=("b",))
    assert NodeChoice(None, closed=("b",)).excluded == ("b",)
    plain = managed.model_copy(update={"plain": True})
    assert choose(plain, closed, {"a": 9}, {}) == NodeChoice("b")
    lost = [node("a", lost_proxy=True), node("b")]
    assert choose(managed, lost, {"b": 9}, {}) == NodeChoice("b", closed=("a",))
    allowed = [node("a"), node("b", has_proxy=False)]
    assert choose(managed, allowed, {"a": 9}, {}) == NodeChoice("b")


@pytest.mark.parametrize(
    ("own", "loads", "chosen"),
    [
        ({}, {"a": 0.8, "b": 0.3}, "c"),
        ({}, {"a": 0.8, "b": 0.3, "c": 0.6}, "b"),
        ({}, {"a": 0.20, "b": 0.01, "c": 0.01}, "a"),  # hardly a difference
        ({"c": 1}, {"a": 0.8, "b": 0.6}, "b"),  # replicas are spread first
        ({"c": 1}, {"a": 0.95, "b": 0.95, "c": 0.1}, "c"),  # unless all others are busy
        ({"c": 2}, {"a": 0.95, "b": 0.95, "c": 0.1}, "a"),  # which counts as one replica
    ],
)
def test_of_nodes_with_as_many_replicas_the_less_busy_one_is_chosen(
    own: dict[str, int], loads: dict[str, float], chosen: str
) -> None:
    nodes = [node(n, load=NodeLoad(loads[n], 0.1) if n in loads else None) for n in "abc"]
    assert choose(Service(name="web"), nodes, own, {}) == NodeChoice(chosen)


def test_packing_leaves_a_busy_node_out() -> None:
    nodes = [node("a", reserved_memory=2**32, load=NodeLoad(0.1, 0.95)), node("b")]
    assert choose(Service.model_validate({"name": "web", **PACK}), nodes, {}, {}).node == "b"
    assert choose(Service.model_validate({"name": "web", **PACK}), nodes[:1], {}, {}).node == "a"


@pytest.mark.parametrize(
    ("fields", "nodes", "own", "tasks", "reason"),
    [
        ({}, "abc", {"a": 1, "b": 1}, {}, "fewest replicas of the service"),
        ({}, "abc", {"a": 1}, {"b": 3}, "fewest replicas of the service, then fewest tasks"),
        ({}, "abc", {}, {}, "first by name among equals"),
        ({}, "a", {}, {}, ""),
        ({"max_per_node": 1}, "abc", {"a": 1, "c": 1}, {}, "the only node that fits"),
        (ZONES, "abc", {"a": 1}, {}, "fewest replicas by node.labels.zone"),
        (
            ZONES,
            "abc",
            {"a": 1, "c": 1},
            {},
            "fewest replicas by node.labels.zone, then fewest replicas of the service",
        ),
    ],
)
def test_a_choice_says_why(
    fields: dict[str, Any], nodes: str, own: dict[str, int], tasks: dict[str, int], reason: str
) -> None:
    service = Service.model_validate({"name": "web", **fields})
    known = [each for each in ABC if each.name in nodes]
    assert choose(service, known, own, tasks).reason == reason


def test_a_choice_names_observed_use() -> None:
    nodes = [node(n, load=NodeLoad(cpu, 0.1)) for n, cpu in (("a", 0.7), ("b", 0.2))]
    assert choose(Service(name="web"), nodes, {}, {}).reason == "less busy"
    packed = Service.model_validate({"name": "web", **PACK})
    full = [node("a", reserved_memory=2**32, load=NodeLoad(0.95, 0.1)), node("b"), node("c")]
    assert choose(packed, full, {}, {}).reason == "not busy, then first by name among equals"
    assert choose(Service(name="web"), full, {"b": 2, "c": 1}, {"a": 1}).reason == (
        "fewest replicas of the service, of which a busy node counts one more, then less busy"
    )


PACK = {"mesh": {"placement": "pack"}}


@pytest.mark.parametrize(
    ("free", "tasks", "node_name"),
    [
        # (reserved cores, reserved bytes) of a, b and c
        ([(0.0, 0), (0.0, 2**30), (0.0, 0)], {"a": 9}, "b"),
        ([(0.0, 0), (1.0, 0), (0.0, 0)], {}, "b"),
        ([(0.0, 0), (0.0, 0), (0.0, 0)], {"c": 2, "b": 1}, "c"),
        # b is the fullest one, but a replica does not fit there
        ([(0.0, 0), (0.0, 2**33), (0.0, 1)], {}, "c"),
    ],
)
def test_packing_takes_the_fullest_node_that_has_room(
    free: list[tuple[float, int]], tasks: dict[str, int], node_name: str
) -> None:
    nodes = [
        node(name, reserved_cpus=cpus, reserved_memory=memory)
        for name, (cpus, memory) in zip("abc", free, strict=True)
    ]
    needs = {"resources": {"reserved_memory": 2**20}}
    service = Service.model_validate({"name": "web", **PACK, **needs})
    assert choose(service, nodes, {node_name: 3}, tasks) == NodeChoice(node_name)


def test_replicas_are_kept_apart() -> None:
    service = Service.model_validate({"name": "web"})
    found = choose(service, ABC, {}, {}, apart=["b", "a"])
    assert found == NodeChoice("c", apart=("a", "b"))
    nowhere = choose(service, ABC, {}, {}, apart=["a", "b", "c"])
    assert nowhere.node is None
    assert nowhere.excluded == ("a", "b", "c")
    pending = PendingPlaces({"db-1": ("shop/db/r1", "a"), "web-1": ("shop/web/r1", "b")})
    assert pending.nodes_of({"shop/db"}) == {"a"}


def test_nodes_that_take_no_replicas_or_do_not_answer_are_left_out() -> None:
    nodes = [
        node("a", availability=Availability.PAUSE),
        node("b", state="down"),
        node("c"),
        node("d", reserved_cpus=3.5),
        node("e"),
    ]
    service = Service.model_validate({"name": "web", "resources": {"reserved_cpus": 1.0}})
    assert choose(service, nodes, {}, {}, avoid=["c"]) == NodeChoice("e")


def test_replicas_that_start_at_the_same_time_know_of_each_other() -> None:
    pending = PendingPlaces({"web-1": ("web", "a"), "web-2": ("web", "a"), "db-1": ("db", "b")})
    assert pending.count("web", ["web-1"]) == {"a": 1}
