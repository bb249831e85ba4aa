"""Nodes are drained and filled again in virtual time, without a moment below strength."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from meshd.control.nodes import NodeManager
from meshd.model.errors import NotFound, Rejected
from meshd.model.event import Kind
from meshd.model.replica_phase import Phase
from meshd.model.runtime import Availability, Node, ObservedReplica
from meshd.runtime.base import NodeNotFound
from tests.fakes import virtual
from tests.fakes.rollout_scene import Scene, run, scene_in, shop

NODES = ("m1", "w1", "w2")


def manager_of(scene: Scene) -> NodeManager:
    control = scene.control
    return NodeManager(scene.runtime, control.reconciler, control.events, virtual.clock)


def spread(scene: Scene) -> list[int]:
    """The number of running replicas on each node."""
    running = [box.seen.node for box in scene.runtime.boxes.values() if box.running]
    return [running.count(name) for name in scene.runtime.machines]


def serving(scene: Scene) -> int:
    return sum(r.serves for r in scene.control.reconciler.view().observed.replicas)


async def add_nodes(scene: Scene, *names: str) -> None:
    scene.runtime.machines = {name: Node(name, 4.0, 2**33) for name in names}
    scene.runtime.capabilities = replace(scene.runtime.capabilities, swarm=True)


async def started(scene: Scene, replicas: int, *names: str) -> None:
    await add_nodes(scene, *names)
    scene.deploy(shop("1", replicas=replicas))
    await scene.until(lambda: serving(scene) == replicas)


async def advance(scene: Scene, nodes: NodeManager, seconds: int, least: int) -> None:
    """Let a manager take its steps; the number of replicas that serve never falls below `least`."""
    for _ in range(seconds):
        await nodes.advance()
        for _ in range(10):
            await asyncio.sleep(0.1)
            assert serving(scene) >= least


def kinds(scene: Scene) -> list[str]:
    return [
        e.kind for e in scene.control.events.since(0, 1000) if e.kind.startswith(("node", "reb"))
    ]


def test_a_node_is_drained_and_used_again(tmp_path: Path) -> None:
    async def main() -> None:
        async with scene_in(tmp_path) as scene:
            await started(scene, 6, *NODES)
            assert spread(scene) == [2, 2, 2]
            nodes = manager_of(scene)
            plan = await nodes.drain("w2", 600.0, False, True, "me")
            assert (len(plan.replicas), plan.obstacles) == (2, ())
            assert scene.runtime.machines["w2"].takes_replicas
            await nodes.drain("w2", 600.0, False, False, "me")
            (_, _, status) = await nodes.nodes()
            assert status.drain.startswith("2 replicas (")
            await advance(scene, nodes, 40, 6)
            assert sorted(spread(scene)) == [0, 3, 3]
            (_, _, status) = await nodes.nodes()
            assert (status.availability, status.drain, status.replicas) == ("drain", "", 0)
            with pytest.raises(Rejected, match="is drained already"):
                await nodes.cordon("w2", "me")
            await nodes.uncordon("w2", "me")
            assert (await nodes.rebalance(True, "me")).moves == 2
            assert (await nodes.rebalance(False, "me")).moves == 2
            await advance(scene, nodes, 60, 6)
            assert spread(scene) == [2, 2, 2]
            assert kinds(scene) == [
                Kind.NODE_DRAINING, Kind.NODE_DRAINED, Kind.NODE_UNCORDONED,
                Kind.REBALANCE_STARTED, Kind.REBALANCE_DONE,
            ]  # fmt: skip
            assert not any(scene.traffic.failed.values())

    run(main)


def test_another_control_process_continues_a_drain(tmp_path: Path) -> None:
    async def main() -> None:
        async with scene_in(tmp_path) as scene:
            await started(scene, 4, *NODES)
            await manager_of(scene).drain("m1", 600.0, False, False, "me")
            await scene.control.die()
            scene.control = scene._started()
            await scene.until(lambda: serving(scene) >= 4)
            await advance(scene, manager_of(scene), 40, 4)
            assert spread(scene)[0] == 0
            assert scene.runtime.machines["m1"].availability is Availability.DRAIN

    run(main)


def test_a_drain_gives_up_in_time_and_keeps_what_is_left(tmp_path: Path) -> None:
    async def main() -> None:
        async with scene_in(tmp_path) as scene:
            await started(scene, 4, *NODES)
            nodes = manager_of(scene)
            scene.runtime.bad_luck = 1.0  # no replacement starts
            await nodes.drain("w1", 5.0, False, False, "me")
            await advance(scene, nodes, 10, 4)
            (_, status, _) = await nodes.nodes()
            assert (status.availability, status.drain) == ("pause", "")
            assert "node w1 was not drained in time: " in status.problem
            left = scene.control.reconciler.view().observed.replicas
            assert not any(r.replaced_for for r in left if r.phase is Phase.READY)
            await nodes.uncordon("w1", "me")
            (_, status, _) = await nodes.nodes()
            assert (status.availability, status.problem) == ("active", "")

    run(main)


def test_what_a_user_sets_while_a_drain_ends_stays(tmp_path: Path) -> None:
    async def main() -> None:
        async with scene_in(tmp_path) as scene:
            await started(scene, 3, *NODES)
            nodes = manager_of(scene)
            await nodes.drain("w2", 600.0, False, False, "me")
            await scene.until(lambda: spread(scene)[2] == 0)
            list_jobs, looks, proceed = scene.runtime.jobs, asyncio.Event(), asyncio.Event()

            async def slow_jobs() -> Sequence[ObservedReplica]:
                looks.set()
                await proceed.wait()
                return await list_jobs()

            scene.runtime.jobs = slow_jobs  # type: ignore[method-assign]
            step = asyncio.ensure_future(nodes.advance())
            await looks.wait()
            uncordon = asyncio.ensure_future(nodes.uncordon("w2", "me"))
            await asyncio.sleep(1.0)
            proceed.set()
            await asyncio.gather(step, uncordon)
            await asyncio.sleep(1.0)
            assert scene.runtime.machines["w2"].availability is Availability.ACTIVE
            assert kinds(scene)[-1] == Kind.NODE_UNCORDONED

    run(main)


def test_what_is_refused(tmp_path: Path) -> None:
    async def main() -> None:
        async with scene_in(tmp_path) as scene:
            await started(scene, 2, "m1", "w1")
            nodes = manager_of(scene)
            with pytest.raises(NotFound, match="no node 'w9'; known: m1, w1"):
                await nodes.drain("w9", 60.0, False, False, "me")
            await nodes.cordon("m1", "me")
            with pytest.raises(Rejected, match=r"cannot be drained: .*\(m1 is cordoned\)"):
                await nodes.drain("w1", 60.0, False, False, "me")
            scene.runtime.capabilities = replace(scene.runtime.capabilities, swarm=False)
            for refused in (nodes.cordon("m1", "me"), nodes.rebalance(False, "me")):
                with pytest.raises(Rejected, match="this runtime has one node"):
                    await refused

    run(main)


def test_a_node_that_joined_again_is_meant_by_its_name(tmp_path: Path) -> None:
    """A Swarm keeps the entry of a node that left, as `down`, with the same name. It may still have
    the label of a drain."""

    async def main() -> None:
        async with scene_in(tmp_path) as scene:
            await started(scene, 4, "m1", "w1")
            old = Node(
                "w1",
                0.0,
                0,
                state="down",
                id="old",
                availability=Availability.PAUSE,
                drain_until=9e9,
            )
            scene.runtime.machines = {
                "old": old,
                "m1": replace(scene.runtime.machines["m1"], id="m1"),
                "w1": replace(scene.runtime.machines["w1"], id="new"),
            }
            nodes = manager_of(scene)
            await advance(scene, nodes, 2, 4)
            assert scene.runtime.machines["w1"].availability is Availability.ACTIVE
            await nodes.cordon("w1", "me")
            await nodes.uncordon("w1", "me")
            await nodes.drain("w1", 600.0, False, False, "me")
            await advance(scene, nodes, 40, 4)
            assert scene.runtime.machines["w1"].availability is Availability.DRAIN
            assert scene.runtime.machines["old"] == old
            _, present, left = await nodes.nodes()
            assert (present.state, present.problem) == ("ready", "")
            assert (left.state, left.replicas, left.drain) == ("down", 0, "")
            assert left.problem.endswith("remove its old entry with `docker node rm old`")
            with pytest.raises(Rejected, match="is drained already"):
                await nodes.cordon("w1", "me")

    run(main)


def test_a_drain_that_cannot_continue_does_not_hold_up_others(tmp_path: Path) -> None:
    async def main() -> None:
        async with scene_in(tmp_path) as scene:
            await started(scene, 4, "m1", "w1")
            machines = scene.runtime.machines
            # Two entries with one name, of which neither is known to be the present one.
            lost = Node(
                "a1", 1.0, 1, state="down", drain_until=9e9, availability=Availability.PAUSE
            )
            machines["a1"], machines["a1 again"] = replace(lost, id="1"), replace(lost, id="2")
            set_availability = scene.runtime.set_availability

            async def refuse(node: str, to: Availability, until: float = 0.0) -> None:
                if node == "a1":
                    raise NodeNotFound("2 nodes have the name a1")
                await set_availability(node, to, until)

            scene.runtime.set_availability = refuse  # type: ignore[method-assign]
            nodes = manager_of(scene)
            await nodes.drain("w1", 600.0, False, False, "me")
            await advance(scene, nodes, 40, 4)
            assert machines["w1"].availability is Availability.DRAIN
            problem = next(each.problem for each in await nodes.nodes() if each.name == "a1")
            assert problem == "the drain of node a1 does not continue: 2 nodes have the name a1"

    run(main)
