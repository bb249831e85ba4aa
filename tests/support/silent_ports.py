"""Ports that leave new connections unanswered, as a machine does that is gone: the queues of their
listeners are full."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager


@contextmanager
def silent_ports(count: int) -> Iterator[list[int]]:
    """Yield ports that leave new connections unanswered."""
    with ExitStack() as open_sockets:
        ports = []
        for _ in range(count):
            listener = open_sockets.enter_context(closing(socket.socket()))
            listener.bind(("127.0.0.1", 0))
            listener.listen(0)
            for _ in range(4):
                waiting = open_sockets.enter_context(closing(socket.socket()))
                waiting.setblocking(False)
                waiting.connect_ex(listener.getsockname())
            ports.append(listener.getsockname()[1])
        yield ports
