"""Memory of idle connections: each has served one request and stays open."""

import contextlib
import resource
import socket
import ssl
import time
from typing import Final

from bench.kernel import memory_bytes
from bench.running import NotServing

REQUEST: Final = b"GET /api/orders HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


def per_connection(pid: int, port: int, wanted: int, *, tls: bool = False) -> tuple[int, float]:
    """Return (connections held, bytes per connection) of the server at `port`."""
    count = min(wanted, (_descriptors() - 400) // 2 - 300)
    with contextlib.ExitStack() as stack:
        _open(stack, port, 200, tls)  # so that memory allocated only once does not count
        time.sleep(0.5)
        before = memory_bytes(pid)
        _open(stack, port, count, tls)
        time.sleep(1.0)
        return count, (memory_bytes(pid) - before) / count


def _descriptors() -> int:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def _open(stack: contextlib.ExitStack, port: int, count: int, tls: bool) -> None:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    for _ in range(count):
        connection = stack.enter_context(socket.create_connection(("127.0.0.1", port), 20))
        if tls:
            connection = stack.enter_context(context.wrap_socket(connection))
        connection.sendall(REQUEST)
        answer = connection.recv(65536)
        if b" 200 " not in answer[:16]:
            raise NotServing(f"wrong answer on an idle connection: {answer[:80]!r}")
