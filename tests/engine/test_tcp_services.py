"""Real PostgreSQL and Redis servers behind the mesh, used by their own clients."""

import asyncio
import contextlib
import functools
import shlex
import shutil
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.support.application import IMAGE, SOURCE, build_image, run
from tests.support.mesh import TestMesh
from tests.support.ports import free_port
from tests.support.scaled import metric, scaled_mesh
from tests.support.waiting import elapse, wait_until

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]
COMPOSE = """
name: {project}
services:
  db:
    build: {{context: postgres, args: {{BASE: "{image}"}}}}
    environment:
      {{POSTGRES_USER: app, POSTGRES_DB: app, POSTGRES_PASSWORD_FILE: /run/secrets/password}}
    secrets: [password]
    volumes: ["data:/var/lib/postgresql/data"]
    stop_grace_period: 20s
    x-mesh: {{tcp: 5432}}
  cache:
    image: {image}
    command: redis-server --protected-mode no --bind 0.0.0.0 --save ""
    environment: {{VERSION: "{version}"}}
    stop_grace_period: 2s
    ports: ["127.0.0.1:{port}:6379"]
    x-mesh: {{tcp: 6379, drain: {drain}, allow: [client], scale: {scale}}}
  client:
    image: {image}
    command: sleep infinity
    environment: {{PGPASSWORD: secret}}
    volumes: ["./session.py:/session.py:ro"]
    stop_grace_period: 1s
  stranger:
    image: {image}
    command: sleep infinity
    stop_grace_period: 1s
volumes: {{data: {{}}}}
secrets: {{password: {{file: ./password.txt}}}}
"""
# Opens connections in turn, until a file /stop exists, or holds them open, until /release exists.
# Says how many were served, and by how many servers.
SESSION = """
import collections, os, sys, time, redis
how, number, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
end, served, held = time.time() + seconds, collections.Counter(), []
def open():
    client = redis.Redis(host="cache", socket_timeout=20, single_connection_client=True)
    served[client.info("server")["run_id"]] += 1
    return client
if how == "hold":
    held = [open() for _ in range(number)]
    print("open", flush=True)
    try:
        while time.time() < end and not os.path.exists("/release"):
            for client in held:
                client.ping()
            time.sleep(0.1)
    finally:
        print("held", round(time.time() - end + seconds, 1))
while how == "turn" and time.time() < end and not os.path.exists("/stop"):
    open().close()
    time.sleep(0.01)
print(sum(served.values()), len(served))
"""


@functools.cache
def published_port() -> int:
    """Return the port of all tests, which is chosen as the first of them starts its servers."""
    return free_port()


@asynccontextmanager
async def servers(
    scale: str = "{min: 2, max: 2}", drain: str = "4s"
) -> AsyncIterator[tuple[TestMesh, str]]:
    """Run the servers and their clients."""
    await asyncio.to_thread(build_image)
    project = f"tcp{uuid.uuid4().hex[:6]}"
    async with scaled_mesh("docker") as mesh:
        shutil.copytree(SOURCE / "postgres", mesh.folder / "postgres")
        (mesh.folder / "password.txt").write_text("secret")
        (mesh.folder / "session.py").write_text(SESSION)
        try:
            done = await mesh.up(text(project, scale, drain=drain))
            assert done.code == 0, done.out + done.err
            yield mesh, project
        finally:
            await mesh.run("down", "--all")
            await run("docker", "volume", "rm", "-f", f"{project}_data")


def text(project: str, scale: str, version: int = 1, drain: str = "4s") -> str:
    return COMPOSE.format(
        project=project,
        image=IMAGE,
        scale=scale,
        version=version,
        port=published_port(),
        drain=drain,
    )


def is_draining(status: dict[str, Any]) -> bool:
    """Return whether a replica with open connections takes no new ones."""
    return any(r["phase"] == "draining" and r["in_flight"] for r in status["replicas"])


def open_connections(status: dict[str, Any]) -> list[int]:
    """Return the number of open connections of each replica."""
    return [replica["in_flight"] for replica in status["replicas"]]


@asynccontextmanager
async def from_outside() -> AsyncIterator[bytes]:
    """Hold a connection to the published port; yield what Redis answers to a PING there."""
    reader, writer = await asyncio.open_connection("127.0.0.1", published_port())
    try:
        writer.write(b"PING\r\n")
        yield await asyncio.wait_for(reader.readline(), 20)
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def inside(mesh: TestMesh, *command: str, service: str = "client") -> str:
    """Run a command in a container; return its output."""
    (replica,) = (await mesh.service(service))["replicas"]
    return await run("docker", "exec", replica["name"], *command)


