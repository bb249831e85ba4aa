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
FEW = 160
"""Requests that the first endpoint holds at most. All that it cannot serve until the further ones
are ready are 240."""


@dataclass
class Limited:
    """An endpoint with WORKERS. `held` are the requests at it now, `peak` the most so far."""

    free: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(WORKERS))
    held: int = 0
    peak: int = 0

    async def script(self, visit: Visit) -> None:
        while True:
            await visit.head()
            self.held += 1
            self.peak = max(self.peak, self.held)
            async with self.free:
                await elapse(SECONDS, "the endpoint works")
            self.held -= 1
            await visit.send(OK)


@dataclass
class Burst:
    """What the clients of a burst saw, and the endpoint that was there first."""

    first: Limited = field(default_factory=Limited)
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
    made = Burst()
    first = await s.origin(made.first.script)
    s.install(service(first, limits=limits))

    async def scale_up() -> None:
        await elapse(UNTIL_READY, "further endpoints start")
        more = [await s.origin(Limited().script) for _ in range(4)]
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
        print(f"{len(made.latencies)} served, p99 {made.p99():.2f} s, {made.first.peak} held")
        assert made.failures == []
        assert made.first.peak < FEW


@on_uvloop
async def test_without_the_queue_they_wait_at_the_first_endpoint() -> None:
    async with scene() as s:
        made = await burst(s, Limits(queue=False))
        assert made.failures == []
        assert made.first.peak > 1.2 * FEW
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
