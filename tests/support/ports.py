"""A free TCP port, for what a test starts."""

import os
import random
import socket

from meshd.runtime.process.keeper_ports import SPAN, ephemeral_start

FIRST = 10_000
FIXED = range(23_080, 23_091)
"""Ports that tests of the Docker runtime name themselves."""
_given: set[int] = set()


def free_port() -> int:
    """Return a TCP port on which nothing listened a moment ago.

    It is below the ports that the kernel gives to outgoing connections, so that none of them takes
    it before the test binds it, and below those of local replicas. Each port is returned once,
    and other workers of pytest-xdist are given others: what a test starts may bind its port
    seconds later.
    """
    ports = _own_part(range(FIRST, ephemeral_start() - SPAN))
    for _ in range(1000):
        port = random.choice(ports)
        if port in _given or port in FIXED:
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("", port))
            except OSError:
                continue
            _given.add(port)
            return port
    raise OSError("no free port was found")


def _own_part(ports: range) -> range:
    """Return the part of `ports` that belongs to this worker of pytest-xdist. A worker that
    replaces another has a number above the count."""
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    size = len(ports) // workers
    return ports[worker_number() % workers * size :][:size]


def worker_number() -> int:
    """Return the number of this worker of pytest-xdist, from 0; 0 without it."""
    return int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
