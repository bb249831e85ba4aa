"""The part that the services share: what a replica must do, limited concurrency, and faults.

A replica serves a limited number of requests at once and queues the rest, so its latency grows with
the load like that of a real one. It sleeps instead of computing, because the load generator needs
the CPU.
"""

import asyncio
import math
import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiohttp import web

from demo_services.tracing import passing_on, tracer_from_environment

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True)
class Work:
    """How much a replica can do.

    - `mean`: mean service time in seconds; `cv`: its coefficient of variation (log-normal).
    - `concurrency`: requests served at once.
    - `queue`: requests that may wait; further ones get a 503.
    """

    mean: float
    cv: float = 0.5
    concurrency: int = 4
    queue: int = 200


@dataclass
class Faults:
    """Faults of one replica, set by `POST /_fault` if DEMO_FAULTS is 1.

    - `slow`: factor of the service time.
    - `failing`: share of the requests that get a 500.
    """

    slow: float = 1.0
    failing: float = 0.0
    hanging: bool = False
    unhealthy: bool = False

    def set(self, request: dict[str, object]) -> None:
        """Set a fault: {"mode": slow|failing|hanging|unhealthy|crashing|none, "value": number}.

        Raises ValueError for another mode.
        """
        mode, value = request.get("mode"), float(str(request.get("value", 1)))
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
                # No handler runs and nothing is flushed, as if the kernel killed it. (A signal from
                # inside cannot kill the first process of a container.)
                os._exit(137)
            case _:
                raise ValueError(f"unknown fault mode {mode!r}")


class Replica:
    """One replica. A handler does its work within `busy()`."""

    def __init__(self, service: str, work: Work) -> None:
        self.service = service
        self.work = work
        self.version = os.environ.get("APP_VERSION", "1")
        self.faults = Faults()
        self.tracer = tracer_from_environment(service)
        self._slots = asyncio.Semaphore(work.concurrency)
        self._waiting = 0
        self._random = random.Random()

    @asynccontextmanager
    async def busy(self) -> AsyncIterator[None]:
        """Wait for a free slot, sleep for the service time, then run the body.

        Raises HTTPServiceUnavailable if the queue is full. Faults apply here.
        """
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
            if self._random.random() < self.faults.failing:
                raise web.HTTPInternalServerError(text="injected fault")
            yield
        finally:
            self._slots.release()

    def _service_time(self) -> float:
        spread = math.log(1 + self.work.cv**2)
        return self._random.lognormvariate(math.log(self.work.mean) - spread / 2, spread**0.5)

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Add the names of the replica and its version to every response, and a span to the trace
        of the request."""
        response = await self._trace(request, handler)
        if not response.prepared:
            response.headers["X-Replica"] = os.environ.get("MESH_REPLICA", str(os.getpid()))
            response.headers["X-Version"] = self.version
        return response

    async def _trace(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        route = request.match_info.route.resource
        name = f"{request.method} {route.canonical if route is not None else ''}".strip()
        with self.tracer.span(name, request.headers) as span, passing_on(span, request.headers):
            if span is None:
                return await handler(request)
            span.attributes |= {
                "http.request.method": request.method,
                "url.path": request.path,
            }
            try:
                response = await handler(request)
            except web.HTTPException as error:
                span.end_with(error.status)
                raise
            span.end_with(response.status)
            return response

    async def health(self, _: web.Request) -> web.Response:
        """Handle `GET /healthz`."""
        if self.faults.unhealthy:
            return web.json_response({"status": "unhealthy"}, status=503)
        return web.json_response({"status": "ok", "version": self.version})

    async def fault(self, request: web.Request) -> web.Response:
        """Handle `POST /_fault`, for tests and the scenario."""
        try:
            self.faults.set(await request.json())
        except ValueError as error:
            raise web.HTTPBadRequest(text=str(error)) from error
        return web.json_response({"ok": True})


def mesh_url(service: str) -> str:
    """Return the base URL of another service: `$MESH_URL_NAME`, or its name, which resolves to the
    mesh on a container network."""
    return os.environ.get(f"MESH_URL_{service.upper()}", f"http://{service}").rstrip("/")


def listen_host() -> str:
    """Return the address to listen on: $HOST, or all of a container, or loopback."""
    return os.environ.get("HOST", "0.0.0.0" if os.path.exists("/.dockerenv") else "127.0.0.1")


def work_from_environment(default: Work) -> Work:
    """Return the service's own values, overridden by WORK_MEAN_MS and WORK_CONCURRENCY."""
    return Work(
        mean=float(os.environ.get("WORK_MEAN_MS", default.mean * 1000)) / 1000,
        cv=default.cv,
        concurrency=int(os.environ.get("WORK_CONCURRENCY", default.concurrency)),
        queue=default.queue,
    )


def complete(app: web.Application, replica: Replica) -> None:
    """Add to the application of one replica what all services have."""

    async def end_traces(_: web.Application) -> None:
        await asyncio.to_thread(replica.tracer.close)

    app.middlewares.append(replica.middleware)
    app.on_cleanup.append(end_traces)
    app.router.add_get("/healthz", replica.health)
    if os.environ.get("DEMO_FAULTS") == "1":
        app.router.add_post("/_fault", replica.fault)


def serve(service: str, work: Work, build: Callable[[Replica], web.Application]) -> None:
    """Run one replica until SIGTERM, then finish the requests in flight."""
    replica = Replica(service, work_from_environment(work))
    app = build(replica)
    complete(app, replica)
    web.run_app(
        app,
        host=listen_host(),
        port=int(os.environ.get("PORT", "8080")),
        shutdown_timeout=20.0,
        keepalive_timeout=75.0,
        access_log=None,
        print=lambda *_: print(f"{service} v{replica.version} ready", flush=True),
    )
