"""Limits that all workers keep together, with real processes and an origin that counts."""

import asyncio
import contextlib
import os
import signal
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from proxy.ipc.config import SupervisorConfig
from proxy.wire.snapshot import (
    Endpoint,
    Generation,
    HashKey,
    Limits,
    Match,
    RateLimit,
    Route,
    Service,
    Snapshot,
    Target,
)
from tests.processes.supervised import Supervised, supervised
from tests.support.tcp_server import start_server
from tests.support.waiting import elapse, wait_until

RATE, BURST = 100.0, 20.0
LIMITS = {
    "service": Limits(service_in_flight=3),
    "endpoint": Limits(endpoint_in_flight=3),
    "connections": Limits(endpoint_connections=3),
    "hold": Limits(service_in_flight=4),
    "rate": Limits(),
}
SUMMED = ("service", "endpoint", "connections")
"""Limits that are also tried with a service of two ports, at the path `/NAME-ports`. Requests with
the field X-Port are for the further one."""


class Counting:
    """An origin that counts the concurrent requests of each path, now and at most. `/hold` is never
    answered."""

    def __init__(self) -> None:
        self.port = 0
        self.now: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self.seen: Counter[str] = Counter()
        self.lost = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                path = (await reader.readuntil(b"\r\n\r\n")).split(b" ", 2)[1].decode()
                self.now[path] += 1
                self.seen[path] += 1
                self.most[path] = max(self.most[path], self.now[path])
                if path == "/hold":
                    with contextlib.suppress(ConnectionError):
                        await reader.read(1)
                    self.lost += 1
                elif path != "/rate":
                    await elapse(0.004, "the origin works, so that requests overlap")
                self.now[path] -= 1
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        writer.close()


class Clients:
    """Connections that request one path again and again, also after an error."""

    def __init__(self, address: str, path: str, count: int, field: str = "X-Key: k") -> None:
        self.host, _, self.port = address.rpartition(":")
        self.request = f"GET {path} HTTP/1.1\r\nHost: x\r\n{field}\r\n\r\n".encode()
        self.statuses: dict[int, Counter[int]] = defaultdict(Counter)
        self.tasks = [asyncio.create_task(self._run(number)) for number in range(count)]

    async def _run(self, number: int) -> None:
        while True:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                reader, writer = await asyncio.open_connection(self.host, int(self.port))
                try:
                    while True:
                        writer.write(self.request)
                        head = await reader.readuntil(b"\r\n\r\n")
                        length = head.lower().partition(b"content-length: ")[2].split(b"\r", 1)[0]
                        await reader.readexactly(int(length))
                        self.statuses[number][int(head[9:12])] += 1
                finally:
                    writer.close()

    def counts(self) -> Counter[int]:
        return sum(self.statuses.values(), Counter())

    async def stop(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


def config(port: int, workers: int) -> SupervisorConfig:
    endpoints = (Endpoint("e", "127.0.0.1", port),)
    limit = RateLimit(RATE, BURST, HashKey("header", "X-Key"))
    ports = [
        (f"{name}-ports{port}", LIMITS[name], matches)
        for name in SUMMED
        for port, matches in (("", ()), (":81", (Match("header", "X-Port"),)))
    ]
    return SupervisorConfig(
        listen=("127.0.0.1:0",),
        workers=workers,
        announce=True,
        snapshot=Snapshot(
            Generation(1, 1),
            services=tuple(
                Service(name, "1", endpoints, limits=limits)
                for name, limits in (*LIMITS.items(), *(each[:2] for each in ports))
            ),
            routes=tuple(
                Route(
                    name,
                    (Target(name),),
                    path=f"/{name}",
                    rate_limit=limit if name == "rate" else None,
                )
                for name in LIMITS
            )
            + tuple(
                Route(name, (Target(name),), path=f"/{name.partition(':')[0]}", matches=matches)
                for name, _, matches in ports
            ),
        ),
    )


@contextlib.asynccontextmanager
async def scene(directory: Path, workers: int) -> AsyncIterator[tuple[Counting, Supervised, str]]:
    origin = Counting()
    server = await start_server(origin.serve)
    origin.port = server.port
    try:
        with supervised(directory, config(origin.port, workers)) as running:
            yield origin, running, await running.listening()
    finally:
        await server.close()
        await elapse(0.05, "the connections of the origin end")


@pytest.mark.parametrize("workers", [1, 2, 4])
async def test_limits_hold_for_all_workers_together(tmp_path: Path, workers: int) -> None:
    async with scene(tmp_path, workers) as (origin, _, address):
        for path in ("service", "endpoint", "connections"):
            clients = Clients(address, f"/{path}", 16)
            await wait_until(
                lambda c=clients, p=path: len(c.statuses) == 16 and origin.most[f"/{p}"] >= 3,
                20,
                "all were served, as many at once as the limit allows",
            )  # type: ignore[misc]
            await clients.stop()
            print(
                f"{workers} workers, {path}: {clients.counts()}, at most {origin.most['/' + path]}"
            )
            assert origin.most[f"/{path}"] == 3, "the limit, and all of it"
            assert set(clients.counts()) == {200}
        for name in SUMMED:
            both = [
                Clients(address, f"/{name}-ports", 8, field) for field in ("X-Key: k", "X-Port: 81")
            ]
            await wait_until(
                lambda b=both, n=name: (
                    [len(each.statuses) for each in b] == [8, 8] and origin.most[f"/{n}-ports"] >= 3
                ),
                20,
                "all were served, as many at once as the limit allows",
            )  # type: ignore[misc]
            for clients in both:
                await clients.stop()
                assert set(clients.counts()) == {200}
            assert origin.most[f"/{name}-ports"] == 3, "both ports have one limit"
        for _ in range(5):
            before, started = origin.seen["/rate"], time.monotonic()
            clients = Clients(address, "/rate", 8)
            await elapse(1.0, "a rate is measured over real time")
            await clients.stop()
            allowed = BURST + RATE * (time.monotonic() - started)
            seen = origin.seen["/rate"] - before
            print(f"{workers} workers, rate: {clients.counts()} where {allowed:.0f} are allowed")
            assert seen <= allowed + 1
            # On a busy machine the clients may stall, and then ask for less than is allowed.
            if not_lost := seen >= 0.9 * allowed - 8:
                break
            await elapse(2 * BURST / RATE, "the whole burst is allowed again")
        assert not_lost, "and nothing of it is lost"


async def test_slots_of_a_dead_worker_are_released(tmp_path: Path) -> None:
    async with scene(tmp_path, 4) as (origin, running, address):
        clients = Clients(address, "/hold", 12)
        await wait_until(lambda: origin.now["/hold"] == 4, 10, "all places are taken")
        for pid in running.workers():
            os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(AssertionError):
                await wait_until(lambda: origin.lost > 0, 0.5, "it held one")
            if origin.lost:
                break
        assert origin.lost
        lost = origin.lost
        await wait_until(lambda: origin.now["/hold"] == 4, 10, "all places are taken again")
        assert origin.seen["/hold"] >= 4 + lost
        await clients.stop()
