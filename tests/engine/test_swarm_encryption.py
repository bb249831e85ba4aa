"""What leaves a node of a real Swarm for a mesh-managed service is encrypted."""

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.engine.test_swarm import APPLICATION, CALLER
from tests.support.capture import capture
from tests.support.mesh import TestMesh
from tests.support.own_swarm import OwnNode, own_swarm
from tests.support.waiting import wait_until

PATH, BODY = b"a-marker-in-the-path", b"a-marker-in-the-body"
SERVER = CALLER.replace('["MESH_URL_API"] + "/"', '["MESH_URL_API"] + self.path').replace(
    "        self.send_response",
    """        else:
            body += b" " + os.environ["MESH_REPLICA"].encode()
        self.send_response""",
)
"""Passes the path on; replicas of `api` say which one they are."""
GET = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1]).read().decode())"

pytestmark = [pytest.mark.engine, pytest.mark.slow, pytest.mark.acceptance]


@asynccontextmanager
async def joined(mesh: TestMesh, manager: OwnNode, node: OwnNode) -> AsyncIterator[None]:
    """Run the proxy of a node."""
    token = mesh.folder / f"token-{node.name}"
    made = await mesh.run("node", "token")
    assert made.code == 0, made.err
    token.write_text(made.out)
    process = await asyncio.create_subprocess_exec(
        *node.inside, sys.executable, "-m", "meshd", "node", "join", manager.address,
        "--token-file", str(token), "--name", node.name, "--listen", f"{node.address}:8080",
        "--workers", "1", "--state", str(mesh.folder / node.name), cwd=mesh.folder,
    )  # fmt: skip
    try:
        yield
    finally:
        process.terminate()
        await process.wait()


async def ask(node: OwnNode) -> str:
    """Send a request from a node to its own proxy; return the body of the response."""
    process = await asyncio.create_subprocess_exec(
        *node.inside, sys.executable, "-c", GET, f"http://{node.address}:8080/{PATH.decode()}",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    return out.decode().strip()


async def places(mesh: TestMesh, name: str) -> set[str]:
    """Return the nodes with a ready replica."""
    replicas = (await mesh.service(name))["replicas"]
    return {each["node"] for each in replicas if each["phase"] == "ready"}


async def reach_all(mesh: TestMesh, node: OwnNode, count: int) -> None:
    """Send requests at a node until replicas on this number of nodes have answered."""
    places = {each["name"]: each["node"] for each in (await mesh.service("api"))["replicas"]}
    served: set[str] = set()

    async def are_all_reached() -> bool:
        body, replica = (await ask(node)).split()
        assert body == BODY.decode()
        served.add(places[replica])
        return len(served) == count

    await wait_until(are_all_reached, 60, f"requests at {node.name} reach all nodes")


@pytest.mark.timeout(900)
async def test_calls_between_nodes_are_never_in_clear_text(
    tmp_path: Path, engine_image: str
) -> None:
    """Requests from every node reach replicas on every node. Without proxies on nodes, no replica
    is placed there; only with --allow-clear-text they are, and then the capture sees the calls."""
    text = APPLICATION.replace("IMAGE", engine_image).replace("CODE", json.dumps(SERVER))
    text = text.replace("BODY: first", f"BODY: {BODY.decode()}")
    text = text.replace("replicas: 2", "replicas: 3")
    with own_swarm(["m1", "w1", "w2"], engine_image) as nodes:
        manager, *workers = nodes
        links = [each.namespace.removeprefix("/tmp/") for each in nodes]
        environment = {"DOCKER_HOST": manager.host}
        address = f"{manager.address}:8080"
        mesh = TestMesh(tmp_path, "swarm", address, environment, manager.inside)
        try:
            started = await mesh.up(text)
            assert started.code == 0, started.err
            hint = "nodes w1, w2 have no proxy: run `meshd node join` there"
            assert hint in started.err
            assert await places(mesh, "web") == await places(mesh, "api") == {"m1"}
            async with contextlib.AsyncExitStack() as proxies:
                for node in workers:
                    await proxies.enter_async_context(joined(mesh, manager, node))

                async def are_enrolled() -> bool:
                    found = await mesh.api("/v1/nodes")
                    return all(each["has_proxy"] for each in found)

                await wait_until(are_enrolled, 60, "the proxies of the nodes are known")
                assert (await mesh.run("rebalance")).code == 0

                async def are_everywhere() -> bool:
                    everywhere = {each.name for each in nodes}
                    return await places(mesh, "web") == await places(mesh, "api") == everywhere

                await wait_until(are_everywhere, 180, "replicas are on all nodes", interval=1.0)
                listed = await mesh.run("nodes")
                print(listed.out)
                assert "no proxy" not in listed.err
                for node in nodes:
                    with capture(links, PATH, BODY) as wire:
                        await reach_all(mesh, node, len(nodes))
                    print(f"{node.name}: packets between nodes: {wire.packets}, seen: {wire.seen}")
                    assert wire.packets > 20
                    assert set(wire.seen.values()) == {0}
        finally:
            await mesh.end()
        (clear := tmp_path / "clear").mkdir()
        mesh = TestMesh(clear, "swarm", address, environment, manager.inside)
        try:
            started = await mesh.up(text, "--allow-clear-text")
            assert started.code == 0, started.err
            assert "calls to and from w1, w2 are in clear text (--allow-clear-text)" in started.err
            with capture(links, PATH, BODY) as wire:
                for _ in range(10):
                    assert (await ask(manager)).startswith(BODY.decode())
            print(f"with --allow-clear-text: packets {wire.packets}, seen: {wire.seen}")
            assert min(wire.seen.values()) > 0
        finally:
            await mesh.end()
