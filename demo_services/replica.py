"""What the five services share: the replica contract, bounded concurrency, and faults.

A replica serves `concurrency` requests at once and queues the rest, so its latency grows with
load as that of a real one does, without burning CPU that the load generator needs.
"""

import asyncio
import math
import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiohttp import web

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True)
class Work:
    """How much a replica can do: mean service time in seconds with its coefficient of
    variation (log-normal), requests at once, and requests waiting before it says 503."""

    mean: float
    cv: float = 0.5
    concurrency: int = 4
    queue: int = 200


@dataclass
class Faults:
    """The fault switch of one replica; changed by `POST /_fault` when DEMO_FAULTS is 1."""

    slow: float = 1.0
    failing: float = 0.0
    hanging: bool = False
    unhealthy: bool = False

    def set(self, order: dict[str, object]) -> None:
        """Carry out one order: {"mode": slow|failing|hanging|unhealthy|crashing|none,
        "value": number}. Raises ValueError for any other mode."""
        mode, value = order.get("mode"), float(str(order.get("value", 1)))
        match mode:
            case "slow":
                self.slow = value
            case "failing":
                self.failing = value
            case "hanging":
                self.hanging = bool(value)
            case "unhealthy":
                self.unhealthy = bool(value)
            case "none":
                self.slow, self.failing, self.hanging, self.unhealthy = 1.0, 0.0, False, False
            case "crashing":
                # No handler runs and nothing is flushed, as when the kernel kills it. (The
                # first process of a container cannot be killed by a signal from inside.)
                os._exit(137)
            case _:
                raise ValueError(f"unknown fault mode {mode!r}")


class Replica:
    """One replica's bounded workshop. `busy()` wraps the work of a request."""

    def __init__(self, service: str, work: Work) -> None:
        self.service = service
        self.work = work
        self.version = os.environ.get("APP_VERSION", "1")
        self.faults = Faults()
        self._slots = asyncio.Semaphore(work.concurrency)
        self._waiting = 0
        self._dice = random.Random()

    @asynccontextmanager
    async def busy(self) -> AsyncIterator[None]:
        """Wait for a slot, take the service time, then let the body run. Raises 503 when the
        queue is full, and fails or hangs when the fault switch says so."""
        if self._waiting >= self.work.queue:
            raise web.HTTPServiceUnavailable(text="queue full", headers={"Retry-After": "1"})
        self._waiting += 1
        try:
            await self._slots.acquire()
        finally:
            self._waiting -= 1
        try:
            if self.faults.hanging:
                await asyncio.sleep(3600)
            await asyncio.sleep(self._service_time() * self.faults.slow)
            if self._dice.random() < self.faults.failing:
                raise web.HTTPInternalServerError(text="injected fault")
            yield
        finally:
            self._slots.release()

    def _service_time(self) -> float:
        spread = math.log(1 + self.work.cv**2)
        return self._dice.lognormvariate(math.log(self.work.mean) - spread / 2, spread**0.5)

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Names the replica and its version in every answer."""
        response = await handler(request)
        if not response.prepared:
            response.headers["X-Replica"] = os.environ.get("MESH_REPLICA", str(os.getpid()))
            response.headers["X-Version"] = self.version
        return response

    async def health(self, _: web.Request) -> web.Response:
        """`GET /healthz`."""
        if self.faults.unhealthy:
            return web.json_response({"status": "unhealthy"}, status=503)
        return web.json_response({"status": "ok", "version": self.version})

    async def fault(self, request: web.Request) -> web.Response:
        """`POST /_fault`, for tests and the demo."""
        try:
            self.faults.set(await request.json())
        except ValueError as error:
            raise web.HTTPBadRequest(text=str(error)) from error
        return web.json_response({"ok": True})


def mesh_url(service: str) -> str:
    """Where another service is called: `$MESH_URL_NAME`, or its name, which resolves to the
    mesh on a container network."""
    return os.environ.get(f"MESH_URL_{service.upper()}", f"http://{service}").rstrip("/")


def work_from_environment(default: Work) -> Work:
    """The service's own figures, unless WORK_MEAN_MS or WORK_CONCURRENCY override them."""
    return Work(
        mean=float(os.environ.get("WORK_MEAN_MS", default.mean * 1000)) / 1000,
        cv=default.cv,
        concurrency=int(os.environ.get("WORK_CONCURRENCY", default.concurrency)),
        queue=default.queue,
    )


def serve(service: str, work: Work, build: Callable[[Replica], web.Application]) -> None:
    """Run one replica until SIGTERM; requests in flight are finished first."""
    replica = Replica(service, work_from_environment(work))
    app = build(replica)
    app.middlewares.append(replica.middleware)
    app.router.add_get("/healthz", replica.health)
    if os.environ.get("DEMO_FAULTS") == "1":
        app.router.add_post("/_fault", replica.fault)
    web.run_app(
        app,
        host=os.environ.get("HOST", "0.0.0.0" if os.path.exists("/.dockerenv") else "127.0.0.1"),
        port=int(os.environ.get("PORT", "8080")),
        shutdown_timeout=20.0,
        keepalive_timeout=75.0,
        access_log=None,
        print=lambda *_: print(f"{service} v{replica.version} ready", flush=True),
    )
