"""What makes one Swarm of some engines, and what prevents it."""

from typing import Any

import pytest

from meshd.runtime.swarm.setup.plan import (
    HostAction,
    HostFacts,
    HostStep,
    NodeRole,
    find_problems,
    make_plan,
    usual_managers,
)

MANAGER, WORKER = NodeRole.MANAGER, NodeRole.WORKER


def host(given: str, **fields: Any) -> HostFacts:
    return HostFacts(**{"host": given, "name": f"name-{given}", "id": f"id-{given}", **fields})


def member(name: str, role: NodeRole, *managers: str) -> HostFacts:
    return host(name, state="active", role=role, managers=frozenset(managers))


@pytest.mark.parametrize(
    ("hosts", "roles", "steps"),
    [
        ([host("a")], [MANAGER], [HostStep("a", HostAction.INIT, MANAGER)]),
        (
            [host("a"), host("b"), host("c")],
            [MANAGER, MANAGER, WORKER],
            [
                HostStep("a", HostAction.INIT, MANAGER),
                HostStep("b", HostAction.JOIN, MANAGER),
                HostStep("c", HostAction.JOIN, WORKER),
            ],
        ),
        # a repeated call continues, whatever the order of the hosts
        (
            [host("a"), member("b", MANAGER, "b"), host("c")],
            [MANAGER, MANAGER, WORKER],
            [
                HostStep("b", HostAction.NOTHING, MANAGER),
                HostStep("a", HostAction.JOIN, MANAGER),
                HostStep("c", HostAction.JOIN, WORKER),
            ],
        ),
        # a member keeps its role
        (
            [member("a", MANAGER, "a"), member("b", WORKER, "a")],
            [MANAGER, MANAGER],
            [HostStep("a", HostAction.NOTHING, MANAGER), HostStep("b", HostAction.NOTHING, WORKER)],
        ),
    ],
)
def test_the_steps(hosts: list[HostFacts], roles: list[NodeRole], steps: list[HostStep]) -> None:
    assert find_problems(hosts) == []
    assert make_plan(hosts, roles) == steps


@pytest.mark.parametrize(
    ("hosts", "words"),
    [
        ([host("a"), host("b", id="id-a", name="name-a")], ["a and b are the same engine"]),
        ([host("a"), host("clone", id="id-a")], []),
        ([host("a", api=(1, 40))], ["a: its engine is too old"]),
        ([host("a", live_restore=True)], ["a: live-restore is on"]),
        ([host("a", state="locked")], ["a: its part in a Swarm is 'locked'"]),
        (
            [member("a", MANAGER, "a"), member("b", MANAGER, "b")],
            ["a and b are in different Swarms"],
        ),
        ([host("a"), member("b", WORKER, "x")], ["b is in a Swarm, but none of its managers"]),
    ],
)
def test_what_prevents_it(hosts: list[HostFacts], words: list[str]) -> None:
    found = find_problems(hosts)
    assert len(found) == len(words)
    for text, start in zip(found, words, strict=True):
        assert text.startswith(start)


def test_a_node_is_added_to_a_swarm_only() -> None:
    hosts = [host("this engine"), host("b")]
    assert find_problems(hosts, may_start=False) == [
        "this engine is not part of a Swarm; `meshd bootstrap` makes one"
    ]


def test_how_many_managers() -> None:
    assert [usual_managers(count) for count in (1, 2, 3, 6, 7, 20)] == [1, 1, 3, 3, 5, 5]
