"""Which replica moves next, until each service is spread evenly over the nodes."""

from typing import Any

import pytest

from meshd.capacity.rebalance import count_moves, next_move
from meshd.model.desired import DesiredService
from meshd.model.replica import Replica
from meshd.model.replica_phase import Phase
from meshd.model.rollout import NO_ROLLOUT, Rollout, RolloutState
from meshd.model.runtime import Availability, Node
from meshd.spec.model import Service
from tests.support.rollouts import rollout

NODES = [Node(name, 4.0, 2**33) for name in ("m1", "w1", "w2")]


def wanted(latest: Rollout = NO_ROLLOUT, **spec: Any) -> DesiredService:
    given = {"name": "web", "image": "app", "update": {"order": "start-first"}, **spec}
    return DesiredService("shop", Service.model_validate(given), "r", 6, latest)


def group(counts: dict[str, int], **fields: Any) -> list[Replica]:
    given = {"phase": Phase.READY, **fields}
    return [
        Replica(f"web-{node}-{number}", "shop", "web", "r", node=node, created_at=number, **given)
        for node, count in counts.items()
        for number in range(count)
    ]


@pytest.mark.parametrize(
    ("counts", "moves", "first"),
    [
        ({"m1": 3, "w1": 3}, 2, ("web-w1-2", "w2")),
        ({"m1": 2, "w1": 2, "w2": 2}, 0, None),
        ({"m1": 2, "w1": 2, "w2": 1}, 0, None),
        ({"m1": 6}, 4, ("web-m1-5", "w1")),
        ({"m1": 1}, 0, None),
        ({}, 0, None),
    ],
)
def test_replicas_move_to_the_node_with_the_fewest(
    counts: dict[str, int], moves: int, first: tuple[str, str] | None
) -> None:
    service = wanted()
    replicas = {service.key: group(counts)}
    assert count_moves([service], replicas, NODES) == moves
    move = next_move([service], replicas, NODES)
    assert (move and (move[0].name, move[1].name)) == first


@pytest.mark.parametrize(
    "service",
    [
        wanted(update={"order": "stop-first"}),
        wanted(volumes=[{"type": "volume", "source": "data", "target": "/d"}]),
        wanted(rollout(state=RolloutState.ROLLING)),
        wanted(placement=["node.hostname==m1"]),
        wanted(mode="global"),
        wanted(mesh={"placement": "pack"}),
    ],
    ids=["stops first", "has data", "is in a rollout", "is pinned", "is everywhere", "is packed"],
)
def test_which_services_stay(service: DesiredService) -> None:
    replicas = {service.key: group({"m1": 4})}
    assert next_move([service], replicas, NODES) is None
    assert count_moves([service], replicas, NODES) == 0


def test_a_replica_does_not_move_next_to_one_that_it_is_apart_from() -> None:
    service = wanted(mesh={"placement": {"apart_from": "db"}})
    db = Replica("db-1", "shop", "db", "r", node="w1", phase=Phase.READY)
    replicas = {service.key: group({"m1": 4}), "shop/db": [db]}
    move = next_move([service], replicas, NODES)
    assert move is not None
    assert move[1].name == "w2"
    assert count_moves([service], replicas, NODES) == 2


def test_nothing_moves_while_a_replica_moves_or_a_node_is_cordoned() -> None:
    service = wanted()
    for fields in ({"replaced_for": "moved"}, {"busy": True}, {"unready": "503"}):
        replicas = {service.key: [*group({"m1": 4}), *group({"w1": 1}, **fields)]}
        assert next_move([service], replicas, NODES) is None
    cordoned = [
        NODES[0],
        *(Node(n.name, 4.0, 1, availability=Availability.PAUSE) for n in NODES[1:]),
    ]
    assert next_move([service], {service.key: group({"m1": 4})}, cordoned) is None
