"""Three managers and two workers, each with a proxy, under load from all of them."""

import asyncio
import json
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
import pytest

from tests.engine.test_swarm import APPLICATION, CALLER, serves, status_of
from tests.fakes.replicas import fetch
from tests.support.mesh import TestMesh
from tests.support.own_swarm import OwnNode, own_swarm
from tests.support.waiting import elapse, wait_until

UPDATES = 10
PAUSE = 0.03
"""Seconds between two requests of a client."""
LEADS_SECONDS = 5.0
"""Seconds until another meshd scales, once the Swarm has a leader; the test allows five times."""

pytestmark = [pytest.mark.engine, pytest.mark.slow, pytest.mark.acceptance]


class NodeClients:
    """A client for each node that sends requests to its proxy, one after the other."""

    def __init__(self, nodes: Sequence[OwnNode]) -> None:
        self.answers: Counter[str] = Counter()
        self.served: Counter[str] = Counter()
        self.failed: list[str] = []
        self.longest = 0.0
        self.avoided: set[str] = set()
        """Names of nodes whose proxy is expected to be gone."""
        self._over = False
        self._tasks = [asyncio.create_task(self._send(node)) for node in nodes]

    async def _send(self, node: OwnNode) -> None:
        clock = asyncio.get_running_loop().time
        while not self._over:
            if node.name in self.avoided:
                await elapse(0.1, "its node is gone")
                continue
            began = clock()
            try:
                self.answers[await fetch(node.address, 8080)] += 1
                self.served[node.name] += 1
            except (aiohttp.ClientError, OSError) as error:
                if node.name not in self.avoided:
                    self.failed.append(f"{node.name} after {clock() - began:.1f} s: {error!r}")
            if node.name not in self.avoided:
                self.longest = max(self.longest, clock() - began)
            await elapse(PAUSE, "five clients leave room for five engines on one machine")

    async def serve_more(self, nodes: Sequence[OwnNode], count: int = 50) -> None:
        """Wait until each of the nodes has served some requests more."""
        before = self.served.copy()
        await wait_until(
            lambda: all(self.served[n.name] >= before[n.name] + count for n in nodes),
            60,
            lambda: f"requests from each node: {self.served} after {before}, {self.failed[-3:]}",
        )

    async def stop(self) -> None:
        self._over = True
        await asyncio.gather(*self._tasks)


async def join(
    node: OwnNode, leader: TestMesh, managers: Sequence[OwnNode], folder: Path
) -> asyncio.subprocess.Process:
    """Start the proxy of a worker node."""
    token = folder / f"token-{node.name}"
    token.write_text((await leader.run("node", "token")).out)
    return await asyncio.create_subprocess_exec(
        *node.inside, sys.executable, "-m", "meshd", "node", "join",
        *(each.address for each in managers), "--token-file", str(token), "--name", node.name,
        "--listen", f"{node.address}:8080", "--workers", "1", "--state", str(folder / node.name),
    )  # fmt: skip


async def leader_of(meshes: Sequence[TestMesh]) -> TestMesh | None:
    """Return the mesh that leads and shows all replicas of `web`."""
    for mesh in meshes:
        services = {each["name"]: each for each in (await status_of(mesh))["services"]}
        if "web" in services:
            return mesh
    return None


def leading_manager(node: OwnNode) -> str:
    """Return the manager that leads the Swarm, according to another one; empty if none does."""
    listed = node.docker("node", "ls", "--format", "{{.Hostname}} {{.ManagerStatus}}", check=False)
    words = [line.split() for line in listed.splitlines()]
    return next((each[0] for each in words if each[1:] == ["Leader"]), "")


async def has_leader(node: OwnNode) -> bool:
    """Whether the Swarm has a leader, according to a manager."""
    return bool(await asyncio.to_thread(leading_manager, node))


async def scale_web(meshes: Sequence[TestMesh], node: OwnNode, count: int) -> TestMesh:
    """Scale with whichever mesh leads once the Swarm has a leader according to a manager; return
    that mesh."""
    await wait_until(lambda: has_leader(node), 60, "the Swarm has a leader again")
    clock = asyncio.get_running_loop().time
    began = clock()
    leader: TestMesh | None = None

    async def scaled() -> bool:
        nonlocal leader
        leader = await leader_of(meshes)
        return leader is not None and (await leader.run("scale", "web", str(count))).code == 0

    await wait_until(scaled, LEADS_SECONDS * 5, "another meshd scales")
    print(f"scaling continues {clock() - began:.1f} s after the Swarm has a leader")
    assert leader is not None
    return leader


async def outlives(mesh: TestMesh, lost: str) -> bool:
    """Whether each service has a ready replica on another node than `lost`."""
    for name in ("web", "api"):
        replicas = (await mesh.service(name))["replicas"]
        if not any(each["phase"] == "ready" and each["node"] != lost for each in replicas):
            return False
    return True


