"""`meshd proxy --tcp`: TCP ports of a standalone proxy, from the command line and from a file."""

import asyncio
import json
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from proxy.transport.proxy_header import ProxiedAddress, build_header
from tests.integration.proxy.test_command import meshd_proxy
from tests.processes.traffic import fetch, origin
from tests.support.proxy_scene import Client, Origin, Script, Visit
from tests.support.tcp_scene import ask, echo, is_reset
from tests.support.waiting import elapse, stays, wait_until


@asynccontextmanager
async def started(*scripts: Script) -> AsyncIterator[list[Origin]]:
    """Servers with these scripts."""
    found = [await Origin(script).start() for script in scripts]
    try:
        yield found
    finally:
        await elapse(0.05, "the connections of the servers end")
        for each in found:
            each.stop()


def named(name: bytes) -> Script:
    """A server that sends its name and then what it receives."""

    async def serve(visit: Visit) -> None:
        await visit.send(name)
        await echo(visit)

    return serve


async def connect(address: str) -> Client:
    if address.startswith("unix:"):
        return Client(*await asyncio.open_unix_connection(address.removeprefix("unix:")))
    host, _, port = address.rpartition(":")
    return Client(*await asyncio.open_connection(host.strip("[]"), int(port)))


async def name_at(address: str) -> bytes:
    """Return the name of the server that a new connection leads to; empty if it is reset."""
    client = None
    try:
        client = await connect(address)
        return await client.exactly(1)
    except (ConnectionResetError, asyncio.IncompleteReadError):
        return b""
    finally:
        if client is not None:
            client.close()


async def test_ports_from_the_command_line(tmp_path: Path, free_port: int) -> None:
    """Without `--to` there is no HTTP: connections are balanced, counted, logged and drained."""
    admin, log = f"127.0.0.1:{free_port}", tmp_path / "access.log"
    async with started(named(b"a"), named(b"b")) as (a, b):
        to = f"127.0.0.1:{a.port},127.0.0.1:{b.port}"
        options = ("--tcp", f"127.0.0.1:0={to}", "--tcp", f"unix:{tmp_path}/p.sock={to}")
        logged = ("--access-log", "on", "--access-log-file", str(log))
        with meshd_proxy(
            tmp_path, *options, *logged, "--workers", "2", "--admin", admin
        ) as running:
            await running.listening(addresses=2)
            assert len(running.bound()) == 2
            for address in running.bound():
                clients = [await connect(address) for _ in range(4)]
                # Each worker fills its first endpoint up to a connection and takes the other then.
                names = {await client.exactly(1) for client in clients}
                assert names <= {b"a", b"b"}
                data = bytes(range(256)) * 4096
                for client in clients:
                    assert await ask(client, data) == data
                    client.close()
            assert a.visits
            assert b.visits

            async def counted() -> bool:
                _, text = await fetch(admin, "/metrics")
                lines = text.splitlines()
                labels = 'method="TCP",code="2xx"} 4.0'
                names = ("proxy/tcp-0", "proxy/tcp-p.sock")
                return all(
                    f'meshd_requests_total{{service="{name}",{labels}' in lines for name in names
                )

            await wait_until(counted, 10, "metrics", interval=0.1)
            assert (await fetch(admin, "/healthz"))[0] == 200
            open_one = await connect(running.bound()[0])
            await open_one.exactly(1)
            running.signal(signal.SIGTERM)
            assert await ask(open_one, b"drained") == b"drained"
            open_one.close()
            assert await running.ended() == 0
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert len(lines) == 9
    assert {(line["service"], line["method"]) for line in lines} == {
        ("proxy/tcp-0", "TCP"), ("proxy/tcp-p.sock", "TCP"),
    }  # fmt: skip


async def test_http_and_tcp_with_own_policies(tmp_path: Path, free_port: int) -> None:
    """A file has both; a port takes the policies of the proxy, except its own. One with `parking`
    waits for its server; one without fails at once."""
    file = tmp_path / "front.yml"
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        closed = reserved.getsockname()[1]
        async with started(named(b"t")) as (t,), origin("h") as h:
            file.write_text(
                f"listen: 127.0.0.1:0\nto: 127.0.0.1:{h.port}\n"
                "limits: {endpoint_in_flight: 1, pending_timeout: 300ms}\ntcp:\n"
                f"- {{listen: '[::1]:0', to: 127.0.0.1:{t.port}, name: echo}}\n"
                f"- {{listen: 127.0.0.2:0, to: 127.0.0.1:{closed}}}\n"
                f"- {{listen: 127.0.0.3:0, to: 127.0.0.1:{free_port}, parking: {{timeout: 20s}}}}\n"
            )
            with meshd_proxy(tmp_path, "--config", str(file)) as running:
                await running.listening(addresses=4)
                http, echoing, failing, parking = running.bound()
                assert await fetch(http, "/x") == (200, "h /x")
                first = await connect(echoing)
                assert await first.exactly(1) == b"t"
                # The limit is that of the proxy: the second one waits for a place in vain.
                assert await name_at(echoing) == b""
                first.close()
                assert await name_at(failing) == b""
                waiting = await connect(parking)
                answer = asyncio.create_task(waiting.exactly(1))
                await stays(lambda: not answer.done(), 0.3, "parked")
                late = await Origin(named(b"l")).start(free_port)
                assert await answer == b"l"
                waiting.close()
                await wait_until(late.visits[0].closed.is_set, 10, "it ends")
                late.stop()


