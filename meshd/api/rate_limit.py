"""Limits the requests of each client of the TCP address, in bounded memory. Pure.

`access` asks it for each request. A token bucket for each address; IPv6 clients count by their
network, because a client has a whole one.
"""

import ipaddress
from collections import OrderedDict
from typing import Final

RATE: Final = 50.0
"""Requests per second that a client may send for long: a page that polls ten things each second is
far below."""
BURST: Final = 200.0
"""Requests that a client may send at once."""
FAILURE_COST: Final = 20.0
"""Requests that a failed sign-in counts as: 2.5 attempts per second for long."""
MAX_PEERS: Final = 4096
"""Clients that are remembered, in less than 1 MiB. The one that was seen least recently makes
room."""
IPV6_PREFIX: Final = 64
"""Bits of an IPv6 address that say whose it is (RFC 6177)."""


class PeerLimiter:
    """The buckets of all clients."""

    def __init__(self, rate: float = RATE, burst: float = BURST, peers: int = MAX_PEERS) -> None:
        self._rate = rate
        self._burst = burst
        self._peers = peers
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def __len__(self) -> int:
        """The number of clients that are remembered."""
        return len(self._buckets)

    def take(self, address: str, now: float, cost: float = 1.0) -> float:
        """Take `cost` from the bucket of a client; return 0 if there was enough, otherwise the
        seconds after which it may try again. The level does not fall below minus one burst."""
        key = client_key(address)
        level, at = self._buckets.pop(key, (self._burst, now))
        level = min(self._burst, level + max(0.0, now - at) * self._rate)
        wait = 0.0 if level >= cost else (cost - level) / self._rate
        if not wait or cost > 1.0:
            level = max(-self._burst, level - cost)
        self._buckets[key] = (level, now)
        if len(self._buckets) > self._peers:
            self._buckets.popitem(last=False)
        return wait


def client_key(address: str) -> str:
    """Return the address itself, or the network of an IPv6 address."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((parsed, IPV6_PREFIX), strict=False))
    return str(parsed)
