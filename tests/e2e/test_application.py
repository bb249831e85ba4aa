"""An application as a Compose user writes it: with a database, a cache, a broker, a web service, a
worker, a migration, a scheduler and a proxy in front. It passes the same checks under
docker-compose and under meshd, unchanged. With one line of `x-mesh`, meshd balances, scales and
updates its web service without a failed request."""

import asyncio
import contextlib
import os
import signal
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import aiohttp
import pytest

from tests.support.application import (
    PLACE_OF_MESH_SETTINGS,
    Application,
    ComposeApplication,
    MeshApplication,
    build_image,
    removed_afterwards,
    run,
)
from tests.support.load import Load
from tests.support.mesh import TestMesh
from tests.support.waiting import elapse, wait_until

pytestmark = [pytest.mark.engine, pytest.mark.slow, pytest.mark.timeout(900)]
Check = Callable[[Application], Awaitable[object]]


@pytest.fixture
def runtime() -> str:
    return "docker"


@pytest.fixture(params=[pytest.param("docker-compose", marks=pytest.mark.acceptance), "meshd"])
async def application(
    request: pytest.FixtureRequest, mesh: TestMesh, tmp_path: Path, engine_image: str
) -> AsyncIterator[Application]:
    assert engine_image
    await asyncio.to_thread(build_image)
    project = f"app{uuid.uuid4().hex[:6]}"
    made: Application = MeshApplication(mesh, project)
    if request.param == "docker-compose":
        made = ComposeApplication(tmp_path, project)
    async with removed_afterwards(made) as running:
        yield running


async def answers(app: Application, port: int = 0) -> None:
    """Wait until the web service answers."""

    async def answered() -> bool:
        try:
            return str(await app.ask("/healthz", port=port)) == "ok"
        except (aiohttp.ClientError, AssertionError, OSError, TimeoutError):
            return False

    await wait_until(answered, 20, f"{app.project} answers", interval=0.1)


async def grows(app: Application, kind: str) -> None:
    """Wait until there is a further row of a kind."""
    before = len(await app.ask("/rows", kind))

    async def grown() -> bool:
        return len(await app.ask("/rows", kind)) > before

    await wait_until(grown, 10, f"a new {kind}", interval=0.1)


# --- names, ports and protocols


async def published_port(app: Application) -> None:
    assert await app.ask("/version") == "1"


async def published_on_one_address(app: Application) -> None:
    with pytest.raises(OSError, match="Connect"):
        await asyncio.open_connection("127.0.0.2", app.web)


async def proxy_in_front(app: Application) -> None:
    assert await app.ask("/version", port=app.front) == "1"


async def proxy_finds_the_port_of_the_file(app: Application) -> None:
    assert await app.inside("proxy", "curl", "-fs", "http://web:8000/version") == '"1"'


async def database_by_name(app: Application) -> None:
    assert await app.ask("/write", "first") == "first"
    assert await app.ask("/rows", "write") == ["first"]


async def cache_by_alias_and_by_name(app: Application) -> None:
    assert await app.ask("/resolve", "redis") == await app.ask("/resolve", "cache")


async def broker_by_name(app: Application) -> None:
    assert await app.ask("/broker", "hello") == "hello"


async def host_name_of_the_file(app: Application) -> None:
    assert (await app.inside("broker", "hostname")).strip() == "broker-host"


async def datagrams_between_containers(app: Application) -> None:
    assert str(await app.ask("/metrics", "inside")).endswith("inside")


async def datagrams_from_the_host(app: Application) -> None:
    assert (await app.send_datagram("outside")).endswith("outside")


async def server_that_speaks_first(app: Application) -> None:
    """A name leads to the container on any port, also on one that no file mentions."""
    code = "import socket; s = socket.create_server(('', 7777)); s.accept()[0].sendall(b'hi')"
    (container,) = await app.ids("worker")
    await run("docker", "exec", "-d", container, "python3", "-c", code)
    read = "import socket; print(socket.create_connection(('worker', 7777), 5).recv(9).decode())"

    async def greeted() -> bool:
        with contextlib.suppress(AssertionError):
            return (await app.inside("scheduler", "python3", "-c", read)).strip() == "hi"
        return False

    await wait_until(greeted, 5, "the greeting", interval=0.2)


