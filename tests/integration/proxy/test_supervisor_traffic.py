"""Effects of crashes, reloads and shutdown on clients: real processes under load."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from proxy.http1.websocket import GOING_AWAY
from proxy.ipc.config import ChildConfig, LogConfig, SupervisorConfig
from proxy.wire.report import Ack
from proxy.wire.snapshot import Generation, Listener
from tests.processes.supervised import Supervised, alive, control, snapshot, supervised
from tests.processes.traffic import Origin, SteadyClients, fetch, origin
from tests.support.proxy_scene import Client, Visit, get
from tests.support.proxy_scene import Origin as OriginScript
from tests.support.waiting import elapse, wait_until

BOUND = 5.0
"""Machines are shared: a test fails at this many times its bound."""


@asynccontextmanager
async def scene(directory: Path, **more: object) -> AsyncIterator[tuple[Supervised, str, Origin]]:
    async with origin() as behind:
        settings = SupervisorConfig(
            listen=("127.0.0.1:0",),
            workers=2,
            state_dir=str(directory),
            snapshot=snapshot(1, behind.port),
            announce=True,
            **more,  # type: ignore[arg-type]
        )
        with supervised(directory, settings) as running:
            address = await running.listening()
            yield running, address, behind


async def test_a_killed_worker_loses_only_what_it_had_in_flight(tmp_path: Path) -> None:
    async with scene(tmp_path) as (running, address, _), control(tmp_path / "feed.sock") as client:
        load = SteadyClients(address)
        load.start(clients=8)
        await wait_until(lambda: load.good > 100, 10, "load runs")
        victim = running.workers()[0]
        workers = set(client.live)
        os.kill(victim, signal.SIGKILL)
        took = await wait_until(
            lambda: len(running.workers()) == 2 and victim not in running.workers(), 10, "replaced"
        )
        took += await wait_until(
            lambda: bool(client.acked(Generation(1, 1)) - workers), 10, "replacement serves"
        )
        good = load.good
        await wait_until(lambda: load.good > good + 200, 10, "load continues")
        await load.stop()
        print(f"replacement after {took:.2f} s (bound 1 s); lost in flight: {load.failures}")
        assert took < 1.0 * BOUND
        assert len(load.failures) <= 8
        assert not any("connect:" in each for each in load.failures), load.failures


async def test_a_dead_workers_backlog_is_served_by_its_replacement(tmp_path: Path) -> None:
    """Connections that the kernel accepted for the dead worker wait; none is refused."""
    async with scene(tmp_path) as (running, address, _):
        for pid in running.workers():
            os.kill(pid, signal.SIGSTOP)
        waiting = [asyncio.create_task(fetch(address, f"/{n}")) for n in range(10)]
        await elapse(0.2, "the kernel accepts connections for the stopped workers")
        for pid in running.workers():
            os.kill(pid, signal.SIGKILL)
        answers = await asyncio.wait_for(asyncio.gather(*waiting), 15)
        assert [status for status, _ in answers] == [200] * 10


async def test_the_proxy_serves_while_the_control_process_is_dead(tmp_path: Path) -> None:
    script = "import os,time; open('pids','a').write(f'{os.getpid()}\\n'); time.sleep(600)"
    child = ChildConfig(
        "control",
        (sys.executable, "-c", f"import os; os.chdir({str(tmp_path)!r}); {script}"),
        backoff_first=1.0,
    )
    async with scene(tmp_path, children=(child,)) as (running, address, _):
        load = SteadyClients(address)
        load.start(clients=4)
        pids = tmp_path / "pids"
        await wait_until(lambda: pids.exists() and pids.read_text().count("\n") == 1, 10, "started")
        pid = int(pids.read_text())
        workers = running.workers()
        os.kill(pid, signal.SIGKILL)
        await wait_until(lambda: not alive(pid), 5, "dead")
        good = load.good
        await wait_until(lambda: load.good > good + 100, 10, "load continues")
        await wait_until(lambda: pids.read_text().count("\n") == 2, 10, "started again")
        await load.stop()
        assert load.failures == []
        assert running.workers() == workers


async def test_a_reload_replaces_no_worker_and_opens_the_log_again(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    log = LogConfig("on", "json", str(path))
    async with scene(tmp_path, access_log=log) as (running, address, _):
        load = SteadyClients(address)
        load.start(clients=8)
        await wait_until(lambda: load.good > 100, 10, "load runs")
        before = running.workers()
        for number in range(3):
            path.rename(path.with_suffix(f".{number}"))
            running.signal(signal.SIGHUP)
            await wait_until(path.exists, 10, "opened again")
            good = load.good
            await wait_until(lambda seen=good: load.good > seen + 200, 10, "load continues")
        await load.stop()
        assert load.failures == []
        assert running.workers() == before
        running.signal(signal.SIGTERM)
        assert await running.ended() == 0
        files = list(tmp_path.glob("access.*"))
        assert len(files) == 4
        # The last request of each client was cut off by the end of the load.
        lines = sum(file.read_bytes().count(b"\n") for file in files)
        assert load.good <= lines <= load.good + 8


@asynccontextmanager
async def websockets(
    directory: Path, count: int
) -> AsyncIterator[tuple[Supervised, list[Client], asyncio.Event]]:
    """Run two workers and open WebSockets to an echoing origin. The event is set when the origin
    has seen the end of one."""
    ended = asyncio.Event()

    async def echo(visit: Visit) -> None:
        await visit.head()
        await visit.send(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
        )
        while data := await visit.reader.read(1000):
            await visit.send(data)
        ended.set()

    behind = await OriginScript(echo).start()
    config = SupervisorConfig(
        listen=("127.0.0.1:0",),
        workers=2,
        state_dir=str(directory),
        snapshot=snapshot(1, behind.port),
        drain=3.0,
        announce=True,
    )
    clients = []
    with supervised(directory, config) as running:
        host, _, port = (await running.listening()).rpartition(":")
        for _ in range(count):
            client = Client(*await asyncio.open_connection(host, int(port)))
            await client.send(get("/", "Connection: Upgrade", "Upgrade: websocket"))
            assert b" 101 " in await client.head()
            clients.append(client)
        yield running, clients, ended
    behind.stop()
    for client in clients:
        client.close()


async def alive_tunnels(clients: list[Client]) -> int:
    """Return how many tunnels echo a frame."""
    for client in clients:
        await client.send(b"\x82\x04ping")
    answers = [await client.exactly(6) for client in clients]
    return answers.count(b"\x82\x04ping")


async def test_tunnels_survive_a_reload_and_an_upgrade(tmp_path: Path) -> None:
    async with websockets(tmp_path, 20) as (running, clients, ended):
        old = running.workers()
        running.signal(signal.SIGHUP)
        await wait_until(lambda: "opening the log files" in running.said, 10, "reloaded")
        assert await alive_tunnels(clients) == 20
        async with control(tmp_path / "feed.sock") as client:
            changed = Listener("127.0.0.1:0", paths="strict")
            added = Listener(f"unix:{tmp_path}/more.sock")
            new = msgspec.structs.replace(snapshot(2, 1), listeners=(changed, added))
            client.publish(new)
            await client.all_acked(Generation(1, 2))
            await wait_until((tmp_path / "more.sock").exists, 10, "listens")
            client.publish(snapshot(3))
            await client.all_acked(Generation(1, 3))
        assert await alive_tunnels(clients) == 20
        assert running.workers() == old
        running.signal(signal.SIGUSR2)
        await wait_until(lambda: len(set(running.workers()) - set(old)) == 2, 20, "upgraded")
        await elapse(4.0, "the time for requests is over")
        assert await alive_tunnels(clients) == 20
        assert not ended.is_set()
        assert set(old) < set(running.workers())
        running.signal(signal.SIGTERM)
        for client in clients:
            assert await client.exactly(4) == GOING_AWAY
        assert await running.ended() == 0
        assert "killed" not in running.said


async def test_a_draining_worker_acks_and_its_busy_endpoint_counts(tmp_path: Path) -> None:
    """While an old worker finishes a request, the endpoint it uses is not drained."""
    async with scene(tmp_path) as (running, address, behind):
        pids = set(running.workers())
        async with control(tmp_path / "feed.sock") as client:
            old = set(client.live)
        slow = asyncio.create_task(fetch(address, "/held"))
        await wait_until(lambda: behind.requests == 1, 5, "request is there")
        running.signal(signal.SIGUSR2)
        await wait_until(lambda: len(set(running.workers()) - pids) == 2, 15, "replaced")
        async with control(tmp_path / "feed.sock") as client:
            await wait_until(lambda: len(set(client.live) - old) == 2, 15, "both live")
            client.publish(snapshot(2))
            await client.all_acked(Generation(1, 2))
            busy = f"e{behind.port}"
            holding = {ack.worker for ack in client.of(Ack) if busy in ack.busy}
            assert len(holding) == 1
            assert holding <= old
            behind.release.set()
            assert await slow == (200, "a /held")
            await wait_until(lambda: not set(client.live) & old, 10, "old worker ended")


async def test_a_busy_endpoint_is_acked_idle_when_its_request_ends(tmp_path: Path) -> None:
    async with scene(tmp_path) as (_, address, behind), control(tmp_path / "feed.sock") as client:
        slow = asyncio.create_task(fetch(address, "/held"))
        await wait_until(lambda: behind.requests == 1, 5, "request is there")
        client.publish(snapshot(2))
        await client.all_acked(Generation(1, 2))
        assert any(ack.busy for ack in client.of(Ack))
        behind.release.set()
        await slow
        last = {}
        await wait_until(
            lambda: (
                last.update({ack.worker: ack for ack in client.of(Ack)}) is None
                and not any(ack.busy for ack in last.values())
            ),
            5,
            "acked as idle",
        )


async def test_sigterm_lets_a_slow_response_finish(tmp_path: Path) -> None:
    async with scene(tmp_path) as (running, address, behind):
        slow = asyncio.create_task(fetch(address, "/slow/1.5"))
        await wait_until(lambda: behind.requests == 1, 5, "request is there")
        running.signal(signal.SIGTERM)
        assert await slow == (200, "a /slow/1.5")
        assert await running.ended() == 0


async def test_draining_ends_at_its_deadline(tmp_path: Path) -> None:
    async with scene(tmp_path, drain=0.5) as (running, address, behind):
        slow = asyncio.create_task(fetch(address, "/slow/60"))
        await wait_until(lambda: behind.requests == 1, 5, "request is there")
        running.signal(signal.SIGTERM)
        took = await wait_until(lambda: running.process.poll() is not None, 10, "ended")
        print(f"ended {took:.2f} s after SIGTERM (0.5 s to drain)")
        assert running.process.returncode == 0
        results = await asyncio.gather(slow, return_exceptions=True)
        assert isinstance(results[0], ConnectionError)
