"""A burst that one endpoint cannot serve waits in the proxy for the endpoints that come."""

import asyncio
import time
from dataclasses import dataclass, field

import pytest

from proxy.policy.backlog import NO_LIMIT
from proxy.wire.snapshot import Limits
from tests.support.proxy_scene import (
    OK,
    Client,
    Scene,
    Script,
    Visit,
    get,
    on_uvloop,
    scene,
    service,
)
from tests.support.waiting import elapse

SECONDS = 0.05
"""Seconds that an endpoint takes for a request."""
WORKERS = 2
"""Requests that it takes at once: it serves 40 a second."""
RATE = 160.0
UNTIL_READY = 2.0
"""Seconds until the further endpoints are ready."""


def limited(seconds: float) -> Script:
    """Return the script of an endpoint with WORKERS."""
    free = asyncio.Semaphore(WORKERS)

    async def script(visit: Visit) -> None:
        while True:
            await visit.head()
            async with free:
                await elapse(seconds, "the endpoint works")
            await visit.send(OK)

    return script


@dataclass
class Burst:
    """What the clients of a burst saw."""

    latencies: list[float] = field(default_factory=list)
    failures: list[int] = field(default_factory=list)
    idle: list[Client] = field(default_factory=list)

    async def ask(self, s: Scene) -> None:
        client = self.idle.pop() if self.idle else await s.client()
        began = time.monotonic()
        await client.send(get())
        status = (await client.response())[0]
        if status == 200:
            self.latencies.append(time.monotonic() - began)
        else:
            self.failures.append(status)
        self.idle.append(client)

    async def run(self, s: Scene, seconds: float) -> None:
        began, tasks = time.monotonic(), []
        while (passed := time.monotonic() - began) < seconds:
            while len(tasks) < passed * RATE:
                tasks.append(asyncio.create_task(self.ask(s)))
            await elapse(0.005, "the next request")
        await asyncio.gather(*tasks)

    def p99(self) -> float:
        return sorted(self.latencies)[int(len(self.latencies) * 0.99)]


async def burst(s: Scene, limits: Limits) -> Burst:
    """Send a burst to one endpoint, to which four more come."""
    first = await s.origin(limited(SECONDS))
    s.install(service(first, limits=limits))
    made = Burst()

    async def scale_up() -> None:
        await elapse(UNTIL_READY, "further endpoints start")
        more = [await s.origin(limited(SECONDS)) for _ in range(4)]
        s.install(service(first, *more, limits=limits))

    scaling = asyncio.create_task(scale_up())
    await made.run(s, UNTIL_READY * 2.5)
    await scaling
    return made


@pytest.mark.parametrize("limits", [Limits(), Limits(adaptive=True)])
@on_uvloop
async def test_a_burst_waits_for_the_endpoints_that_come(limits: Limits) -> None:
    async with scene() as s:
        made = await burst(s, limits)
        print(f"{len(made.latencies)} served, p99 {made.p99():.2f} s")
        assert made.failures == []
        # At the first endpoint alone the last of them would wait for 6 s. Clients, proxy and
        # endpoints share the CPUs, and the time until endpoints are ready includes their start.
        assert made.p99() < 2.0 * UNTIL_READY + 0.5


@on_uvloop
async def test_without_the_queue_they_wait_at_the_first_endpoint() -> None:
    async with scene() as s:
        made = await burst(s, Limits(queue=False))
        assert made.failures == []
        assert made.p99() > 1.5 * UNTIL_READY
        assert s.plane.services["shop"].backlog.limit == NO_LIMIT


@on_uvloop
async def test_an_endpoint_that_is_only_slow_gets_all() -> None:
    async def slow(visit: Visit) -> None:
        while True:
            await visit.head()
            await elapse(1.0, "the endpoint waits for something else")
            await visit.send(OK)

    async with scene() as s:
        await s.serve(slow)
        made = Burst()
        await made.run(s, 3.0)
        print(f"{len(made.latencies)} served, p99 {made.p99():.2f} s")
        assert made.failures == []
        # With a queue in the proxy the last of them would wait for many seconds.
        assert made.p99() < 5.0