async def query(mesh: TestMesh, sql: str) -> str:
    """Return the rows of a query."""
    return (await inside(mesh, "psql", "-h", "db", "-U", "app", "-Atc", sql, "app")).strip()


async def test_databases_work_as_without_a_mesh() -> None:
    async with servers() as (mesh, _):
        assert (await inside(mesh, "redis-cli", "-h", "cache", "ping")).strip() == "PONG"
        with pytest.raises(AssertionError, match="reset"):
            await inside(mesh, "redis-cli", "-h", "cache", "ping", service="stranger")
        async with contextlib.AsyncExitStack() as outside:
            for _ in range(4):
                assert await outside.enter_async_context(from_outside()) == b"+PONG\r\n"
            await mesh.until("cache", lambda seen: seen["streams"] == 4, 5)
            # Two workers choose, and each learns the other's counts a moment later.
            _, seen = await mesh.until("cache", lambda seen: sum(open_connections(seen)) == 4, 10)
            assert min(open_connections(seen)) >= 1
        await inside(mesh, *shlex.split("pgbench -q -h db -U app -i -s 1 app"))
        out = await inside(mesh, *shlex.split("pgbench -h db -U app -c 8 -j 2 -t 100 app"))
        assert "number of failed transactions: 0" in out
        assert await query(mesh, "select count(*) from pgbench_history") == "800"
        assert await metric(mesh, "meshd_calls_total") >= 10

        # A server that is killed ends its connections; the next ones wait for its successor.
        (replica,) = (await mesh.service("db"))["replicas"]
        await run("docker", "kill", replica["name"])

        async def recovered() -> bool:
            # The server accepts connections before it has recovered.
            with contextlib.suppress(AssertionError):
                return await query(mesh, "select count(*) from pgbench_history") == "800"
            return False

        await wait_until(recovered, 20, "the rows", interval=0.3)


async def test_a_rolling_update_keeps_open_connections_and_refuses_none() -> None:
    async with servers(drain="80s") as (mesh, project):
        holding = asyncio.create_task(inside(mesh, "python3", "/session.py", "hold", "6", "80"))
        turns = asyncio.create_task(inside(mesh, "python3", "/session.py", "turn", "0", "90"))
        await mesh.until("cache", lambda status: status["streams"] >= 6, 20)
        path = mesh.folder / "compose.yml"
        path.write_text(text(project, "{min: 2, max: 2}", 2, drain="80s"))
        deploying = asyncio.create_task(mesh.run("deploy", "-f", str(path)))
        # Connections that end before the drain deadline notice nothing of the update. The port of
        # the host stays open.
        await mesh.until("cache", is_draining, 20)
        await elapse(1.0, "held connections are used while their server drains")
        assert not holding.done(), holding.result()
        await inside(mesh, "touch", "/release")
        done = await deploying
        assert done.code == 0, done.out + done.err
        async with from_outside() as answer:
            assert answer == b"+PONG\r\n"
        assert (await holding).split()[-2:] == ["6", "2"]
        await inside(mesh, "touch", "/stop")
        served, by = map(int, (await turns).split())
        assert served > 50
        assert by == 4


async def test_connections_that_outlive_the_drain_deadline_end() -> None:
    async with servers("{min: 1, max: 1}") as (mesh, project):
        code = (
            "import socket, time; s = socket.create_connection(('cache', 6379)); t = time.time(); "
            "s.sendall(b'PING\\r\\n'); assert s.recv(99) == b'+PONG\\r\\n'; "
            "print(s.recv(99), time.time() - t > 3.5)"
        )
        idle = asyncio.create_task(inside(mesh, "python3", "-c", code))
        await mesh.until("cache", lambda status: status["streams"] == 1, 20)
        path = mesh.folder / "compose.yml"
        path.write_text(text(project, "{min: 1, max: 1}", 2))
        done = await mesh.run("deploy", "-f", str(path))
        assert done.code == 0, done.out + done.err
        assert (await idle).split() == ["b''", "True"]


async def test_the_number_of_replicas_follows_the_open_connections() -> None:
    async with servers("{min: 1, max: 4, concurrency: 10, down_window: 1s}") as (mesh, _):
        (client,) = (await mesh.service("client"))["replicas"]
        holding = ("python3", "/session.py", "hold", "25", "200")
        await run("docker", "exec", "--detach", client["name"], *holding)
        _, status = await mesh.until("cache", lambda seen: seen["ready"] == 3, 60)
        assert status["streams"] == 25
        explained = (await mesh.run("explain", "cache")).out
        assert "25.0 in flight (open connections: 25)" in explained
        assert await metric(mesh, "meshd_streams") == 25
