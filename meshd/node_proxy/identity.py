"""Names in the certificates of the mesh: who the holder of one is. Pure.

`authority` puts one name into each certificate, and into that of a node another one for its proxy
(`proxy.peer`). `server` reads the first from the peer's certificate, and `agent` asks for that of
the control process. The names belong to the reserved domain `internal`
and are resolved nowhere. They name roles, not addresses, so that a control process may move to
another address.
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from proxy.peer.protocol import PEER_DOMAIN, certificate_name

CONTROL_NAME: Final = "control.meshd.internal"
"""The name in the certificate of the control process."""
NODE_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9-]{1,63}){0,4}")
"""A host name in lower case."""
MAX_NODE_NAME: Final = 200
"""Characters of a node's name: with the domain below, a DNS name has at most 253."""


class PeerRole(StrEnum):
    """What the holder of a certificate may do.

    - `node`: receive snapshots and send reports.
    - `manager`: the same, as a control process that stands by: it has the authority's key, and
      need not join.
    - `join`: ask once for the certificate of a node.
    """

    NODE = "node"
    MANAGER = "manager"
    JOIN = "join"


@dataclass(frozen=True, slots=True)
class PeerIdentity:
    """The holder of a certificate: `name` of the node, or id of the join token."""

    role: PeerRole
    name: str


def is_node_name(name: str) -> bool:
    """Return whether a node may have this name."""
    return len(name) <= MAX_NODE_NAME and NODE_NAME.fullmatch(name) is not None


def to_dns_name(identity: PeerIdentity) -> str:
    """Return the name of the identity in a certificate."""
    return f"{identity.name}.{identity.role.value}.meshd.internal"


def to_dns_names(identity: PeerIdentity) -> tuple[str, ...]:
    """Return all names in a certificate: those with a proxy prove with it which node they are."""
    first = to_dns_name(identity)
    return (first,) if identity.role is PeerRole.JOIN else (first, certificate_name(identity.name))


def read_identity(certificate: "dict[str, Any] | None") -> PeerIdentity | None:
    """Return who holds a verified certificate, as `ssl.SSLSocket.getpeercert` returns it; None if
    it is not that of a node or of a join token."""
    found = (certificate or {}).get("subjectAltName", ())
    names = [each for each in found if not str(each[1]).endswith(f".{PEER_DOMAIN}")]
    if len(names) != 1 or names[0][0] != "DNS":
        return None
    for role in PeerRole:
        suffix = f".{role.value}.meshd.internal"
        name = str(names[0][1])
        if name.endswith(suffix):
            return PeerIdentity(role, name.removesuffix(suffix))
    return None
