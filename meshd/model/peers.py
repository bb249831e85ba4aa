"""What is known of the proxies of nodes: how they reach each other. Pure.

`meshd.daemon.node_channel` makes it; it becomes part of snapshots, and the Swarm runtime places
replicas by it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final


@dataclass(frozen=True, slots=True)
class PeerHop:
    """The proxy of a node on the way to its replicas.

    - `node`: the node, in lower case; `port`: the port of its proxy, 0: it has none.
    - `certificate`, `authority`: see `PeerSettings`.
    """

    node: str
    port: int
    certificate: str
    authority: str


@dataclass(frozen=True, slots=True)
class PeerSettings:
    """How proxies reach endpoints of other nodes.

    - `ports`: the port of each node's proxy for others, by name of the node in lower case; 0: none.
    - `required`: whether clear text is forbidden to nodes without a proxy.
    - `own_node`: the node of this process; empty while it is not known.
    - `lost`: nodes whose proxies are not connected to this process.
    - `certificate`, `authority`: files with the identity of this node's proxy (`proxy.peer.files`).
    - `valid_from`: the earliest start of validity of a node's certificate (Unix time), by name.
    """

    ports: Mapping[str, int] = field(default_factory=dict)
    required: bool = False
    own_node: str = ""
    lost: frozenset[str] = frozenset()
    certificate: str = ""
    authority: str = ""
    valid_from: Mapping[str, int] = field(default_factory=dict)

    def has_proxy(self, node: str) -> bool:
        """Return whether the proxy of a node accepts those of others."""
        return self.ports.get(node.lower(), 0) > 0

    def is_lost(self, node: str) -> bool:
        """Return whether the proxy of a node is not connected to this process."""
        return node.lower() in self.lost

    def find_hop(self, node: str) -> PeerHop | None:
        """Return through what a probe reaches replicas of a node; None: it connects to them."""
        name = node.lower()
        if not name or name == self.own_node.lower():
            return None
        port = self.ports.get(name, 0)
        if not port and not self.required:
            return None
        return PeerHop(name, port, self.certificate, self.authority)


NO_PEERS: Final = PeerSettings()
