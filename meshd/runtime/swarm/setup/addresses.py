"""Where the other nodes of a Swarm reach a host: the address that its engine advertises.

An engine takes an IP address or one of its network interfaces, and no host name. So
`meshd.runtime.swarm.setup.hosts` resolves names here.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

from meshd.runtime.base import RuntimeFailure

RESOLVE_SECONDS: Final = 5.0
"""Seconds to resolve a host name."""
LONGEST_INTERFACE: Final = 15
"""Characters of the name of a network interface, at most."""

Resolve = Callable[[str], Awaitable[Sequence[str]]]
"""Returns the IP addresses of a host name; none if it has none."""


async def resolve(name: str) -> Sequence[str]:
    """Return the IP addresses of a host name, as this machine resolves it; none if it has none."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(RESOLVE_SECONDS):
            found = await loop.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):  # OSError is also a TimeoutError
        return ()
    return [str(each[4][0]) for each in found]


async def address_of(host: str, resolve: Resolve = resolve) -> str:
    """Return the IP address of the host in an engine's address; empty if other machines cannot
    reach it by that, or if it cannot be resolved, as an alias of the settings of ssh. The engine
    chooses then."""
    if not host:
        return ""
    literal = _parse(host)
    found = [literal] if literal is not None else _parsed(await resolve(host))
    usable = [each for each in found if _is_reachable(each)]
    # The nodes of a Swarm listen on IPv4 addresses by default.
    return str(min(usable, key=lambda each: each.version)) if usable else ""


async def advertised_address(given: str, resolve: Resolve = resolve) -> str:
    """Return what the engine takes for an address that the user gave: an IP address or network
    interface, with or without a port. Raises RuntimeFailure if it is neither, nor a host name that
    can be resolved."""
    host, port = _split_port(given)
    literal = _parse(host)
    if literal is not None:
        if literal.is_unspecified:
            raise RuntimeFailure(f"{given} is not the address of one host")
        return given
    if found := await address_of(host, resolve):
        return f"{f'[{found}]' if ':' in found and port else found}{port}"
    if _parsed(await resolve(host)):
        raise RuntimeFailure(
            f"{host} leads to this machine itself, or to no other; give its address"
        )
    if not _may_be_interface(host):
        raise RuntimeFailure(
            f"{host} cannot be resolved; expected an IP address, a network interface of the host, "
            "or a host name"
        )
    return given


def _split_port(text: str) -> tuple[str, str]:
    """Return an address without its port, and `:PORT`; empty without a port."""
    host, sign, port = text.rpartition(":")
    if sign and port.isdecimal() and (":" not in host or host.startswith("[")):
        return host.strip("[]"), f":{port}"
    return text, ""


def _parse(text: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(text)
    except ValueError:
        return None


def _parsed(texts: Sequence[str]) -> list[IPv4Address | IPv6Address]:
    return [each for each in map(_parse, texts) if each is not None]


def _is_reachable(address: IPv4Address | IPv6Address) -> bool:
    """Whether other machines may reach a host by this address."""
    return not (address.is_loopback or address.is_unspecified or address.is_link_local)


def _may_be_interface(name: str) -> bool:
    """Whether a network interface may have this name, as Linux checks it."""
    return 0 < len(name) <= LONGEST_INTERFACE and not any(c in "/:" or c.isspace() for c in name)
