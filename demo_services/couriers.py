"""couriers: the positions of the couriers, by gRPC. `tracking` calls it.

`food.Couriers/Locate` {"order"} → the position of the courier now; `food.Couriers/Follow` {"order",
"seconds"} → a stream of positions, one every half second. Messages are JSON, so that no code has to
be generated from a description of them.
"""

import asyncio
import json
import math
import os
import signal
import time
import zlib
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import contextmanager
from typing import Any, Final
from urllib.parse import urlsplit

import grpc
from aiohttp import web

from demo_services.replica import Replica, Work, listen_host, work_from_environment
from demo_services.tracing import outgoing

Message = dict[str, Any]
SERVICE: Final = "food.Couriers"
HEALTH: Final = "grpc.health.v1.Health"
"""The health check of gRPC, which the mesh calls."""
SERVING: Final = b"\x08\x01"
"""A HealthCheckResponse with status SERVING, in the encoding of Protocol Buffers."""
INTERVAL: Final = 0.5
"""Seconds between two positions."""
MAX_SECONDS: Final = 120.0
"""Longest stream, so that a replica can always drain."""
GRACE_SECONDS: Final = 20.0
"""Seconds for calls to end after SIGTERM; the clients of the demo follow for 3 s."""


def position(order: str, now: float) -> dict[str, float]:
    """Return the position of the courier of `order` at `now` (Unix time): on a circle around a
    point in the city. It depends only on the order, so that every replica returns the same."""
    seed = zlib.crc32(order.encode())
    turn = (now / 60 + seed % 360) * math.tau / 6
    return {
        "lat": round(52.5 + (seed % 97) / 1000 + 0.004 * math.sin(turn), 6),
        "lon": round(13.4 + (seed % 89) / 1000 + 0.006 * math.cos(turn), 6),
    }


def encode(message: Message) -> bytes:
    """Return a message as it is sent."""
    return json.dumps(message).encode()


def decode(data: bytes) -> Message:
    """Return a message that was received. Raises ValueError."""
    message: Message = json.loads(data)
    return message


def build(replica: Replica) -> Any:
    """Return the gRPC server of one replica, which is not bound to an address yet."""

    async def work(context: Any) -> None:
        try:
            async with replica.busy():
                pass
        except web.HTTPServiceUnavailable:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "queue full")
        except web.HTTPInternalServerError:
            await context.abort(grpc.StatusCode.INTERNAL, "injected fault")

    @contextmanager
    def traced(method: str, context: Any) -> Iterator[None]:
        headers = {key: str(value) for key, value in context.invocation_metadata() or ()}
        with replica.tracer.span(f"{SERVICE}/{method}", headers) as span:
            yield
            if span is not None:
                span.attributes["rpc.system"] = "grpc"
                span.failed = False

    async def locate(request: Message, context: Any) -> Message:
        with traced("Locate", context):
            await work(context)
            return {**position(request["order"], time.time()), "couriers": replica.version}

    async def follow(request: Message, context: Any) -> AsyncIterator[Message]:
        with traced("Follow", context):
            await work(context)
            end = time.monotonic() + min(float(request["seconds"]), MAX_SECONDS)
            while time.monotonic() < end:
                yield {**position(request["order"], time.time()), "couriers": replica.version}
                await asyncio.sleep(INTERVAL)

    async def check(_: bytes, __: Any) -> bytes:
        return SERVING

    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    methods = {
        "Locate": grpc.unary_unary_rpc_method_handler(locate, decode, encode),
        "Follow": grpc.unary_stream_rpc_method_handler(follow, decode, encode),
    }
    checks = {"Check": grpc.unary_unary_rpc_method_handler(check)}
    server.add_generic_rpc_handlers(
        (
            grpc.method_handlers_generic_handler(SERVICE, methods),
            grpc.method_handlers_generic_handler(HEALTH, checks),
        )
    )
    return server


def locate_service(url: str) -> tuple[str, str]:
    """Return the target of a gRPC channel to `url`, a base URL of the mesh, and the part of the
    path that its methods have in common."""
    where = urlsplit(url)
    # The URL of a local process has a path, which identifies the caller; the path of a call begins
    # with it. Without a port gRPC would connect to 443.
    return f"{where.hostname}:{where.port or 80}", f"{where.path.rstrip('/')}/{SERVICE}"


def continued() -> tuple[tuple[str, str], ...]:
    """Return the metadata of a call that continues the trace of the current request."""
    return tuple(outgoing().items())


class Couriers:
    """A client of the service at `url`, a base URL of the mesh. Needs a running event loop."""

    def __init__(self, url: str) -> None:
        target, base = locate_service(url)
        self._channel = grpc.aio.insecure_channel(target)
        self._locate = self._channel.unary_unary(f"{base}/Locate", encode, decode)
        self._follow = self._channel.unary_stream(f"{base}/Follow", encode, decode)

    def locate(self, order: str) -> Awaitable[Message]:
        """Return the position of a courier. Raises grpc.RpcError."""
        request, metadata = {"order": order}, continued()
        answer: Awaitable[Message] = self._locate(request, timeout=15, metadata=metadata)
        return answer

    def follow(self, order: str, seconds: float) -> AsyncIterator[Message]:
        """Return a stream of positions that lasts `seconds`. It raises grpc.RpcError."""
        request = {"order": order, "seconds": seconds}
        call = self._follow(request, metadata=continued())
        answers: AsyncIterator[Message] = call.__aiter__()
        return answers

    async def close(self) -> None:
        """End the connections."""
        await self._channel.close()


async def serve(work: Work) -> None:
    """Run one replica until SIGTERM, then finish the calls in flight."""
    replica = Replica("couriers", work_from_environment(work))
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    server = build(replica)
    server.add_insecure_port(f"{listen_host()}:{os.environ.get('PORT', '8080')}")
    await server.start()
    print(f"couriers v{replica.version} ready", flush=True)
    await ended.wait()
    await server.stop(GRACE_SECONDS)
    await asyncio.to_thread(replica.tracer.close)
    # A loop that is being closed cannot handle a second SIGTERM.
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])


if __name__ == "__main__":
    asyncio.run(serve(Work(mean=0.005, concurrency=16)))
