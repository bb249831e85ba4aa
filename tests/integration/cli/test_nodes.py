"""The commands for nodes against a served API: their output, their requests, and exit codes."""

import json

import pytest
from ruamel.yaml import YAML

from meshd.api.dto import NodeStatus
from meshd.model.node_proxy import NodeLoad, NodeProxyStatus
from tests.fakes.control import FakeControl
from tests.fakes.node_control import FakeNodeControl
from tests.support.commands import Meshd


@pytest.fixture
def control() -> FakeControl:
    return FakeControl()


@pytest.fixture
def nodes(control: FakeControl, monkeypatch: pytest.MonkeyPatch) -> FakeNodeControl:
    monkeypatch.setattr("meshd.cli.commands.node.POLL_SECONDS", 0.0)
    return control.nodes


async def test_nodes_in_all_forms(meshd: Meshd, nodes: FakeNodeControl) -> None:
    header, first, second = (await meshd("nodes")).output.splitlines()
    assert header.split() == [
        "NODE", "STATE", "AVAILABILITY", "ROLE", "ADDRESS", "ENGINE", "REPLICAS", "CPUS_FREE",
        "MEMORY_FREE", "USED", "PROXY",
    ]  # fmt: skip
    assert " ".join(first.split()) == (
        "m1 ready active leader 10.0.0.1 20.10 2 3 of 4 7 GiB of 8 GiB - -"
    )
    assert " ".join(second.split()) == "w1 down drain worker - - 0 2 of 2 4 GiB of 4 GiB - -"
    wide = (await meshd("nodes", "-o", "wide")).output.splitlines()
    assert wide[0].split()[-3:] == ["CPUS_RESERVED", "MEMORY_RESERVED", "LABELS"]
    assert wide[1].split()[-4:] == ["1", "1", "GiB", "zone=a"]
    (found, _) = json.loads((await meshd("nodes", "-o", "json")).output)
    assert (found["name"], found["reserved_memory"], found["labels"]) == (
        "m1", 2**30, {"zone": "a"},
    )  # fmt: skip
    (same, _) = YAML(typ="safe", pure=True).load((await meshd("nodes", "-o", "yaml")).output)
    assert same == found


@pytest.mark.parametrize(
    ("needed", "shown", "text"),
    [
        (True, "none", "mesh-managed services are not placed there"),
        (False, "none, clear text", "calls to and from there are in clear text"),
    ],
)
async def test_a_node_without_a_proxy(
    meshd: Meshd, nodes: FakeNodeControl, needed: bool, shown: str, text: str
) -> None:
    nodes.known = [
        NodeStatus("m1", "ready", "active", needs_proxy=needed),
        NodeStatus("w1", "ready", "active", has_proxy=False, needs_proxy=needed),
    ]
    done = await meshd("nodes")
    assert done.output.splitlines()[2].endswith(shown)
    assert f"no proxy on w1: run `meshd node join` there; {text}" in done.output


@pytest.mark.parametrize(
    ("proxy", "shown"),
    [
        (NodeProxyStatus("w1", "connected", (3, 7)), "connected 3.7"),
        (NodeProxyStatus("w1", "behind", (3, 6)), "behind 3.6"),
        (NodeProxyStatus("w1", "lost"), "lost"),
        (NodeProxyStatus("w1", "lost", since=1.0), "lost since "),
    ],
)
async def test_the_state_of_a_proxy(
    meshd: Meshd, nodes: FakeNodeControl, proxy: NodeProxyStatus, shown: str
) -> None:
    nodes.known = [NodeStatus("w1", "ready", "active", proxy=proxy)]
    row = (await meshd("nodes")).output.splitlines()[1]
    assert shown in row


async def test_how_busy_a_node_is(meshd: Meshd, nodes: FakeNodeControl) -> None:
    nodes.known = [NodeStatus("w1", "ready", "active", load=NodeLoad(0.374, 0.5))]
    assert "37% cpu, 50% mem" in (await meshd("nodes")).output.splitlines()[1]


