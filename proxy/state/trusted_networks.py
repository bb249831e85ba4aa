"""Sets of IP networks, and the question whether an address belongs to one of them.

`proxy.state.routing_table` uses them for trusted proxies and for the sources of mesh listeners.
"""

import ipaddress
from collections.abc import Sequence


class TrustedNetworks:
    """A set of IP networks: either the proxies whose forwarding headers are trusted, or the
    networks that a caller may call from."""

    def __init__(self, networks: Sequence[str]) -> None:
        self._networks = [ipaddress.ip_network(network, strict=False) for network in networks]

    def has(self, address: str) -> bool:
        """Return whether a peer address belongs to one of the networks."""
        if not self._networks:
            return False
        try:
            ip = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(ip in network for network in self._networks)