async def test_ports_change_at_sighup(tmp_path: Path) -> None:
    """Targets change and ports are added without an end of open connections; connections to a port
    that was removed are reset."""
    file = tmp_path / "front.yml"
    async with started(named(b"a"), named(b"b")) as (a, b):
        file.write_text(
            f"tcp: ['127.0.0.1:0=127.0.0.1:{a.port}', '127.0.0.2:0=127.0.0.1:{a.port}']\n"
        )
        with meshd_proxy(tmp_path, "--config", str(file)) as running:
            await running.listening(addresses=2)
            kept, removed = running.bound()
            old = await connect(kept)
            assert await old.exactly(1) == b"a"
            added = f"unix:{tmp_path}/new.sock"
            file.write_text(
                f"tcp: ['127.0.0.1:0=127.0.0.1:{b.port}', '{added}=127.0.0.1:{b.port}']\n"
            )
            running.signal(signal.SIGHUP)
            await wait_until((tmp_path / "new.sock").exists, 10, "opened")

            async def changed() -> bool:
                return [await name_at(each) for each in (kept, removed)] == [b"b", b""]

            await wait_until(changed, 10, "new targets")
            assert await name_at(added) == b"b"
            assert await ask(old, b"still there") == b"still there"
            file.write_text("tcp: ['127.0.0.1:0']\n")
            running.signal(signal.SIGHUP)
            await wait_until(lambda: "is not LISTEN=TARGET" in running.said, 10, "refused")
            assert await name_at(kept) == b"b"
            old.close()


async def test_workers_are_replaced_under_load(tmp_path: Path) -> None:
    """An upgrade loses no new connection, and an open one runs on."""
    async with started(echo) as (server,):
        to = f"127.0.0.1:0=127.0.0.1:{server.port}"
        with meshd_proxy(tmp_path, "--tcp", to, "--workers", "2", "--drain", "60s") as running:
            address = await running.listening()
            old = await connect(address)
            assert await ask(old, b"first") == b"first"
            load = Load(address)
            await wait_until(lambda: load.good > 50, 10, "load runs")
            workers = set(running.workers())
            running.signal(signal.SIGUSR2)
            await wait_until(lambda: len(set(running.workers()) - workers) == 2, 20, "new workers")
            good = load.good
            await wait_until(lambda: load.good > good + 100, 10, "load continues")
            assert await ask(old, b"still there") == b"still there"
            old.close()
            await wait_until(lambda: not set(running.workers()) & workers, 20, "old ones gone")
            await load.stop()
            assert load.failures == []


class Load:
    """Clients that make a connection for each message, until `stop`."""

    def __init__(self, address: str, clients: int = 4) -> None:
        self.good = 0
        self.failures: list[str] = []
        self._address = address
        self._stopped = False
        self._tasks = [asyncio.create_task(self._run()) for _ in range(clients)]

    async def _run(self) -> None:
        while not self._stopped:
            client = None
            try:
                client = await connect(self._address)
                if await ask(client, b"hello") != b"hello":
                    raise AssertionError("another answer")
                self.good += 1
            except (OSError, asyncio.IncompleteReadError, AssertionError) as error:
                self.failures.append(repr(error))
            finally:
                if client is not None:
                    client.close()

    async def stop(self) -> None:
        self._stopped = True
        await asyncio.gather(*self._tasks)


async def test_a_port_behind_a_load_balancer(tmp_path: Path) -> None:
    """The client in the PROXY header counts, and is passed on in one."""
    client = ProxiedAddress("203.0.113.9", 40000, "127.0.0.1", 443)
    file, log = tmp_path / "front.yml", tmp_path / "access.log"
    async with started(echo) as (behind,):
        file.write_text(
            f"tcp: {{listen: 127.0.0.1:0, to: 127.0.0.1:{behind.port}, "
            "upstream: {proxy_protocol: v1}}\n"
            "listeners: {'127.0.0.1:0': {proxy_protocol: {from: 127.0.0.0/8}}}\n"
            f"access_log: {{mode: on, path: {log}}}\n"
        )
        with meshd_proxy(tmp_path, "--config", str(file)) as running:
            address = await running.listening()
            sender = await connect(address)
            await sender.send(build_header("v2", client) + b"hello")
            assert await sender.exactly(20) == b"PROXY TCP4 203.0.113"
            sender.close()
            without = await connect(address)
            await without.send(b"hello")
            assert await is_reset(without)
            await wait_until(lambda: "203.0.113.9" in log.read_text(), 10, "logged")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--tcp", "{taken}=127.0.0.1:1"), "cannot listen on {taken}: Address already in use"),
        (("--tcp", "127.0.0.1:0=no-such-host.invalid:1"), "cannot resolve the host no-such-host"),
        (("--tcp", "127.0.0.1:5432"), "'127.0.0.1:5432' is not LISTEN=TARGET"),
    ],
)
async def test_mistakes_exit_with_2(tmp_path: Path, options: tuple[str, str], said: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as occupant:
        taken = f"127.0.0.1:{occupant.getsockname()[1]}"
        arguments = [each.format(taken=taken) for each in options]
        with meshd_proxy(tmp_path, *arguments) as running:
            assert await running.ended() == 2
            assert said.format(taken=taken) in running.said
            assert "Traceback" not in running.said
