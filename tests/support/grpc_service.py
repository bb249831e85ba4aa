"""A real gRPC server for tests, with methods that take and return bytes, and calls of its methods.

Every method is a part of `shop.Echo`. Metadata `x-answer-bin` comes back in the trailers.
"""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

Context = Any


def _answer(context: Context) -> None:
    found = dict(context.invocation_metadata()).get("x-answer-bin")
    if found is not None:
        context.set_trailing_metadata((("x-answer-bin", found),))


class EchoService:
    """The methods. `cancelled` is set when a client has cancelled `Wait`, `deadlines` holds what
    was left of each call's deadline."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.cancelled = threading.Event()
        self.deadlines: list[float | None] = []
        self.calls = 0
        self.failing = False

    def unary(self, request: bytes, context: Context) -> bytes:
        self.calls += 1
        self.deadlines.append(context.time_remaining())
        _answer(context)
        if self.failing:
            context.abort(grpc.StatusCode.UNAVAILABLE, "not now")
        return request

    def who(self, request: bytes, context: Context) -> bytes:
        return self.name.encode()

    def fail(self, request: bytes, context: Context) -> bytes:
        self.calls += 1
        context.abort(getattr(grpc.StatusCode, request.decode()), "as you wish")
        return b""

    def count_up(self, request: bytes, context: Context) -> Iterator[bytes]:
        for number in range(int(request)):
            yield b"%d" % number
        _answer(context)

    def sum_up(self, requests: Iterator[bytes], context: Context) -> bytes:
        return b"%d" % sum(int(request) for request in requests)

    def chat(self, requests: Iterator[bytes], context: Context) -> Iterator[bytes]:
        yield from requests
        _answer(context)

    def wait(self, request: bytes, context: Context) -> Iterator[bytes]:
        if not context.add_callback(self.cancelled.set):  # the call has ended already
            self.cancelled.set()
        yield b"waiting"
        while context.is_active():
            time.sleep(0.01)


@contextmanager
def grpc_server(
    name: str = "a", port: int = 0, credentials: Any = None
) -> Iterator[tuple[EchoService, int, Any]]:
    """Run a server; yield its methods, its port, and the servicer of its health checks."""
    service = EchoService(name)
    handlers = {
        "Unary": grpc.unary_unary_rpc_method_handler(service.unary),
        "Who": grpc.unary_unary_rpc_method_handler(service.who),
        "Fail": grpc.unary_unary_rpc_method_handler(service.fail),
        "CountUp": grpc.unary_stream_rpc_method_handler(service.count_up),
        "SumUp": grpc.stream_unary_rpc_method_handler(service.sum_up),
        "Chat": grpc.stream_stream_rpc_method_handler(service.chat),
        "Wait": grpc.unary_stream_rpc_method_handler(service.wait),
    }
    server = grpc.server(ThreadPoolExecutor(16), options=[("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("shop.Echo", handlers),))
    checks = health.HealthServicer()
    checks.set("", health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    address = f"127.0.0.1:{port}"
    if credentials is None:
        found = server.add_insecure_port(address)
    else:
        found = server.add_secure_port(address, credentials)
    server.start()
    try:
        yield service, found, checks
    finally:
        server.stop(0).wait()


class EchoClient:
    """Calls the methods through `port`. Every call blocks."""

    def __init__(self, port: int, channel: Any = None) -> None:
        self.channel = channel or grpc.insecure_channel(f"127.0.0.1:{port}")
        self.unary = self.channel.unary_unary("/shop.Echo/Unary")
        self.who = self.channel.unary_unary("/shop.Echo/Who")
        self.fail = self.channel.unary_unary("/shop.Echo/Fail")
        self.count_up = self.channel.unary_stream("/shop.Echo/CountUp")
        self.sum_up = self.channel.stream_unary("/shop.Echo/SumUp")
        self.chat = self.channel.stream_stream("/shop.Echo/Chat")
        self.wait = self.channel.unary_stream("/shop.Echo/Wait")
        self.missing = self.channel.unary_unary("/shop.Echo/Missing")

    def code_of(self, call: Callable[[], object]) -> tuple[Any, str]:
        """Return the status code and the text of a call that fails."""
        try:
            call()
        except grpc.RpcError as error:
            return error.code(), error.details()
        return grpc.StatusCode.OK, ""

    def close(self) -> None:
        self.channel.close()
