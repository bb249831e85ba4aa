"""Captures what passes network interfaces of this machine, and looks for some bytes in it."""

import selectors
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

ALL_PROTOCOLS = 3
"""ETH_P_ALL (linux/if_ether.h)."""
BUFFER = 16 * 1024 * 1024
"""Bytes that the kernel keeps for a reader that is late."""
LONGEST = 65536
"""Bytes of the longest packet, with segments that the kernel has not cut yet."""


class Capture:
    """What was captured so far. `packets` counts the packets, `seen` the packets with each mark."""

    def __init__(self, marks: Sequence[bytes]) -> None:
        self.packets = 0
        self.seen = dict.fromkeys(marks, 0)

    def take(self, packet: bytes) -> None:
        self.packets += 1
        for mark in self.seen:
            if mark in packet:
                self.seen[mark] += 1


@contextmanager
def capture(interfaces: Sequence[str], *marks: bytes) -> Iterator[Capture]:
    """Look for `marks` in all packets on these interfaces."""
    found, over = Capture(marks), threading.Event()
    with ExitStack() as open_sockets:
        selector = open_sockets.enter_context(selectors.DefaultSelector())
        for name in interfaces:
            sock = open_sockets.enter_context(
                socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ALL_PROTOCOLS))
            )
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
            sock.bind((name, 0))
            sock.setblocking(False)
            selector.register(sock, selectors.EVENT_READ)

        def read() -> None:
            while not over.is_set():
                for key, _ in selector.select(0.1):
                    sock = key.fileobj
                    assert isinstance(sock, socket.socket)
                    found.take(sock.recv(LONGEST))

        thread = threading.Thread(target=read)
        thread.start()
        try:
            yield found
        finally:
            over.set()
            thread.join()
