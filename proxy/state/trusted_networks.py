"""Sets of IP networks, and the question whether an address belongs to one of them.

`proxy.state.routing_table` uses them for trusted proxies and for the sources of mesh listeners.
"""

import ipaddress
from collections.abc import Sequence
from typing import Final

UNIX: Final = "unix:"
"""Prefix of the address of a Unix socket."""


class TrustedNetworks:
    """A set of IP networks: either the proxies whose forwarding headers are trusted, or the
    networks that a caller may call from.

    `unix:PATH` in `networks` means the clients of the Unix socket at that path, `unix:` those of
    every Unix socket.
    """

    def __init__(self, networks: Sequence[str]) -> None:
        self._sockets = frozenset(each for each in networks if each.startswith(UNIX))
        self._networks = [
            ipaddress.ip_network(each, strict=False)
            for each in networks
            if not each.startswith(UNIX)
        ]

    def has_peer(self, peer: str, listener: str) -> bool:
        """Return whether a peer belongs to the set; `peer` is empty for a Unix socket. `listener`
        is the address that it connected to."""
        if peer:
            return self.has(peer)
        return listener.startswith(UNIX) and (UNIX in self._sockets or listener in self._sockets)

    def has(self, address: str) -> bool:
        """Return whether a peer address belongs to one of the networks."""
        if not self._networks:
            return False
        try:
            ip = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(ip in network for network in self._networks)
