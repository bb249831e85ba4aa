"""Capacity of the nodes: what each service gets, and the reason for the rest."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from meshd.capacity.allocate import GIB, Allocation, Demand, allocate, reservation
from meshd.model.rollout import Override
from meshd.model.runtime import Node
from meshd.spec.model import Service
from tests.fakes.scaling_scene import KEY, Scene, desired, replicas

SMALL = (Node("one", 4.0, 8 * GIB),)
TWO = (Node("one", 4.0, 8 * GIB), Node("two", 4.0, 8 * GIB))


def counts(allocations: dict[str, Allocation]) -> dict[str, int]:
    return {key: each.count for key, each in allocations.items()}


@pytest.mark.parametrize(
    ("nodes", "demands", "expected"),
    [
        ((), [Demand("a", 9, 1, memory=GIB)], {"a": 9}),
        (SMALL, [Demand("a", 9, 1)], {"a": 9}),
        (SMALL, [Demand("a", 9, 1, memory=GIB)], {"a": 8}),
        (TWO, [Demand("a", 9, 1, memory=3 * GIB)], {"a": 4}),
        (SMALL, [Demand("a", 9, 1, cpus=0.5, memory=GIB)], {"a": 8}),
        (SMALL, [Demand("a", 9, 1, cpus=1.5)], {"a": 2}),
        # In turns: the largest demand is cut, the other is met.
        (SMALL, [Demand("a", 9, 1, memory=GIB), Demand("b", 2, 1, memory=GIB)], {"a": 6, "b": 2}),
        # Higher priorities first, but never below another's minimum.
        (
            SMALL,
            [Demand("a", 9, 2, memory=GIB), Demand("b", 9, 1, 5, memory=GIB)],
            {"b": 6, "a": 2},
        ),
        # A fixed number counts even if it does not fit.
        (
            SMALL,
            [Demand("a", 12, 12, memory=GIB), Demand("b", 3, 1, memory=GIB)],
            {"a": 12, "b": 1},
        ),
        # A service that reserves nothing always fits.
        (SMALL, [Demand("a", 12, 12, memory=GIB), Demand("b", 3, 1)], {"a": 12, "b": 3}),
    ],
)
def test_nodes_are_shared_out(
    nodes: tuple[Node, ...], demands: list[Demand], expected: dict[str, int]
) -> None:
    assert counts(allocate(nodes, demands)) == expected
    assert counts(allocate(nodes, reversed(demands))) == expected


def test_the_reason_names_what_is_short() -> None:
    memory = allocate(SMALL, [Demand("a", 9, 1, memory=3 * GIB)])["a"]
    assert memory == Allocation(
        2,
        "a replica needs 3.00 GiB of memory and the node has 2.00 of 8.00 GiB free",
    )
    cpus = allocate(TWO, [Demand("a", 9, 1, cpus=1.5)])["a"]
    assert cpus.reason == "a replica needs 1.5 CPUs and the emptiest node has 1 of 8 free"


def test_the_reservation_of_a_replica() -> None:
    resources = {"cpus": 1.0, "memory": 256, "reserved_cpus": 0.25, "reserved_memory": 128}
    whole = Service.model_validate({"name": "web", "resources": resources})
    assert reservation(whole, limits_memory=True) == (0.25, 128)
    limited = Service.model_validate({"name": "web", "resources": {"cpus": 1.0, "memory": 256}})
    assert reservation(limited, limits_memory=True) == (0.0, 256)
    assert reservation(limited, limits_memory=False) == (0.0, 0)


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made = Scene(tmp_path)
    made.sampler.nodes = SMALL
    yield made
    made.close()


def test_a_service_is_capped_at_the_capacity_and_says_so_once(scene: Scene) -> None:
    spec = {"resources": {"reserved_memory": 2 * GIB}}
    service = desired(2, scale={"min": 1, "concurrency": 1}, spec=spec)
    for _ in range(5):
        scene.second(service, replicas(2), arrivals=90, took=0.1)
    assert scene.wanted() == 4
    short = [event for event in scene.events.since(0, 100) if event.kind == "scale.short"]
    assert [event.text.split(": a replica")[0] for event in short] == [
        "9 wanted, but capacity for 4 only"
    ]
    (last,) = scene.decisions.of(KEY, 0, 1)
    assert (last.desired, last.wanted) == (4, 9)
    assert "capacity for 4 only: a replica needs 2.00 GiB" in last.limits[0]
    scene.sampler.nodes = TWO
    for _ in range(5):
        scene.second(service, replicas(4), arrivals=90, took=0.1)
    assert scene.wanted() == 8


def test_a_number_set_by_hand_is_never_short_of_capacity(scene: Scene) -> None:
    spec = {"resources": {"reserved_memory": 2 * GIB}}
    service = desired(2, scale={"min": 1, "concurrency": 1}, spec=spec)
    scene.store.set_override(KEY, Override(2, 0.0))
    for _ in range(5):
        scene.second(service, replicas(2), arrivals=90, took=0.1)
    assert [event for event in scene.events.since(0, 100) if event.kind == "scale.short"] == []
    (last,) = scene.decisions.of(KEY, 0, 1)
    assert (last.wanted, last.limits) == (9, ())
