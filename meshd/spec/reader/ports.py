"""Read `expose` and `ports` of a service: the ports that its replicas listen on, and those that are
published on the host.

Called by `meshd.spec.reader.service`; `meshd.spec.canonical` prints the long form.
"""

import ipaddress
from functools import partial
from typing import Final, Literal, cast

from meshd.spec.model import PublishedPort
from meshd.spec.source.cursor import Cursor, KeyTable
from meshd.spec.source.yaml_tree import SourceNode

Protocol = Literal["tcp", "udp", "sctp"]
_LONG_FORM: Final = (
    "target",
    "published",
    "protocol",
    "host_ip",
    "mode",
    "name",
    "app_protocol",
)
_PROTOCOLS: Final = frozenset({"tcp", "udp", "sctp"})


def read_exposed(at: Cursor) -> tuple[int, ...]:
    """Read one entry of `expose`: a port or a range of ports. Return the TCP ports; others are not
    passed through the mesh, and containers reach each other on them in any case."""
    ports, protocol = _parse_range(at, at.read_string())
    return ports if protocol == "tcp" else ()


def read_published(at: Cursor) -> tuple[PublishedPort, ...]:
    """Read one entry of `ports` in either form; return one value for each port of the replica."""
    if at.node.mapping is None:
        text = at.read_string()
        outside, _, inside = text.rpartition(":")
        address, _, published = outside.rpartition(":")
    else:
        found: dict[str, str] = {}
        at.read_keys(KeyTable(read={key: partial(_store, found, key) for key in _LONG_FORM}))
        if "target" not in found:
            at.fail("target is missing; expected the port inside the replica")
        inside = f"{found['target']}/{found.get('protocol', 'tcp')}"
        address, published = found.get("host_ip", ""), found.get("published", "")
    targets, protocol = _parse_range(at, inside)
    address = _check_address(at, address.removeprefix("[").removesuffix("]"))
    sources = _parse_range(at, published)[0] if published else ()
    if len(targets) > 1 and sources and len(sources) != len(targets):
        at.fail(
            f"{len(sources)} host ports are given for {len(targets)} ports of the replica; "
            "expected ranges of equal length"
        )
    hosts = [str(port) for port in sources] if len(sources) == len(targets) else [published]
    if len(hosts) != len(targets):
        hosts = [published] * len(targets)
    return tuple(
        PublishedPort(target=target, published=host, host_ip=address, protocol=protocol)
        for target, host in zip(targets, hosts, strict=True)
    )


def _store(found: dict[str, str], key: str, at: Cursor) -> None:
    found[key] = at.read_string()


def _check_address(at: Cursor, text: str) -> str:
    """Return an address of the host, or fail."""
    if text:
        try:
            ipaddress.ip_address(text)
        except ValueError:
            at.fail(f"{text!r} is not an IP address; expected e.g. 127.0.0.1 or [::1]")
    return text


def _parse_range(at: Cursor, text: str) -> tuple[tuple[int, ...], Protocol]:
    """Return the ports and the protocol of `8080`, `8080/tcp` or `8080-8090`."""
    span, _, protocol = text.partition("/")
    first, _, last = span.partition("-")
    if not first.isdecimal() or not (last or first).isdecimal():
        at.fail(f"{text!r} is not a valid port; expected e.g. 8080, 8080/tcp or 8080-8090")
    if protocol and protocol not in _PROTOCOLS:
        at.fail(f"{protocol!r} is not a protocol; expected tcp, udp or sctp")
    low, high = int(first), int(last or first)
    if not 1 <= low <= high <= 65535:
        at.fail(f"{text!r} is out of range; expected 1 to 65535")
    return tuple(range(low, high + 1)), cast("Protocol", protocol or "tcp")


def expand(node: SourceNode) -> list[dict[str, object]]:
    """Return one entry of `ports` in long form: one port each, as Compose expands a range."""
    if node.mapping is not None:
        long: dict[str, object] = {"mode": "ingress", "protocol": "tcp"}
        for key, child in node.mapping.items():
            is_number = key == "target" and child.text.isdecimal()
            long[key] = int(child.text) if is_number else child.text
        return [long]
    text, _, protocol = node.text.partition("/")
    outside, _, inside = text.rpartition(":")
    address, _, published = outside.rpartition(":")
    targets = _expand_range(inside)
    sources = _expand_range(published) if published else []
    found: list[dict[str, object]] = []
    for index, target in enumerate(targets):
        entry: dict[str, object] = {"mode": "ingress"}
        if address:
            entry["host_ip"] = address.strip("[]")
        entry["target"] = target
        if len(sources) == len(targets):
            entry["published"] = str(sources[index])
        elif published:
            entry["published"] = published
        found.append({**entry, "protocol": protocol or "tcp"})
    return found


def _expand_range(text: str) -> list[int]:
    first, _, last = text.partition("-")
    return list(range(int(first), int(last or first) + 1))
