"""A replica that speaks gRPC, for tests. Runs as a separate program, with `grpcio` only.

Listens on $PORT, answers health checks, and on SIGTERM finishes its calls. Service $SERVICE has the
methods `Version` (unary) and `Follow` (a stream of as many answers as the request says, one each
50 ms); each answer is $VERSION. Every third `Version` ends with the status code $FAULT, if set.
"""

import itertools
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

SERVICE = os.environ.get("SERVICE", "shop.Echo")
VERSION = os.environ.get("VERSION", "1").encode()
FAULT = os.environ.get("FAULT", "")
INTERVAL = 0.05
"""Seconds between two answers of a stream."""
_calls = itertools.count(1)


def version(_: bytes, context: Any) -> bytes:
    if FAULT and next(_calls) % 3 == 0:
        context.abort(getattr(grpc.StatusCode, FAULT), "a fault")
    return VERSION


def follow(request: bytes, _: Any) -> Iterator[bytes]:
    for _ in range(int(request)):
        yield VERSION
        time.sleep(INTERVAL)


def main() -> None:
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    server = grpc.server(ThreadPoolExecutor(64), options=[("grpc.so_reuseport", 0)])
    methods = {
        "Version": grpc.unary_unary_rpc_method_handler(version),
        "Follow": grpc.unary_stream_rpc_method_handler(follow),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, methods),))
    checks = health.HealthServicer()
    checks.set("", health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    server.add_insecure_port(f"127.0.0.1:{os.environ['PORT']}")
    server.start()
    ended.wait()
    server.stop(20).wait()


if __name__ == "__main__":
    main()
