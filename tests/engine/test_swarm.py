"""The swarm runtime on a real Swarm: what needs more than one replica, or more than one node.

What every runtime must do is in `test_runtime_conformance`.
"""

import asyncio
import base64
import json
import os
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from msgspec.structs import replace

from meshd.api.client import Client
from meshd.model.runtime import Availability, Holder, ReplicaSpec, ReplicaState, find_left
from meshd.runtime.base import (
    EventKind,
    ImageMissing,
    NodeNotFound,
    RuntimeFailure,
    RuntimeUnavailable,
    StartFailed,
)
from meshd.runtime.docker.engine import Engine
from meshd.runtime.lease import LeaseRecord
from meshd.runtime.swarm.lease import SwarmLease
from meshd.runtime.swarm.runtime import SwarmRuntime
from meshd.spec import labels
from meshd.spec.compose import load
from meshd.spec.model import Project
from tests.fakes.replicas import (
    ReceivedEvents,
    docker,
    fetch,
    replica_spec,
    service,
    state_of,
    swarm_runtime,
)
from tests.support.mesh import TestMesh
from tests.support.own_swarm import OwnNode, own_swarm, run
from tests.support.registry import PASSWORD, USER, htpasswd_auth, registry
from tests.support.waiting import wait_until

PROJECT = "swarm-test"
SERVER = """
import http.server, os, signal, socket
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        with open("/run/secrets/token") as file: secret = file.read()
        names = sorted({each[4][0] for each in socket.getaddrinfo("web", 80)})
        body = f"{secret} {len(names)}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_): pass
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
http.server.ThreadingHTTPServer(("", int(os.environ["PORT"])), Handler).serve_forever()
"""
FILE = """
name: swarm-test
services:
  web:
    image: IMAGE
    command: [python3, -c, CODE]
    expose: [8080]
    secrets: [token]
    x-mesh: {}
secrets: {token: {environment: TOKEN}}
"""

pytestmark = [pytest.mark.engine, pytest.mark.slow]


def read_project(tmp_path: Path, image: str) -> Project:
    file = tmp_path / "compose.yml"
    file.write_text(FILE.replace("IMAGE", image).replace("CODE", json.dumps(SERVER)))
    return load([file], environment={"TOKEN": "abc"}).project


@pytest.fixture(scope="module")
def node() -> Iterator[OwnNode]:
    """Run a Swarm of one node."""
    from tests.conftest import ENGINE_IMAGE

    with own_swarm(["m1"], ENGINE_IMAGE) as (manager,):
        yield manager