async def other_networks(app: Application) -> None:
    with pytest.raises(AssertionError):
        await app.inside("proxy", "getent", "hosts", "db")


async def internal_network(app: Application) -> None:
    networks = (await app.inspect("proxy"))["NetworkSettings"]["Networks"]
    ((_, endpoint),) = networks.items()
    reach = ("curl", "-s", "-m", "2", f"http://{endpoint['IPAddress']}/version")
    assert await app.inside("web", *reach) == '"1"'
    with pytest.raises(AssertionError):
        await app.inside("worker", *reach)


# --- what containers get


async def environment(app: Application) -> None:
    names = (await app.inside("worker", "env")).splitlines()
    assert {name.partition("=")[0] for name in names} >= {"DATABASE_URL", "CACHE_HOST"}
    assert not [name for name in names if name.startswith(("PORT=", "MESH"))]


async def secret(app: Application) -> None:
    assert await app.inside("db", "cat", "/run/secrets/password") == "secret"


async def mounted_file(app: Application) -> None:
    assert "listener 1883" in await app.inside("broker", "cat", "/etc/broker.conf")
    assert "Read-only" in await app.inside(
        "broker", "sh", "-c", "touch /etc/broker.conf 2>&1; true"
    )


async def memory_file_system(app: Application) -> None:
    assert "tmpfs" in await app.inside("metrics", "cat", "/proc/mounts")


# --- one-shot services, workers, health


async def migration_ran_once(app: Application) -> None:
    await elapse(2, "a restart of the migration would show by now")
    assert await app.ask("/runs") == 1
    state = (await app.inspect("migrate", "-a"))["State"]
    assert (state["Status"], state["ExitCode"]) == ("exited", 0)


async def worker_works(app: Application) -> None:
    await app.ask("/job", "cook")

    async def done() -> bool:
        return "cook" in await app.ask("/rows", "job")

    await wait_until(done, 10, "the job", interval=0.1)


async def scheduler_ticks(app: Application) -> None:
    await grows(app, "tick")


async def database_is_healthy(app: Application) -> None:
    assert (await app.inspect("db"))["State"]["Health"]["Status"] == "healthy"


# --- data


async def after_restart(app: Application) -> None:
    (container,) = await app.ids("db")
    await run("docker", "restart", "-t", "20", container)
    await back_with_data(app)
    assert await app.ids("db") == [container]


async def after_kill(app: Application) -> None:
    """The container's program is killed, as the kernel does when memory is short."""
    pid = await app.pid("db")
    assert pid
    os.kill(pid, signal.SIGKILL)

    async def replaced() -> bool:
        return await app.pid("db") not in (0, pid)

    await wait_until(replaced, 20, "a new database", interval=0.1)
    await back_with_data(app)


async def after_change(app: Application) -> None:
    (old,) = await app.ids("db")
    app.edit("{POSTGRES_USER: app, ", "{TZ: UTC, POSTGRES_USER: app, ")
    await app.up()
    (new,) = await app.ids("db")
    assert new != old
    await back_with_data(app)


async def after_down_and_up(app: Application) -> None:
    await app.down()
    assert await app.ids("db", "-a") == []
    await app.up()
    await back_with_data(app)


async def back_with_data(app: Application) -> None:
    async def found() -> bool:
        try:
            return "first" in await app.ask("/rows", "write")
        except (aiohttp.ClientError, AssertionError, OSError, TimeoutError):
            return False

    await wait_until(found, 20, "the row that was written first", interval=0.1)
    await grows(app, "tick")


