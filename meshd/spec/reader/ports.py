"""Read `expose` and `ports` of a service: the ports that its replicas listen on.

Called by `meshd.spec.reader.service`.
"""

from functools import partial
from typing import Final

from meshd.spec.source.cursor import Cursor, KeyTable
from meshd.spec.source.yaml_tree import SourceNode

_LONG_FORM: Final = (
    "target",
    "published",
    "protocol",
    "host_ip",
    "mode",
    "name",
    "app_protocol",
)
_INSTEAD: Final = (
    "the mesh publishes routes, not host ports; use x-mesh.routes to reach the service"
)


def read_exposed(at: Cursor) -> tuple[int, ...]:
    """Read one entry of `expose`: a port or a range of ports."""
    return _parse_range(at, at.read_string())


def read_published(at: Cursor) -> tuple[int, ...]:
    """Read one entry of `ports` in either form; return the ports inside the replica."""
    if at.node.mapping is None:
        text = at.read_string()
        inside = text.rpartition(":")[2]
        if inside != text:
            at.add_warning(f"{text!r} is not published on the host; {_INSTEAD}")
        return _parse_range(at, inside)
    found: dict[str, str] = {}
    at.read_keys(KeyTable(read={key: partial(_store, found, key) for key in _LONG_FORM}))
    if "target" not in found:
        at.fail("target is missing; expected the port inside the replica")
    if "published" in found:
        at.add_warning(f"port {found['published']} is not published on the host; {_INSTEAD}")
    return _parse_range(at, f"{found['target']}/{found.get('protocol', 'tcp')}")


def _store(found: dict[str, str], key: str, at: Cursor) -> None:
    found[key] = at.read_string()


def _parse_range(at: Cursor, text: str) -> tuple[int, ...]:
    """Return the TCP ports of `8080`, `8080/tcp` or `8080-8090`; none, with a warning, for
    another protocol."""
    span, _, protocol = text.partition("/")
    first, _, last = span.partition("-")
    if not first.isdecimal() or not (last or first).isdecimal():
        at.fail(f"{text!r} is not a valid port; expected e.g. 8080, 8080/tcp or 8080-8090")
    if protocol not in {"", "tcp", "udp", "sctp"}:
        at.fail(f"{protocol!r} is not a protocol; expected tcp, udp or sctp")
    low, high = int(first), int(last or first)
    if not 1 <= low <= high <= 65535:
        at.fail(f"{text!r} is out of range; expected 1 to 65535")
    if protocol in {"udp", "sctp"}:
        at.add_warning(f"the mesh does not carry {text!r}; other containers reach it directly")
        return ()
    return tuple(range(low, high + 1))


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
