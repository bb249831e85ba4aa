"""Read `networks` at the top level, and `networks` of a service.

Called by `meshd.spec.compose` and `meshd.spec.reader.service`; the values are in
`meshd.spec.model.network`.
"""

import ipaddress
import re
from collections.abc import Callable
from functools import partial
from typing import Final

from meshd.spec.model import AddressPool, Attachment, Network
from meshd.spec.reader import values
from meshd.spec.reader.context import ReadContext
from meshd.spec.source.cursor import Cursor, KeyTable

_NETWORK_NAME: Final = re.compile(r"[a-zA-Z0-9._-]{1,128}")
_MAC_ADDRESS: Final = re.compile(r"(?:[0-9A-Fa-f]{2}[:-]){5}[0-9A-Fa-f]{2}")
MAX_PRIORITY: Final = 2**31
"""The upper bound of a priority, in both directions: the engine's integers have 32 bits or more."""


def read_network(at: Cursor) -> Network:
    """Read one entry of `networks` at the top level."""
    name = at.field.partition(".")[2]
    if not _NETWORK_NAME.fullmatch(name):
        at.fail(f"{name!r} is not a valid network name; expected letters, digits, -, _ and .")
    found: dict[str, object] = {"name": name}
    if at.node.value is not None:
        at.read_keys(network_keys(found))
    if found.get("external") and not found.get("engine_name"):
        found["engine_name"] = name
    return Network.model_validate(found)


def network_keys(found: dict[str, object]) -> KeyTable:
    """Return the keys of a network; their readers store values in `found`."""

    def put(name: str, read: Callable[[Cursor], object]) -> Callable[[Cursor], None]:
        return lambda c: found.update({name: read(c)})

    return KeyTable(
        read={
            "name": put("engine_name", Cursor.read_string),
            "external": lambda c: found.update(values.read_external(c)),
            "internal": put("internal", Cursor.read_boolean),
            "driver": put("driver", _read_driver),
            "driver_opts": put("driver_opts", values.read_strings_by_name),
            "ipam": lambda c: _read_ipam(c, found),
            "enable_ipv4": put("enable_ipv4", Cursor.read_boolean),
            "enable_ipv6": put("enable_ipv6", Cursor.read_boolean),
            "attachable": put("attachable", Cursor.read_boolean),
            "labels": put("labels", values.read_strings_by_name),
        }
    )


def _read_driver(at: Cursor) -> str:
    """Read a driver; `default` and `bridge` are the engine's own."""
    word = at.read_string()
    return "" if word in {"default", "bridge"} else word


def _read_ipam(at: Cursor, found: dict[str, object]) -> None:
    if at.node.value is None:
        return
    at.read_keys(
        KeyTable(
            read={
                "driver": lambda c: found.update(
                    ipam_driver="" if c.read_string() == "default" else c.read_string()
                ),
                "options": lambda c: found.update(ipam_options=values.read_strings_by_name(c)),
                "config": lambda c: found.update(pools=tuple(c.read_items(_read_pool))),
            }
        )
    )


def _read_pool(at: Cursor) -> AddressPool:
    found: dict[str, object] = {}
    at.read_keys(
        KeyTable(
            read={
                "subnet": lambda c: found.update(subnet=_read_range(c)),
                "ip_range": lambda c: found.update(ip_range=_read_range(c)),
                "gateway": lambda c: found.update(gateway=read_address(c)),
                "aux_addresses": lambda c: found.update(
                    aux_addresses=values.read_strings_by_name(c)
                ),
            }
        )
    )
    subnet = str(found.get("subnet", ""))
    for key in ("gateway", "ip_range"):
        if subnet and key in found and not _is_within(str(found[key]), subnet):
            at.fail(f"the {key} {found[key]} is outside of the subnet {subnet}")
    return AddressPool.model_validate(found)


def _is_within(text: str, subnet: str) -> bool:
    one, other = ipaddress.ip_network(text, strict=False), ipaddress.ip_network(subnet)
    return one.version == other.version and (
        int(other.network_address) <= int(one.network_address)
        and int(one.broadcast_address) <= int(other.broadcast_address)
    )


def _read_range(at: Cursor) -> str:
    text = at.read_string()
    try:
        return str(ipaddress.ip_network(text, strict=False))
    except ValueError:
        at.fail(f"{text!r} is not an address range; expected e.g. 172.28.0.0/16")


def read_address(at: Cursor) -> str:
    """Read an IP address."""
    text = at.read_string()
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        at.fail(f"{text!r} is not an IP address; expected e.g. 172.28.0.10")


def _read_version(at: Cursor, version: int, example: str) -> str:
    text = read_address(at)
    if ipaddress.ip_address(text).version != version:
        at.fail(f"{text!r} is not an IPv{version} address; expected e.g. {example}")
    return text


def read_mac_address(at: Cursor) -> str:
    """Read the address of an interface."""
    text = at.read_string()
    if not _MAC_ADDRESS.fullmatch(text):
        at.fail(f"{text!r} is not a MAC address; expected e.g. 02:42:ac:11:65:43")
    return text


def read_attachments(
    at: Cursor, context: ReadContext
) -> tuple[tuple[str, ...], dict[str, tuple[str, ...]], dict[str, Attachment]]:
    """Read `networks` of a service; return its networks, and by network its aliases, and its
    addresses and options."""
    aliases: dict[str, tuple[str, ...]] = {}
    attachments: dict[str, Attachment] = {}
    names = []
    for name, entry in values.read_names(at):
        if name != "default" and name not in context.networks:
            entry.add_problem(
                f"the network {name} is not declared; expected it under networks at the top"
            )
        names.append(name)
        if entry.node.mapping is not None:
            found: dict[str, object] = {}
            entry.read_keys(attachment_keys(found))
            aliases[name] = tuple(found.pop("aliases", ()))  # type: ignore[arg-type]
            attachments[name] = Attachment.model_validate(found)
    return (
        tuple(names),
        {name: given for name, given in aliases.items() if given},
        {name: given for name, given in attachments.items() if given != Attachment()},
    )


def attachment_keys(found: dict[str, object]) -> KeyTable:
    """Return the keys of a network of a service; their readers store values in `found`."""

    def put(name: str, read: Callable[[Cursor], object]) -> Callable[[Cursor], None]:
        return lambda c: found.update({name: read(c)})

    priority = partial(Cursor.read_integer, low=-MAX_PRIORITY, high=MAX_PRIORITY)
    return KeyTable(
        read={
            "aliases": put("aliases", Cursor.read_strings),
            "ipv4_address": put(
                "ipv4_address", partial(_read_version, version=4, example="172.28.0.10")
            ),
            "ipv6_address": put(
                "ipv6_address", partial(_read_version, version=6, example="2001:db8::10")
            ),
            "link_local_ips": put("link_local_ips", lambda c: tuple(c.read_items(read_address))),
            "mac_address": put("mac_address", read_mac_address),
            "driver_opts": put("driver_opts", values.read_strings_by_name),
            "priority": put("priority", priority),
            "gw_priority": put("gw_priority", priority),
            "interface_name": put("interface_name", Cursor.read_string),
        }
    )