CHECKS: tuple[Check, ...] = (
    published_port,
    published_on_one_address,
    proxy_in_front,
    proxy_finds_the_port_of_the_file,
    database_by_name,
    cache_by_alias_and_by_name,
    broker_by_name,
    host_name_of_the_file,
    datagrams_between_containers,
    datagrams_from_the_host,
    server_that_speaks_first,
    other_networks,
    internal_network,
    environment,
    secret,
    mounted_file,
    memory_file_system,
    migration_ran_once,
    worker_works,
    scheduler_ticks,
    database_is_healthy,
    after_restart,
    after_kill,
    after_change,
    after_down_and_up,
)


async def test_the_unchanged_file_passes_the_same_checks(application: Application) -> None:
    await application.up()
    await answers(application)
    await answers(application, application.front)
    failed = {}
    for check in CHECKS:
        try:
            await check(application)
        except (AssertionError, OSError, aiohttp.ClientError, pytest.fail.Exception) as error:
            failed[check.__name__] = f"{type(error).__name__}: {error}"[:500]
    assert failed == {}


class Writer:
    """A client that writes one row after the other, and remembers which were acknowledged."""

    def __init__(self, app: Application) -> None:
        self._app = app
        self.acknowledged: list[str] = []
        self.failed: Counter[str] = Counter()
        self._task = asyncio.create_task(self._write())

    async def _write(self) -> None:
        number = 0
        while True:
            number += 1
            try:
                self.acknowledged.append(await self._app.ask("/write", f"row-{number}"))
            except (aiohttp.ClientError, AssertionError, OSError, TimeoutError) as error:
                self.failed[str(error)[:200]] += 1
                await asyncio.sleep(0.05)

    async def advance(self, rows: int = 20) -> None:
        """Wait until further rows were acknowledged."""
        goal = len(self.acknowledged) + rows
        await wait_until(
            lambda: len(self.acknowledged) >= goal, 30, lambda: f"rows: {self.failed}", 0.1
        )

    async def lost(self) -> set[str]:
        """End; return the acknowledged rows that the database does not have."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        return set(self.acknowledged) - set(await self._app.ask("/rows", "write"))


@pytest.mark.parametrize("application", ["meshd"], indirect=True)
async def test_one_line_of_x_mesh_adds_balancing_scaling_and_updates(
    application: MeshApplication,
) -> None:
    app, mesh = application, application.mesh
    app.edit(PLACE_OF_MESH_SETTINGS, "    x-mesh: {routes: [/], scale: {min: 1, max: 3}}\n")
    await app.up()
    await answers(app)
    writer = Writer(app)
    await writer.advance()

    async with (
        Load(mesh.address, 40, 120, "/served") as load,
        Load(f"127.0.0.1:{app.front}", 20, 120, "/served") as through_proxy,
    ):
        for number in ("3", "1"):
            scaled = await mesh.run("scale", "web", number)
            assert scaled.code == 0, scaled.err
            await mesh.until("web", lambda s, n=number: s["ready"] == int(n), 30)  # type: ignore[misc]
            await writer.advance()
        mesh.environment["VERSION"] = "2"
        await app.up()
        await writer.advance()
    for result in (load.result, through_proxy.result):
        assert result.failures == []
        assert result.served > 100
        assert len(result.replicas) > 3
    assert await app.ask("/version") == "2"
    assert writer.failed == Counter()

    await run("docker", "kill", (await app.ids("db"))[0])
    await writer.advance()
    await after_kill_of_the_writer_s_database(app, writer)
    app.edit("{POSTGRES_USER: app, ", "{TZ: UTC, POSTGRES_USER: app, ")
    await app.up()
    await writer.advance()
    replaced = await mesh.run("drain", await only_replica(mesh, "db"))
    assert replaced.code == 0, replaced.err
    await writer.advance()
    assert await writer.lost() == set()


async def after_kill_of_the_writer_s_database(app: Application, writer: Writer) -> None:
    pid = await app.pid("db")
    assert pid
    os.kill(pid, signal.SIGKILL)
    await writer.advance()


async def only_replica(mesh: TestMesh, service: str) -> str:
    (replica,) = (await mesh.service(service))["replicas"]
    return str(replica["name"])
