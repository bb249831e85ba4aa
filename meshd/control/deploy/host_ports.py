"""Looks whether something on this host already listens on ports that a deployment publishes.

Used by `admission`. `meshd.publish.published_ports` finds conflicts between services.
"""

import errno
import socket
from collections.abc import Iterable
from pathlib import Path

from meshd.publish.published_ports import HostPort

_TYPES = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}


def has_ipv6() -> bool:
    """Return whether the host has IPv6."""
    try:
        return bool(Path("/proc/net/if_inet6").read_text())
    except OSError:
        return False


def find_taken_ports(ports: Iterable[HostPort]) -> list[HostPort]:
    """Return the ports on which something listens now. A port that cannot be tried counts as
    free: opening it tells more."""
    return [port for port in ports if port.protocol in _TYPES and _is_taken(port)]


def _is_taken(port: HostPort) -> bool:
    family = socket.AF_INET6 if ":" in port.host else socket.AF_INET
    with socket.socket(family, _TYPES[port.protocol]) as probe:
        if port.protocol == "tcp":  # connections in TIME_WAIT do not count
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        try:
            probe.bind((port.host, port.port))
        except OSError as error:
            return error.errno == errno.EADDRINUSE
    return False
