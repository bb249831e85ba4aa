"""A whole mesh with the proxy of another node: two supervisors with real workers, on one host."""

import asyncio
import contextlib
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from meshd.api.client import Client
from meshd.model.errors import NotFound
from tests.support.mesh import TestMesh, service_text
from tests.support.ports import free_port
from tests.support.waiting import wait_until


def compose(replicas: int) -> str:
    return "name: shop\nservices:\n" + service_text(
        "web", "process", "none", deploy=f"{{replicas: {replicas}}}"
    )


@asynccontextmanager
async def node_proxy(mesh: TestMesh, folder: Path, *arguments: str) -> AsyncIterator[None]:
    """Run `meshd node join` until the end of the block."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "meshd", "node", "join", *arguments, "--state", str(folder),
        "--workers", "1", stdin=DEVNULL, stdout=PIPE, stderr=DEVNULL, cwd=mesh.folder,
    )  # fmt: skip
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        out, _ = await process.communicate()
        assert process.returncode == 0, out


async def status_of(address: str) -> int:
    """Return the status of a request to a proxy; 0 if there is none."""
    try:
        async with (
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as session,
            session.get(f"http://{address}/") as answer,
        ):
            await answer.read()
            return answer.status
    except aiohttp.ClientError:
        return 0


@pytest.fixture
async def mesh(tmp_path: Path) -> AsyncIterator[TestMesh]:
    made = TestMesh(tmp_path, "process")
    yield made
    await made.end()


async def test_a_node_serves_while_the_control_process_is_gone(
    mesh: TestMesh, tmp_path: Path
) -> None:
    manager, address = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    started = await mesh.up(compose(1), "--no-ui", "--node-listen", manager)
    assert started.code == 0, started.err
    assert "--node-listen is for --runtime swarm" in started.err
    token = tmp_path / "token"
    async with Client(mesh.state / "admin.sock") as client:
        token.write_text((await client.make_join_token(600)).secret)
    token.chmod(0o600)
    first = (manager, "--token-file", str(token), "--name", "n1", "--listen", address)

    async def shown(state: str) -> bool:
        nodes = {each["name"]: each for each in await mesh.api("/v1/nodes")}
        proxy = nodes["n1"]["proxy"]
        return bool(proxy and proxy["state"] == state)

    async with node_proxy(mesh, tmp_path / "n1", *first):
        await wait_until(lambda: status_of(address), 20, "the node serves", 0.05)
        await wait_until(lambda: shown("connected"), 10, "it is shown", 0.05)
        assert await status_of(address) == 200

        async def counted() -> bool:
            return 'meshd_worker_connections{worker="1000001"}' in await mesh.text("/metrics")

        await wait_until(counted, 10, "its worker is counted", 0.05)

        # The control process is killed, and cannot come back: it serves on.
        supervisor = next(pid for pid, words in mesh.processes().items() if "proxy" in words)
        control = mesh.child("meshd.daemon")
        mesh.kill(control)
        assert [await status_of(address) for _ in range(20)] == [200] * 20
        assert supervisor in mesh.processes()

        # It catches up: the replica that it knows is replaced by others.
        async def replaced() -> bool:
            with contextlib.suppress(aiohttp.ClientError, OSError):
                return await shown("connected")
            return False

        await wait_until(replaced, 20, "connected again", 0.05)
        before = {each["name"] for each in (await mesh.service("web"))["replicas"]}
        async with Client(mesh.state / "admin.sock") as client:
            await client.restart("shop", "web")
        await mesh.until(
            "web", lambda web: not before & {each["name"] for each in web["replicas"]}, 20
        )
        assert [await status_of(address) for _ in range(20)] == [200] * 20

    # It starts again without a token, and serves from its disk before it is connected.
    again = ("127.0.0.1:9", "--listen", address)
    async with node_proxy(mesh, tmp_path / "n1", *again):
        await wait_until(lambda: status_of(address), 20, "the node serves", 0.05)
        assert await status_of(address) == 200
    await wait_until(lambda: shown("lost"), 20, "it is lost", 0.05)
    async with Client(mesh.state / "admin.sock") as client:
        await client.remove_node_proxy("n1")
        with pytest.raises(NotFound, match="no proxy of a node 'n1' has joined"):
            await client.remove_node_proxy("n1")
