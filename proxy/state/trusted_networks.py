"""Networks whose forwarding headers are trusted."""

import ipaddress
from collections.abc import Sequence


class TrustedNetworks:
    """Networks that an address may be of: those of the proxies in front of this one whose word
    about earlier hops is taken, and those that callers come from."""

    def __init__(self, networks: Sequence[str]) -> None:
        self._networks = [ipaddress.ip_network(network, strict=False) for network in networks]

    def has(self, address: str) -> bool:
        """Whether a peer address is one of them."""
        if not self._networks:
            return False
        try:
            ip = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(ip in network for network in self._networks)