async def stands_by(mesh: TestMesh) -> bool:
    """Whether it knows that another mesh leads."""
    return bool((await status_of(mesh))["standby"])


@pytest.mark.timeout(1800)
async def test_five_nodes_under_load(tmp_path: Path, engine_image: str) -> None:
    text = APPLICATION.replace("IMAGE", engine_image).replace("CODE", json.dumps(CALLER))
    text = text.replace("replicas: 3", "replicas: 5, update_config: {parallelism: 3}")
    names = ["m1", "m2", "m3", "w1", "w2"]
    with own_swarm(names, engine_image, managers=3) as nodes:
        managers, workers = nodes[:3], nodes[3:]
        meshes = []
        for node in managers:
            (folder := tmp_path / node.name).mkdir()
            environment = {"DOCKER_HOST": node.host}
            address = f"{node.address}:8080"
            meshes.append(TestMesh(folder, "swarm", address, environment, node.inside))
        async with AsyncExitStack() as end:
            for mesh in meshes:
                end.push_async_callback(mesh.end)
            first = meshes[0]
            for mesh in meshes:
                started = await mesh.up(text, "--lease", "prod")
                assert started.code == 0, started.err
            for node in workers:
                process = await join(node, first, managers, tmp_path)
                end.push_async_callback(process.wait)
                end.callback(process.terminate)
            for node in nodes:
                await wait_until(
                    lambda node=node: serves(node.address, 8080, "first"), 60, f"{node.name} serves"
                )
            await first.run("rebalance")
            clients = NodeClients(nodes)
            end.push_async_callback(clients.stop)

            # Ten rolling updates.
            await clients.serve_more(nodes)
            for number in range(1, UPDATES + 1):
                updated = await first.up(
                    text.replace("first", f"update {number}"), "--lease", "prod"
                )
                assert updated.code == 0, updated.err
                await clients.serve_more(nodes, 5)
            assert not clients.failed, clients.failed
            assert set(clients.answers) == {"first"} | {
                f"update {n}" for n in range(1, UPDATES + 1)
            }
            print(f"{sum(clients.answers.values())} requests in {UPDATES} updates, 0 failed")
            api = (await first.service("api"))["replicas"]
            assert {each["node"] for each in api} == set(names)

            # The leading meshd and the leading manager are cut off together.
            await wait_until(lambda: outlives(first, "m1"), 60, "replicas move to other nodes")
            clients.avoided = {"m1"}
            others = nodes[1:]
            await elapse(1.0, "the last request to m1 ends")
            m1, rest = managers[0], meshes[1:]
            clients.longest = 0.0
            m1.cut()
            await clients.serve_more(others)
            leader = await scale_web(rest, managers[1], 3)
            minority = await first.run("scale", "web", "1")
            assert minority.code == 1, minority.out
            assert "may not change anything" in minority.err
            await leader.until("web", lambda each: each["ready"] == 3, 120)
            assert not clients.failed, clients.failed
            print(f"cut: longest request {clients.longest:.2f} s")
            m1.connect()

            await wait_until(lambda: stands_by(first), 60, "the first one stands by")
            _, web = await leader.until("web", lambda each: each["ready"] == 3, 60)
            assert web["wanted"] == 3
            last = f"update {UPDATES}"
            await wait_until(lambda: serves(m1.address, 8080, last), 60, "m1 serves again")

            # The leading meshd and the engine of the leading manager are killed together.
            await wait_until(lambda: has_leader(m1), 60, "m1 has caught up")
            name = leading_manager(m1)
            manager = next(node for node in managers if node.name == name)
            place = meshes.index(leader)
            rest = [each for each in meshes if each is not leader]
            await leader.run("rebalance")
            await wait_until(lambda: outlives(leader, name), 60, "replicas on other nodes")
            clients.avoided = {managers[place].name}
            await clients.serve_more([n for n in nodes if n.name not in clients.avoided], 5)
            clients.longest = 0.0
            print(f"killed: meshd on {managers[place].name}, engine of {name}")
            await leader.kill_all()
            await asyncio.to_thread(manager.kill)
            witness = next(node for node in managers if node is not manager)
            others = [node for node in nodes if node.name not in clients.avoided]
            await clients.serve_more(others)
            successor = await scale_web(rest, witness, 4)
            await successor.until("web", lambda each: each["ready"] == 4, 120)
            assert not clients.failed, clients.failed
            print(f"killed: longest request {clients.longest:.2f} s")
            await asyncio.to_thread(manager.run_engine)
            back = await leader.up(text.replace("first", last), "--lease", "prod")
            assert (back.code, "leads lease prod" in back.err) == (0, True), back.err
            address = managers[place].address
            await wait_until(lambda: serves(address, 8080, last), 60, "its proxy serves again")
            clients.avoided = set()
            await clients.serve_more(nodes, 5)
            assert not clients.failed, clients.failed