async def test_join_tokens_and_proxies_that_are_removed(
    meshd: Meshd, nodes: FakeNodeControl
) -> None:
    made = await meshd("node", "token", "--expires", "10m")
    assert made.stdout == "meshd-join-1-abc\n"
    assert "ADDRESS:15779 --token-file FILE" in made.stderr
    assert nodes.calls[-1][:2] == ("make_token", 600)
    made = await meshd("node", "token", "-o", "json")
    assert json.loads(made.output)["secret"] == "meshd-join-1-abc"
    assert (await meshd("node", "token", "--expires", "2d")).exit_code == 2
    assert "m1: its proxy was removed" in (await meshd("node", "remove", "m1")).output
    assert nodes.calls[-1][:2] == ("remove_proxy", "m1")


async def test_a_drain_shows_its_progress(meshd: Meshd, nodes: FakeNodeControl) -> None:
    nodes.steps = ["1 replica (web-1 ready); 60 s left", "1 replica (web-1 ready); 59 s left"]
    done = await meshd("node", "drain", "m1", "--timeout", "60s")
    assert (done.exit_code, done.output.splitlines()) == (
        0,
        [
            "m1: 1 replica to move",
            "m1: 1 replica (web-1 ready); 60 s left",
            "m1 is drained; use it again with `meshd node uncordon m1`",
        ],
    )
    assert nodes.calls[0][:5] == ("drain", "m1", 60, False, False)


async def test_a_drain_that_does_not_end_in_time(meshd: Meshd, nodes: FakeNodeControl) -> None:
    nodes.ends_as, nodes.problem = "pause", "node m1 was not drained in time: web-1 still run there"
    failed = await meshd("node", "drain", "m1", "-o", "json")
    assert (failed.exit_code, json.loads(failed.output)["problem"]) == (1, nodes.problem)
    assert nodes.problem in (await meshd("nodes")).output


async def test_a_drain_is_refused_or_only_described(meshd: Meshd, nodes: FakeNodeControl) -> None:
    nodes.obstacles = ("shop/web: no other node meets it",)
    refused = await meshd("node", "drain", "m1")
    assert refused.exit_code == 1
    assert "node m1 cannot be drained: shop/web: no other node meets it" in refused.output
    described = await meshd("node", "drain", "m1", "--dry-run", "--force")
    assert (described.exit_code, described.output.splitlines()) == (
        1, ["m1: web-1 would move; nothing was changed", nodes.obstacles[0]],
    )  # fmt: skip
    assert nodes.calls[1][:5] == ("drain", "m1", 600, True, True)
    nodes.obstacles = ()
    described = await meshd("node", "drain", "m1", "--dry-run", "-o", "json")
    assert (described.exit_code, json.loads(described.output)["replicas"]) == (0, ["web-1"])


async def test_cordon_uncordon_and_detached_drains(meshd: Meshd, nodes: FakeNodeControl) -> None:
    assert "m1 takes no new replicas" in (await meshd("node", "cordon", "m1")).output
    assert nodes.known[0].availability == "pause"
    assert "m1 takes replicas again" in (await meshd("node", "uncordon", "m1")).output
    assert nodes.known[0].availability == "active"
    unknown = await meshd("node", "cordon", "m9")
    assert (unknown.exit_code, "there is no node 'm9'" in unknown.output) == (1, True)
    begun = await meshd("node", "drain", "m1", "-d", "-o", "json")
    assert (begun.exit_code, json.loads(begun.output)["node"]) == (0, "m1")
    assert (await meshd("node", "drain", "m1", "--timeout", "0")).exit_code == 2


@pytest.mark.parametrize(
    ("moves", "arguments", "text"),
    [
        (0, (), "all services are spread evenly over the nodes"),
        (1, ("--dry-run",), "1 replica would move"),
        (3, (), "3 replicas move, one at a time; `meshd events -f` shows them"),
    ],
)
async def test_rebalance(
    meshd: Meshd, nodes: FakeNodeControl, moves: int, arguments: tuple[str, ...], text: str
) -> None:
    nodes.moves = moves
    done = await meshd("rebalance", *arguments)
    assert (done.exit_code, done.output) == (0, text + "\n")
    assert json.loads((await meshd("rebalance", "-o", "json")).output) == {"moves": moves}