@pytest.fixture
async def runtime(node: OwnNode, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[SwarmRuntime]:
    monkeypatch.setenv("DOCKER_HOST", node.host)
    async with swarm_runtime(PROJECT) as ready:
        yield ready


async def start(runtime: SwarmRuntime, project: Project, *names: str) -> Sequence[ReplicaSpec]:
    """Start replicas of the service `web` at once."""
    (web,) = project.services
    replicas = [replica_spec(PROJECT, name, web) for name in names]
    await runtime.prepare(PROJECT, web, project.networks)
    await asyncio.gather(*map(runtime.start, replicas))
    return replicas


async def test_replicas_find_each_other_and_one_of_them_stops(
    runtime: SwarmRuntime, node: OwnNode, tmp_path: Path, engine_image: str
) -> None:
    """Also: secrets, exit codes, the claim, and that nothing is left."""
    project = read_project(tmp_path, engine_image)
    ours, theirs = Holder("a", "h", "/s"), Holder("b", "h", "/s")
    assert await runtime.claim(PROJECT, ours) == ours
    assert await runtime.claim(PROJECT, theirs) == ours
    assert await runtime.claims() == {PROJECT: ours}
    assert runtime.token_address == f"{node.address}:15781"
    first, second = await start(runtime, project, "web-1", "web-2")

    async def answers() -> list[str]:
        return [
            await fetch(str(seen.host), seen.port)
            for seen in await runtime.list()
            if seen.state is ReplicaState.RUNNING
        ]

    for seen in await runtime.list():
        assert (seen.host, seen.node) == (node.address, "m1")
        await wait_until(lambda host=seen.host, port=seen.port: _is_up(str(host), port), 20)
    await wait_until(lambda: _equals(answers, ["abc 2", "abc 2"]), 20, "both have the name web")
    async with ReceivedEvents(runtime) as heard:
        await runtime.stop(first.name, 10)
        await heard.wait(EventKind.STOPPING, first.name)
    assert await answers() == ["abc 1"]
    (ended,) = [seen for seen in await runtime.list() if seen.name == first.name]
    assert (ended.state, ended.exit_code) == (ReplicaState.EXITED, 0)
    await runtime.stop(second.name, 10)
    for replica in (first, second):
        await runtime.remove(replica.name)
    await runtime.teardown(PROJECT)
    await runtime.unclaim(PROJECT, theirs)
    assert await runtime.claims() == {PROJECT: ours}
    await runtime.unclaim(PROJECT, ours)
    for kind in ("service", "secret", "config"):
        assert node.docker(kind, "ls", "-q") == ""
    list_networks = ("network", "ls", "--format", "{{.Name}}")
    await wait_until(lambda: PROJECT not in node.docker(*list_networks), 20, "no network is left")


async def test_the_port_of_a_replica_is_kept_in_the_raft(
    runtime: SwarmRuntime, node: OwnNode, tmp_path: Path, engine_image: str
) -> None:
    """Its task runs on. A Swarm whose leader is lost forgets the ports that nodes reported."""
    (replica,) = await start(runtime, read_project(tmp_path, engine_image), "web-1")
    containers = node.docker("ps", "-q")
    (before,) = await runtime.list()
    async with ReceivedEvents(runtime):

        async def is_kept() -> bool:
            (seen,) = await runtime.list()
            return seen.labels.get(labels.NODE_PORT) == str(before.port)

        await wait_until(is_kept, 20, "the service names the port")
    (after,) = await runtime.list()
    assert (after.runtime_id, after.host, after.port) == (
        before.runtime_id, before.host, before.port,
    )  # fmt: skip
    assert node.docker("ps", "-q") == containers
    await runtime.stop(replica.name, 5)
    await runtime.remove(replica.name)


async def test_why_a_replica_does_not_start(runtime: SwarmRuntime, engine_image: str) -> None:
    large = service(engine_image, resources={"reserved_cpus": 9999.0})
    await runtime.prepare(PROJECT, large)
    with pytest.raises(StartFailed, match=r"no suitable node .insufficient resources on 1 node"):
        await runtime.start(replica_spec(PROJECT, "large-1", large))
    absent = service(engine_image, image_id="ab" * 32)
    with pytest.raises(ImageMissing, match=r"node m1: No such image: sha256:abab.*push"):
        await runtime.start(replica_spec(PROJECT, "absent-1", absent))
    assert await runtime.list() == []


async def test_services_are_kept_apart(runtime: SwarmRuntime, engine_image: str) -> None:
    primary = service(engine_image, name="primary")
    apart = {"placement": {"apart_from": "primary"}}
    standby = service(engine_image, name="standby", mesh=apart)
    await runtime.prepare(PROJECT, primary)
    await runtime.prepare(PROJECT, standby)
    first = replica_spec(PROJECT, "primary-1", primary)
    second = replica_spec(PROJECT, "standby-1", standby)
    await runtime.start(first)
    with pytest.raises(StartFailed, match=r"m1: x-mesh.placement keeps it apart from primary"):
        await runtime.start(second)
    await runtime.stop(first.name, 0)
    await runtime.remove(first.name)
    await runtime.start(second)
    assert [each.name for each in await runtime.list()] == [second.name]
    await runtime.stop(second.name, 0)
    await runtime.remove(second.name)
    await runtime.teardown(PROJECT)


async def test_a_node_is_cordoned_and_drained(runtime: SwarmRuntime, engine_image: str) -> None:
    reserved = {"reserved_cpus": 0.25, "reserved_memory": 2**24}
    reserving = service(engine_image, resources=reserved)
    await runtime.prepare(PROJECT, reserving)
    replica = replica_spec(PROJECT, "reserving-1", reserving)
    await runtime.start(replica)
    (node,) = await runtime.all_nodes()
    assert (node.name, node.role, node.state) == ("m1", "leader", "ready")
    assert (node.reserved_cpus, node.reserved_memory) == (0.25, 2**24)
    assert node.engine.startswith("20.")
    await runtime.set_availability("m1", Availability.PAUSE, 1234.0)
    (node,) = await runtime.all_nodes()
    assert (node.availability, node.drain_until) == (Availability.PAUSE, 1234.0)
    assert await runtime.nodes() == []
    assert await state_of(runtime, replica.name) is ReplicaState.RUNNING
    await runtime.set_availability("m1", Availability.ACTIVE)
    with pytest.raises(StartFailed, match=r"no suitable node .scheduling constraints not"):
        await runtime.start(replica_spec(PROJECT, "reserving-2", reserving, avoid=("m1",)))
    with pytest.raises(NodeNotFound, match="no node m9 exists"):
        await runtime.set_availability("m9", Availability.PAUSE)
    await runtime.stop(replica.name, 10)
    await runtime.remove(replica.name)
    (node,) = await runtime.all_nodes()
    assert (node.reserved_cpus, node.drain_until, node.takes_replicas) == (0.0, 0.0, True)


async def test_the_swarm_keeps_a_lease_and_the_state_of_its_holder(
    node: OwnNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", node.host)
    engine = Engine()
    lease = SwarmLease(engine, "test", 15779)
    assert await lease.read() is None
    assert await lease.write(LeaseRecord("a", "m1", 1))
    assert not await lease.write(LeaseRecord("b", "m2", 1)), "it exists by now"
    found = await lease.read()
    assert found is not None
    assert (found.holder, found.host, found.token, found.records) == ("a", "m1", 1, "")
    assert found.address == f"{node.address}:15779"
    content = bytes(range(256)) * 4000
    for state in (b"earlier", content):
        place = await lease.save(state)
        await lease.clean(place)
        assert await lease.load(place) == state
    assert await lease.write(replace(found, renewals=1, records=place))
    assert not await lease.write(replace(found, renewals=2)), "it has another version by now"
    found = await lease.read()
    assert found is not None
    assert (found.renewals, found.records) == (1, place)
    names = node.docker("config", "ls", "--format", "{{.Name}}").split()
    assert len(names) == 1 + 3, "the earlier state is gone"
    node.docker("config", "rm", *names)
    assert not await lease.write(found)
    await engine.close()


async def test_an_engine_outside_of_a_swarm_is_refused(
    engine_image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    del engine_image
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    runtime = SwarmRuntime()
    with pytest.raises(RuntimeUnavailable, match="is not part of a Swarm; run `docker swarm init`"):
        await runtime.open()
    await runtime.close()


@pytest.mark.acceptance
@pytest.mark.timeout(600)
async def test_replicas_on_all_nodes_of_three_and_a_node_is_lost(
    tmp_path: Path, engine_image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = read_project(tmp_path, engine_image)
    (web,) = project.services
    limited = web.model_copy(update={"max_per_node": 1})
    project = project.model_copy(update={"services": (limited,)})
    with own_swarm(["m1", "w1", "w2"], engine_image) as nodes:
        monkeypatch.setenv("DOCKER_HOST", nodes[0].host)
        async with swarm_runtime(PROJECT) as runtime:
            with pytest.raises(RuntimeUnavailable, match=r"only a manager.*managers: "):
                await _open_worker(nodes[1], monkeypatch)
            monkeypatch.setenv("DOCKER_HOST", nodes[0].host)
            assert [each.name for each in await runtime.nodes()] == ["m1", "w1", "w2"]
            await start(runtime, project, "web-1", "web-2", "web-3")
            found = {seen.node: seen for seen in await runtime.list()}
            assert set(found) == {"m1", "w1", "w2"}
            with pytest.raises(StartFailed, match="m1, w1, w2 may have no more than 1 of it"):
                await start(runtime, project, "web-4")
            for seen in found.values():
                await wait_until(lambda s=seen: _is_up(str(s.host), s.port), 20)
                assert seen.host == next(n.address for n in nodes if n.name == seen.node)

            async def names() -> list[str]:
                return [await fetch(str(each.host), each.port) for each in found.values()]

            await wait_until(lambda: _equals(names, ["abc 3"] * 3), 30, "names on all nodes")
            lost = found["w2"].name
            nodes[2].cut()

            async def is_lost() -> bool:
                return await state_of(runtime, lost) is ReplicaState.EXITED

            await wait_until(is_lost, 60, "the replica of the node is given up", interval=0.5)
            (seen,) = [each for each in await runtime.list() if each.name == lost]
            assert seen.error == "is lost: node w2 is down"
            assert [each.name for each in await runtime.nodes()] == ["m1", "w1"]
            await runtime.remove(lost)


APPLICATION = """
name: swarm-test
services:
  api:
    image: IMAGE
    command: [python3, -c, CODE]
    environment: {BODY: first}
    deploy: {replicas: 3}
    x-mesh: {allow: [web]}
  web:
    image: IMAGE
    command: [python3, -c, CODE]
    deploy: {replicas: 2}
    x-mesh: {routes: [/]}
"""
CALLER = """
import http.server, os, signal, urllib.request
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = os.environ.get("BODY", "").encode()
        if not body:
            with urllib.request.urlopen(os.environ["MESH_URL_API"] + "/") as answer:
                body = answer.read()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_): pass
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
http.server.ThreadingHTTPServer(("", int(os.environ["PORT"])), Handler).serve_forever()
"""


@pytest.mark.acceptance
@pytest.mark.tool("docker-registry")
@pytest.mark.timeout(600)
async def test_nodes_pull_from_a_private_registry(
    tmp_path: Path, engine_image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The login on the manager is passed on to the node. Without it the error names the node."""
    storage = tmp_path / "storage"
    with registry(storage) as address:
        pushed = f"{address}/team/app:1"
        docker("tag", engine_image, pushed)
        docker("push", pushed)
        docker("rmi", pushed)
    with (
        own_swarm(["m1", "w1"], engine_image) as (manager, _),
        registry(storage, htpasswd_auth(tmp_path), manager.bridge) as address,
    ):
        monkeypatch.setenv("DOCKER_HOST", manager.host)
        monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
        private = service(f"{address}/team/app:1", placement=["node.hostname==w1"])
        async with swarm_runtime(PROJECT) as runtime:
            with pytest.raises(RuntimeFailure) as refused:
                await runtime.start(replica_spec(PROJECT, "private-1", private))
            assert "node w1: " in str(refused.value)
            auth = {"auth": base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()}
            (tmp_path / "config.json").write_text(json.dumps({"auths": {address: auth}}))
            (pinned,) = await runtime.resolve([private], fetch=True)
            assert pinned.image_digest.startswith("sha256:")
            started = await runtime.start(replica_spec(PROJECT, "private-2", pinned))
            assert (started.state, started.node) == (ReplicaState.RUNNING, "w1")
            await runtime.stop(started.name, 10)
            await runtime.remove(started.name)


@pytest.mark.acceptance
async def test_a_node_that_left_and_joined_again_is_meant_by_its_name(
    engine_image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The Swarm keeps its old entry."""
    with own_swarm(["m1", "w1"], engine_image) as (manager, worker):
        monkeypatch.setenv("DOCKER_HOST", manager.host)
        async with swarm_runtime(PROJECT) as runtime:

            async def states() -> list[tuple[str, str]]:
                nodes = await runtime.all_nodes()
                return sorted((e.state, e.availability) for e in nodes if e.name == "w1")

            await runtime.set_availability("w1", Availability.PAUSE, 9e9)
            worker.docker("swarm", "leave", "--force")
            await wait_until(lambda: _equals(states, [("down", "pause")]), 60, "it has left")
            token = manager.docker("swarm", "join-token", "-q", "worker")
            worker.docker("swarm", "join", "--token", token, f"{manager.address}:2377")
            both = [("down", "pause"), ("ready", "active")]
            await wait_until(lambda: _equals(states, both), 60, "it has joined again")
            left = find_left(await runtime.all_nodes())
            await runtime.set_availability("w1", Availability.DRAIN)
            assert await states() == [("down", "pause"), ("ready", "drain")]
            manager.docker("node", "rm", *left)
            assert await states() == [("ready", "drain")]


@pytest.mark.acceptance
@pytest.mark.timeout(900)
async def test_an_application_on_three_nodes_under_load(tmp_path: Path, engine_image: str) -> None:
    """Services call each other through the mesh over nodes. No request fails during a rolling
    update, nor when a node is lost."""
    text = APPLICATION.replace("IMAGE", engine_image).replace("CODE", json.dumps(CALLER))
    with own_swarm(["m1", "w1", "w2"], engine_image) as nodes:
        address = f"{nodes[0].address}:8080"
        environment = {"DOCKER_HOST": nodes[0].host}
        mesh = TestMesh(tmp_path, "swarm", address, environment, nodes[0].inside)
        counts: Counter[str] = Counter()
        over = asyncio.Event()

        async def send_requests() -> None:
            while not over.is_set():
                counts[await fetch(nodes[0].address, 8080)] += 1

        try:
            started = await mesh.up(text, "--allow-clear-text")
            assert started.code == 0, started.err
            load_task = asyncio.create_task(send_requests())
            api = await mesh.service("api")
            assert len({each["node"] for each in api["replicas"]}) > 1
            updated = await mesh.up(text.replace("first", "second"))
            assert updated.code == 0, updated.err
            await wait_until(lambda: counts["second"] > 100, 30, "requests to the new revision")
            lost = nodes[2]
            lost.cut()

            def is_replaced(service: dict[str, Any]) -> bool:
                ready = [each for each in service["replicas"] if each["phase"] == "ready"]
                return len(ready) == 3 and all(each["node"] != lost.name for each in ready)

            await mesh.until("api", is_replaced, 120)
            before = counts["second"]
            await wait_until(lambda: counts["second"] > before + 100, 30, "further requests")
            over.set()
            await load_task
            assert set(counts) == {"first", "second"}
        finally:
            over.set()
            await mesh.end()


@pytest.mark.acceptance
@pytest.mark.timeout(900)
async def test_nodes_are_drained_filled_and_lost_under_load(
    tmp_path: Path, engine_image: str
) -> None:
    """No request fails, and none waits long, although nothing but the proxy knows that a node is
    gone."""
    text = APPLICATION.replace("IMAGE", engine_image).replace("CODE", json.dumps(CALLER))
    with own_swarm(["m1", "w1", "w2"], engine_image) as nodes:
        address = f"{nodes[0].address}:8080"
        environment = {"DOCKER_HOST": nodes[0].host}
        mesh = TestMesh(tmp_path, "swarm", address, environment, nodes[0].inside)
        load = Load(nodes[0].address, 8080)
        try:
            six = text.replace("replicas: 2", "replicas: 6")
            started = await mesh.up(six, "--allow-clear-text")
            assert started.code == 0, started.err
            load.start(4)

            async def spread(service: str = "web") -> Counter[str]:
                found = (await mesh.service(service))["replicas"]
                return Counter(each["node"] for each in found if each["phase"] == "ready")

            async def is_spread(count: int, difference: int = 1) -> bool:
                found = await spread()
                even = len(found) == count and (
                    max(found.values()) - min(found.values()) <= difference
                )
                return even and sum(found.values()) == 6

            refused = await mesh.run("node", "drain", "w9")
            assert (refused.code, "known: m1, w1, w2" in refused.err) == (1, True)
            drained = await mesh.run("node", "drain", "w1", "--timeout", "2m", timeout=150)
            print(drained.out)
            assert drained.code == 0, drained.err
            assert "w1" not in await spread()
            assert nodes[1].docker("ps", "-q") == ""
            listed = json.loads((await mesh.run("nodes", "-o", "json")).out)
            assert [each["availability"] for each in listed] == ["active", "drain", "active"]
            assert (await mesh.run("node", "uncordon", "w1")).code == 0
            assert (await mesh.run("rebalance")).code == 0
            await wait_until(lambda: is_spread(3), 120, "replicas move to w1", interval=1.0)
            assert load.failed == []
            load.longest = 0.0
            nodes[2].cut()
            before = load.served
            await wait_until(lambda: load.served > before + 500, 60, "requests continue")
            print(f"longest request after the cut: {load.longest:.2f} s")
            assert load.longest < 10.0
            # The load of this machine is that of m1, which may count as a replica more there.
            await wait_until(
                lambda: is_spread(2, 2), 180, "lost replicas are replaced", interval=1.0
            )
            assert load.failed == []
        finally:
            await load.stop()
            await mesh.end()


@pytest.mark.acceptance
@pytest.mark.timeout(900)
async def test_another_meshd_takes_over(tmp_path: Path, engine_image: str) -> None:
    """One of two leads. It is killed; the other one continues with its state and its replicas. It
    is frozen, and changes nothing when it continues. One ends in order right after a change."""
    text = APPLICATION.replace("IMAGE", engine_image).replace("CODE", json.dumps(CALLER))
    with own_swarm(["m1"], engine_image) as (node,):
        first, second = meshes_of(node, tmp_path)
        clock = asyncio.get_running_loop().time
        try:
            started = await first.up(text, "--lease", "prod")
            assert started.code == 0, started.err
            assert (await first.run("scale", "web", "3")).code == 0
            await first.until("web", lambda each: each["ready"] == 3, 60)
            names = {each["name"] for each in (await first.service("web"))["replicas"]}
            standby = await second.up(text, "--lease", "prod")
            assert (standby.code, "leads lease prod" in standby.err) == (0, True), standby.err
            served = partial(serves, node.address, 8082, "first")
            await wait_until(served, 20, "the proxy of the standby serves")
            refused = await second.run("scale", "web", "1")
            assert (refused.code, "leads lease prod" in refused.err) == (1, True)

            async def leads() -> bool:
                status = await status_of(second)
                services = {each["name"]: each for each in status["services"]}
                return "web" in services and services["web"]["ready"] == 3

            began = clock()
            await first.kill_all()
            await wait_until(leads, 60, "the other one leads")
            print(f"hand-over after {clock() - began:.1f} s")
            found = await second.service("web")
            assert {each["name"] for each in found["replicas"]} == names
            assert (found["wanted"], found["override"]) == (3, 3)
            assert await fetch(node.address, 8082) == "first"
            assert (await second.run("scale", "web", "2")).code == 0
            await second.until("web", lambda each: each["ready"] == each["running"] == 2, 60)

            back = await first.up(text, "--lease", "prod")
            assert (back.code, "leads lease prod" in back.err) == (0, True), back.err
            control = next(
                pid for pid, words in second.processes().items() if "meshd.daemon" in words
            )
            os.kill(control, signal.SIGSTOP)

            async def leads_again() -> bool:
                status = await status_of(first)
                return any(each["ready"] == 2 for each in status["services"])

            await wait_until(leads_again, 60, "the first one leads again")
            with suppress(ProcessLookupError):  # its supervisor may have replaced it
                os.kill(control, signal.SIGCONT)
            await wait_until(lambda: _stands_by(second), 60, "the other one stands by")
            assert (await first.service("web"))["wanted"] == 2

            async with Client(first.state / "admin.sock") as client:
                await client.scale(PROJECT, "web", 3)
            os.kill(first.child("meshd.daemon"), signal.SIGTERM)
            began = clock()
            await wait_until(leads, 60, "the other one leads after the orderly end")
            print(f"orderly hand-over after {clock() - began:.1f} s")
            assert (await second.service("web"))["wanted"] == 3, "the last change is there"
        finally:
            await second.end()
            await first.end()


@pytest.mark.acceptance
@pytest.mark.timeout(600)
async def test_the_end_of_a_leader_in_the_foreground_leaves_its_services(
    tmp_path: Path, engine_image: str
) -> None:
    """As when its host restarts: SIGTERM to `meshd up`. The other one leads, with all replicas and
    with the version that the first one deployed last."""
    text = APPLICATION.replace("IMAGE", engine_image).replace("CODE", json.dumps(CALLER))
    with own_swarm(["m1"], engine_image) as (node,):
        meshes, commands = meshes_of(node, tmp_path), []
        first, second = meshes
        try:
            for mesh in meshes:
                (mesh.folder / "compose.yml").write_text(text)
                with (mesh.folder / "output").open("wb") as output:
                    command = await asyncio.create_subprocess_exec(
                        *mesh.inside, sys.executable, "-m", "meshd", "up", "-f", "compose.yml",
                        "--runtime", "swarm", "--listen", mesh.address, "--metrics", "127.0.0.1:0",
                        "--workers", "1", "--lease", "prod", "--state", str(mesh.state),
                        cwd=mesh.folder, env={**os.environ, **mesh.environment},
                        stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=output,
                    )  # fmt: skip
                commands.append(command)
                read = (mesh.folder / "output").read_text
                expected = "press Ctrl-C" if mesh is first else "leads lease prod"
                await wait_until(lambda: expected in read(), 60, read)  # noqa: B023
            newer = first.folder / "newer.yml"
            newer.write_text(text.replace("first", "second"))
            deployed = await first.run("deploy", "-f", str(newer))
            assert deployed.code == 0, deployed.err
            names = {each["name"] for each in (await first.service("web"))["replicas"]}
            commands[0].terminate()
            await asyncio.wait_for(commands[0].wait(), 60)
            said = (first.folder / "output").read_text()
            assert "another one of lease prod leads then" in said, said

            async def leads() -> bool:
                services = (await status_of(second))["services"]
                return any(each["name"] == "web" and each["ready"] for each in services)

            await wait_until(leads, 60, "the other one leads")
            read = (second.folder / "output").read_text
            await wait_until(lambda: "stays as the meshd that led" in read(), 20, read)
            assert {each["name"] for each in (await second.service("web"))["replicas"]} == names
            assert await fetch(node.address, 8082) == "second"
        finally:
            await second.end()
            await first.end()
            for command in commands:
                with suppress(ProcessLookupError):
                    command.kill()
                await command.wait()


@pytest.mark.acceptance
@pytest.mark.timeout(600)
async def test_a_proxy_on_another_node_is_cut_from_the_control_process(
    tmp_path: Path, engine_image: str
) -> None:
    """It serves on meanwhile, under load, and catches up afterwards."""
    text = APPLICATION.replace("IMAGE", engine_image).replace("CODE", json.dumps(CALLER))
    with own_swarm(["m1", "w1"], engine_image) as (manager, worker):
        environment = {"DOCKER_HOST": manager.host}
        address = f"{manager.address}:8080"
        mesh = TestMesh(tmp_path, "swarm", address, environment, manager.inside)
        drop = ("OUTPUT", "-p", "tcp", "--dport", "15779", "-j", "DROP")
        counts: Counter[str] = Counter()
        over = asyncio.Event()

        async def send_requests() -> None:
            while not over.is_set():
                counts[await fetch(worker.address, 8080)] += 1

        async def shown() -> dict[str, Any]:
            nodes = {each["name"]: each for each in await mesh.api("/v1/nodes")}
            return dict(nodes["w1"]["proxy"] or {})

        async def is_shown(state: str) -> bool:
            return (await shown()).get("state") == state

        process: asyncio.subprocess.Process | None = None
        try:
            listen = f"{manager.address}:15779"
            started = await mesh.up(text, "--node-listen", listen)
            assert started.code == 0, started.err
            token = tmp_path / "token"
            token.write_text((await mesh.run("node", "token")).out)
            process = await asyncio.create_subprocess_exec(
                *worker.inside, sys.executable, "-m", "meshd", "node", "join", manager.address,
                "--token-file", str(token), "--name", "w1", "--listen", f"{worker.address}:8080",
                "--workers", "1", "--state", str(tmp_path / "w1"), cwd=tmp_path,
            )  # fmt: skip
            await wait_until(partial(serves, worker.address, 8080, "first"), 30, "it serves")
            await wait_until(partial(is_shown, "connected"), 20, "it is connected")
            load_task = asyncio.create_task(send_requests())
            run(*worker.inside, "iptables", "-w", "-A", *drop)
            await wait_until(partial(is_shown, "lost"), 60, "its silence is noticed")
            before = counts["first"]
            await wait_until(lambda: counts["first"] > before + 50, 30, "it serves on")
            assert (await mesh.run("scale", "web", "4")).code == 0
            await mesh.until("web", lambda each: each["ready"] == 4, 60)
            run(*worker.inside, "iptables", "-w", "-D", *drop)
            await wait_until(partial(is_shown, "connected"), 60, "it catches up")
            updated = await mesh.up(text.replace("first", "second"))
            assert updated.code == 0, updated.err
            await wait_until(lambda: counts["second"] > 50, 30, "requests to the new revision")
            over.set()
            await load_task
            print(f"requests through the node: {dict(counts)}")
            assert set(counts) == {"first", "second"}
        finally:
            over.set()
            if process is not None:
                process.terminate()
                await process.wait()
            await mesh.end()


def meshes_of(node: OwnNode, folder: Path) -> tuple[TestMesh, TestMesh]:
    """Return two meshes on a node, whose proxies listen on the ports 8081 and 8082."""
    made = []
    for number in (1, 2):
        (own := folder / str(number)).mkdir()
        address, environment = f"{node.address}:{8080 + number}", {"DOCKER_HOST": node.host}
        made.append(TestMesh(own, "swarm", address, environment, node.inside))
    return made[0], made[1]


async def serves(host: str, port: int, text: str) -> bool:
    """Whether a proxy answers with a text."""
    try:
        return await fetch(host, port) == text
    except (aiohttp.ClientError, OSError):
        return False


async def status_of(mesh: TestMesh) -> dict[str, Any]:
    """The status; without services while the daemon does not answer."""
    try:
        return dict(await mesh.api("/v1/status"))
    except (aiohttp.ClientError, OSError):
        return {"services": [], "standby": ""}


async def _stands_by(mesh: TestMesh) -> bool:
    return bool((await status_of(mesh))["standby"])


class Load:
    """Requests one after the other from several clients. `failed` has the errors, `longest` the
    seconds of the slowest request."""

    def __init__(self, host: str, port: int) -> None:
        self.served = 0
        self.longest = 0.0
        self.failed: list[str] = []
        self._where = (host, port)
        self._tasks: list[asyncio.Task[None]] = []
        self._over = False

    def start(self, clients: int) -> None:
        self._tasks = [asyncio.create_task(self._send()) for _ in range(clients)]

    async def stop(self) -> None:
        self._over = True
        await asyncio.gather(*self._tasks)

    async def _send(self) -> None:
        clock = asyncio.get_running_loop().time
        while not self._over:
            began = clock()
            try:
                await fetch(*self._where)
                self.served += 1
            except OSError as error:
                self.failed.append(str(error))
            self.longest = max(self.longest, clock() - began)


async def _open_worker(node: OwnNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", node.host)
    worker = SwarmRuntime()
    try:
        await worker.open()
    finally:
        await worker.close()


async def _equals(ask: object, expected: object) -> bool:
    return await ask() == expected  # type: ignore[operator, no-any-return]


async def _is_up(host: str, port: int) -> bool:
    try:
        await fetch(host, port)
    except OSError:
        return False
    return True
