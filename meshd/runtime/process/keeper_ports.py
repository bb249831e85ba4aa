"""Chooses the loopback port of a local replica.

Owned by `meshd.runtime.process.keeper_replicas`, which keeps one `Ports` for all replicas.
"""

import random
import socket
from pathlib import Path

SPAN = 6000
"""Number of ports to choose from, below the ephemeral range."""


def ephemeral_start(path: Path = Path("/proc/sys/net/ipv4/ip_local_port_range")) -> int:
    """Return the first port that the kernel uses for outgoing connections; 32768 if it does not
    say."""
    try:
        return int(path.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return 32768


class Ports:
    """Choose ports below the kernel's ephemeral range, so that no outgoing connection can take
    one before the replica binds it."""

    def __init__(self) -> None:
        self._end = max(ephemeral_start(), 10000)
        self._start = max(self._end - SPAN, 1024)
        self._next = random.randrange(self._start, self._end)

    def take(self, held: set[int]) -> int:
        """Return a port on which nothing listens and that is not in `held`. Raises OSError if
        there is none."""
        for _ in range(self._end - self._start):
            port = self._next
            self._next = port + 1 if port + 1 < self._end else self._start
            if port not in held and _is_free(port):
                return port
        raise OSError(f"no free port between {self._start} and {self._end}")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
