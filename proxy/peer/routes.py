"""How one worker reaches the endpoints of other nodes.

`DataPlane` owns one `PeerRoutes` and installs each snapshot in it; `ServiceState` asks it for each
endpoint, and `proxy.tcp.peer_relay` for the endpoints of this node.
"""

import ssl
from collections.abc import Iterable, Mapping
from typing import Final

from proxy.ipc.config import PeerConfig
from proxy.peer.files import read_node
from proxy.peer.protocol import PEER_ALPN, certificate_name
from proxy.transport.upstream_tls import TlsClient, TlsEndpoint, make_context
from proxy.wire.snapshot import Endpoint, Snapshot, UpstreamTls

PEER_SECONDS: Final = 15.0
"""Seconds after which a connection through another proxy takes no further request. A worker of that
proxy that is replaced waits at least 30 s for its connections, which it cannot look into."""


class PeerRoute:
    """The way to the endpoints of one node.

    - `port`: the port of its proxy, at the address of each endpoint; 0: they cannot be reached.
    - `tls`: encryption, with the sessions of earlier connections; None if they cannot be reached.
    - `problem`: why there is none.
    - `valid_from`: see `Snapshot.peers_valid_from`; 0: any.
    """

    __slots__ = ("port", "problem", "tls", "valid_from")

    def __init__(
        self, port: int, tls: TlsEndpoint | None, problem: str = "", valid_from: int = 0
    ) -> None:
        self.port = port
        self.tls = tls
        self.problem = problem
        self.valid_from = valid_from


class PeerRoutes:
    """The ways to all other nodes. `config`: where the certificate of this node is; None: it has
    none.

    - `own_node`: this node, in lower case; empty while it is not known.
    """

    def __init__(self, config: PeerConfig | None = None) -> None:
        self.own_node = ""
        self._config = config
        self._client: TlsClient | None = None
        if config is not None:
            self._client = make_client(config.certificate, config.authority)
        self._ports: Mapping[str, int] = {}
        self._valid_from: Mapping[str, int] = {}
        self._requires = False
        self._routes: dict[str, PeerRoute] = {}
        self._snapshot: Snapshot | None = None
        self._own: dict[int, str] | None = None

    def install(self, snapshot: Snapshot) -> None:
        """Take the proxies of nodes from a snapshot. Ways that did not change stay the same."""
        self._snapshot, self._own = snapshot, None
        self._ports, self._requires = snapshot.peers, snapshot.requires_peers
        self._valid_from = snapshot.peers_valid_from
        if self._config is not None and not self.own_node:
            self.own_node = read_node(self._config.certificate)
        self._routes = {
            node: route
            for node, route in self._routes.items()
            if route.port == self._ports.get(node, 0)
            and route.valid_from == self._valid_from.get(node, 0)
        }

    def find(self, endpoint: Endpoint) -> PeerRoute | None:
        """Return the way to an endpoint; None for a plain connection to its address."""
        node = endpoint.node.lower()
        if not node or node == self.own_node:
            return None
        port = self._ports.get(node, 0)
        if not port and not self._requires:
            return None
        route = self._routes.get(node)
        if route is None:
            route = self._routes[node] = self._make_route(node, port)
        return route

    def _make_route(self, node: str, port: int) -> PeerRoute:
        start = self._valid_from.get(node, 0)
        if not port:
            return PeerRoute(0, None, f"node {node} has no proxy", start)
        if self._client is None:
            return PeerRoute(port, None, "this node has no certificate", start)
        tls = TlsEndpoint(self._client, certificate_name(node))
        return PeerRoute(port, tls, valid_from=start)

    def find_own(self, port: int) -> str:
        """Return the address of the endpoint of this node at a port; empty if there is none."""
        if self._own is None:
            self._own = dict(_list_own(self._snapshot, self.own_node)) if self.own_node else {}
        return self._own.get(port, "")

    def is_member(self, node: str, valid_from: float) -> bool:
        """Return whether a node with this name belongs to the mesh, and has a certificate that is
        valid from this time on: not that of a node of the same name that was removed."""
        return node in self._ports and valid_from >= self._valid_from.get(node, 0)


NO_PEERS: Final = PeerRoutes()
"""For a data plane that knows no other nodes."""


def _list_own(snapshot: Snapshot | None, node: str) -> Iterable[tuple[int, str]]:
    """Yield port and address of all replicas of a node. A port that replicas have at several
    addresses leads to none of them: containers that are in no Swarm may have the same."""
    found: dict[int, str] = {}
    for port, host in _list_replicas(snapshot, node):
        found[port] = host if found.get(port, host) == host else ""
    yield from found.items()


def _list_replicas(snapshot: Snapshot | None, node: str) -> Iterable[tuple[int, str]]:
    if snapshot is None:
        return
    for group in (snapshot.starting, *(service.endpoints for service in snapshot.services)):
        for endpoint in group:
            if endpoint.host and endpoint.node.lower() == node:
                yield endpoint.port, endpoint.host


def make_client(certificate: str, authority: str) -> TlsClient:
    """Return the settings of connections to other proxies, with these files."""
    settings = UpstreamTls(ca=authority, cert=certificate)
    return TlsClient(settings, alpn=PEER_ALPN, make=_make_context)


def _make_context(settings: UpstreamTls, alpn: tuple[str, ...]) -> ssl.SSLContext:
    """Return the context for connections to other proxies. Raises TlsFiles."""
    context = make_context(settings, alpn)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context
