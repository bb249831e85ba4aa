"""The part of a network's addresses that the engine leaves free, for virtual addresses. Pure.

`network` creates networks with one, and finds it again on those that exist. Each mesh-managed
service gets a virtual address there (`meshd.publish.virtual_addresses`), and `redirection` leads
connections to it to the proxy.
"""

from collections.abc import Collection
from ipaddress import IPv4Address, IPv4Network, ip_network
from typing import Any, Final

from meshd.model.runtime import AddressRange
from meshd.runtime.docker.firewall_rules import Bridge
from meshd.spec import labels

Info = dict[str, Any]
LARGEST_BLOCK: Final = 24
"""Prefix length of the largest free part: 254 addresses are enough for the services of a
project."""
SMALLEST_NETWORK: Final = 28
"""Prefix length of the smallest network that is divided: half of it, 6 addresses, is for
containers."""


def divide(pools: list[Info]) -> list[Info] | None:
    """Return the address pools of a network so that containers only get addresses of the lower
    half of the IPv4 subnet; None if it has none that is large enough."""
    found: list[Info] = []
    divided = False
    for pool in pools:
        subnet = ip_network(str(pool["Subnet"]))
        more: Info = {"Subnet": str(subnet)}
        if isinstance(subnet, IPv4Network) and subnet.prefixlen <= SMALLEST_NETWORK:
            lower = next(subnet.subnets())
            more |= {"IPRange": str(lower), "Gateway": str(lower[1])}
            divided = True
        found.append(more)
    return found if divided else None


def divide_given(pools: list[Info], static: Collection[str]) -> tuple[list[Info], str] | None:
    """Return the address pools that a file gives, with a range for containers that leaves a part
    free, and that part; None if the file sets a range itself, or if no part is free. Containers
    may keep `static` addresses outside of the range."""
    for number, pool in enumerate(pools):
        given = str(pool.get("Subnet", ""))
        if not given or ":" in given:
            continue
        subnet = IPv4Network(given)
        if pool.get("IPRange") or subnet.prefixlen > SMALLEST_NETWORK:
            return None
        gateway = pool.get("Gateway") or str(subnet[1])
        for half in subnet.subnets():
            ranged = pool | {"IPRange": str(half), "Gateway": gateway}
            block = free_block([ranged], static)
            if block is not None:
                return [*pools[:number], ranged, *pools[number + 1 :]], block[0]
    return None


def free_block(pools: list[Info], static: Collection[str] = ()) -> tuple[str, str] | None:
    """Return the free part of the first pool that has one, and its subnet, in CIDR notation. Only a
    pool with a range for containers (`IPRange`) leaves addresses free. The part has none of the
    `static` addresses."""
    for pool in pools:
        subnet = ip_network(str(pool["Subnet"]))
        given = pool.get("IPRange")
        if not given or not isinstance(subnet, IPv4Network):
            continue
        taken = IPv4Network(str(given))
        single = [str(pool.get("Gateway", "")), *(pool.get("AuxiliaryAddresses") or {}).values()]
        single += static
        hosts = [IPv4Address(each.partition("/")[0]) for each in single if each]
        length = max(subnet.prefixlen + 2, LARGEST_BLOCK)
        if length > subnet.max_prefixlen - 2:
            continue
        for block in reversed(list(subnet.subnets(new_prefix=length))):
            if not block.overlaps(taken) and not any(host in block for host in hosts):
                return str(block), str(subnet)
    return None


def address_range(network: Info, bridge: Bridge, *, usable: bool) -> AddressRange | None:
    """Return the free part of one of our networks, from the engine's description; None if it has
    none."""
    marks, pools = network["Labels"], network["IPAM"]["Config"] or []
    found = free_block(pools) if network["Driver"] == "bridge" else None
    if found is not None and labels.FREE_PART in marks:
        found = marks[labels.FREE_PART], found[1]
    if found is None or not bridge.gateway:
        return None
    return AddressRange(
        network=network["Name"],
        project=marks.get(labels.PROJECT, ""),
        service=marks.get(labels.SERVICE, ""),
        gateway=bridge.gateway,
        subnet=found[1],
        block=found[0],
        usable=usable,
    )
