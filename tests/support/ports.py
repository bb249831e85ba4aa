"""A free TCP port, for what a test starts."""

import socket


def free_port() -> int:
    """Return a TCP port on loopback where nothing listened a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
