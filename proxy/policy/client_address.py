"""The address of the client that sent a request, from what trusted proxies say. Pure.

`proxy.state.routing_table` calls it once per request of a trusted proxy. What it returns is the
client's address for rate limits, hashing, callers, the access log and spans.
"""

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from ipaddress import IPv6Address, ip_address
from typing import Final

from proxy.http1.request import find_field

_FOR: Final = re.compile(rb'(?:^|[;\s])for="?([^";,\s]+)', re.IGNORECASE)
_NODE: Final = re.compile(rb"\[([0-9A-Fa-f:.]+)\](?::\w+)?|([0-9.]+)(?::\w+)?|([0-9A-Fa-f:.]+)")
NETWORK_BYTES: Final = 8
"""Bytes of an IPv6 address that name the network of one client: providers assign at least a /64
(RFC 6177), and a host can use any address in it."""


def find_client(forwarded: Sequence[bytes], peer: str, is_trusted: Callable[[str], bool]) -> str:
    """Return the client's address: the last one in the chain that is not a trusted proxy's. If all
    are trusted it is the first one.

    `forwarded` are field lines that the trusted `peer` sent. X-Forwarded-For counts before
    Forwarded. Entries before one that is not an address are not believed.
    """
    chain = find_field(forwarded, b"x-forwarded-for")
    if chain is not None:
        nodes: list[bytes | None] = list(chain.split(b","))
    else:
        hops = find_field(forwarded, b"forwarded") or b""
        nodes = [found[1] if (found := _FOR.search(hop)) else None for hop in hops.split(b",")]
    client = peer
    for node in reversed(nodes):
        address = parse_node(node) if node is not None else None
        if address is None:
            break
        client = address
        if not is_trusted(address):
            break
    return client


def parse_node(node: bytes) -> str | None:
    """Return the address in an entry of a forwarding field, which may have a port; None if it has
    none."""
    found = _NODE.fullmatch(node.strip(b' \t"'))
    if found is None:
        return None
    try:
        address = ip_address((found[1] or found[2] or found[3]).decode())
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(address)


@lru_cache(maxsize=4096)
def limit_key(address: bytes) -> bytes:
    """Return the key under which the requests of an address are limited: the address, or the
    network of an IPv6 address."""
    if b":" not in address:
        return address
    try:
        return IPv6Address(address.partition(b"%")[0].decode()).packed[:NETWORK_BYTES]
    except ValueError:
        return address
