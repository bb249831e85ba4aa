"""A free TCP port, for what a test starts."""

import random
import socket

from meshd.runtime.process.keeper_ports import SPAN, ephemeral_start


def free_port() -> int:
    """Return a TCP port on which nothing listened a moment ago.

    It is below the ports that the kernel gives to outgoing connections, so that none of them takes
    it before the test binds it, and below those of local replicas.
    """
    for _ in range(1000):
        port = random.randrange(10_000, ephemeral_start() - SPAN)
        with socket.socket() as probe:
            try:
                probe.bind(("", port))
            except OSError:
                continue
            return port
    raise OSError("no free port was found")
