"""Whether the replicas of a node fit elsewhere, and what a drain does next."""

from typing import Any

import pytest

from meshd.capacity.allocate import GIB
from meshd.capacity.node_drain import (
    DrainAction,
    find_obstacles,
    next_action,
    replicas_on,
    to_replace,
)
from meshd.model.desired import DesiredService
from meshd.model.replica import Replica
from meshd.model.replica_phase import Phase
from meshd.model.rollout import NO_ROLLOUT, Rollout, RolloutState
from meshd.model.runtime import Availability, Node
from meshd.spec.model import Service
from tests.support.rollouts import rollout

W1 = Node("w1", 4.0, 8 * GIB, {"disk": "ssd"})
M1 = Node("m1", 4.0, 8 * GIB, reserved_cpus=3.0, reserved_memory=4 * GIB)
NAMED = Node("m1", 4.0, 8 * GIB)


def wanted(name: str = "web", latest: Rollout = NO_ROLLOUT, **spec: Any) -> DesiredService:
    made = Service.model_validate({"name": name, "image": "app", **spec})
    return DesiredService("shop", made, "r", 2, latest)


def replica(name: str, service: str = "web", **fields: Any) -> Replica:
    given = {"phase": Phase.READY, "node": "w1", **fields}
    return Replica(name, "shop", service, "r", **given)


BIG = {"resources": {"reserved_cpus": 1.0, "reserved_memory": 3 * GIB}}
VOLUME = {"volumes": [{"type": "volume", "source": "data", "target": "/d"}]}


@pytest.mark.parametrize(
    ("service", "count", "nodes", "force", "obstacles"),
    [
        (wanted(), 9, (W1, M1), False, []),
        (wanted(**BIG), 1, (W1, M1), False, []),
        (
            wanted(**BIG), 2, (W1, M1), False,
            ["shop/web: a replica reserves 1 CPUs and 3.00 GiB, and m1, the emptiest node for it, "
             "has 0 and 1.00 GiB free"],
        ),
        (wanted(**BIG), 2, (W1, M1, Node("m2", 4.0, 8 * GIB)), False, []),
        (
            wanted(placement=["node.labels.disk==ssd"]), 1, (W1, M1), False,
            ["shop/web: no other node meets deploy.placement.constraints node.labels.disk==ssd"],
        ),
        (
            wanted(**VOLUME), 1, (W1, M1), False,
            ["shop/web: volume data is on w1, and a replica elsewhere gets an empty one; move the "
             "data first, or leave it behind with --force"],
        ),
        (wanted(**VOLUME), 1, (W1, M1), True, []),
        (
            wanted(latest=rollout(state=RolloutState.PAUSED)), 1, (W1, M1), False,
            ["shop/web: its rollout is paused; `meshd rollout resume web` or undo it first"],
        ),
        (
            wanted(), 1,
            (W1, Node("m1", 4.0, GIB, availability=Availability.PAUSE),
             Node("m2", 4.0, GIB, state="down"),
             Node("m3", 4.0, GIB, availability=Availability.DRAIN)),
            False,
            ["no other node takes replicas (m1 is cordoned, m2 is down, m3 is drained)"],
        ),
        (wanted(mode="global"), 1, (W1, M1), False, []),
        (
            wanted(max_per_node=1), 1, (W1, M1), False,
            ["shop/web: deploy.placement.max_replicas_per_node: 1 allows 1 replicas on m1, and it "
             "has 2"],
        ),
        (wanted(max_per_node=2), 1, (W1, M1), False, []),
        (wanted(), 1, (W1,), False, ["no other node takes replicas (it is the only one)"]),
        (wanted(), 0, (W1,), False, []),
    ],
)  # fmt: skip
def test_why_replicas_cannot_leave_a_node(
    service: DesiredService, count: int, nodes: tuple[Node, ...], force: bool, obstacles: list[str]
) -> None:
    leaving = [replica(f"web-{number}") for number in range(count)]
    assert find_obstacles(W1, nodes, leaving, {service.key: service}, force) == obstacles


def test_a_replica_does_not_move_next_to_one_that_it_is_apart_from() -> None:
    service = wanted(mesh={"placement": {"apart_from": ["db", "cache"]}})
    services, leaving = {service.key: service}, [replica("web-1")]
    db = [replica("db-1", "db", node="m1")]
    assert find_obstacles(W1, (W1, M1), leaving, services, staying=db) == [
        "shop/web: x-mesh.placement keeps it apart from db, which is on m1"
    ]
    free = Node("m2", 4.0, 8 * GIB)
    assert find_obstacles(W1, (W1, M1, free), leaving, services, staying=db) == []
    here = [replica("db-1", "db")]
    assert find_obstacles(W1, (W1, M1), leaving, services, staying=here) == []


def test_replicas_that_leave_anyway_are_no_obstacle() -> None:
    service = wanted(placement=["node.hostname==w1"])
    leaving = [replica("web-1", phase=Phase.DRAINING), replica("old-1", "old")]
    assert find_obstacles(W1, (W1, M1), leaving, {service.key: service}) == []


def test_which_replicas_are_marked() -> None:
    there = [
        replica("a"),
        replica("b", phase=Phase.DRAINING),
        replica("c", replaced_for="node w1 is drained"),
    ]
    others = [
        replica("d", node="m1"), replica("e", phase=Phase.GONE), replica("f", managed=False),
    ]  # fmt: skip
    assert replicas_on("w1", there + others) == there
    assert [each.name for each in to_replace(there)] == ["a"]


@pytest.mark.parametrize(
    ("left", "now", "action"),
    [(1, 9.0, DrainAction.WAIT), (1, 10.0, DrainAction.GIVE_UP), (0, 99.0, DrainAction.FINISH)],
)
def test_the_next_step_of_a_drain(left: int, now: float, action: DrainAction) -> None:
    assert next_action(Node("w1", 1.0, GIB, drain_until=10.0), left, now) is action
