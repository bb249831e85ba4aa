"""Opens connections of probes to replicas of other nodes, through the proxy there.

`meshd.discovery.probe` uses it, so that probes are encrypted between nodes as requests are.
"""

import asyncio
import socket
from functools import lru_cache

from meshd.model.peers import PeerHop
from proxy.peer.opening import PeerOpening
from proxy.peer.protocol import certificate_name
from proxy.peer.routes import PeerRoute, make_client
from proxy.peer.tunnel import Tunnel
from proxy.transport.connect import connect_first, hand_over
from proxy.transport.upstream_tls import TlsEndpoint

MAX_NODES = 1024
"""Nodes whose TLS sessions are remembered."""


async def connect_through(host: str, port: int, peer: PeerHop) -> socket.socket:
    """Return a socket that leads to a port of another node. Raises OSError."""
    loop = asyncio.get_running_loop()
    route = _find_route(peer)

    async def dial(remote: asyncio.Protocol) -> None:
        opening = PeerOpening(loop, route, port)
        _, sock = await connect_first(loop, (host,), route.port, remote=True)
        await hand_over(loop, sock, opening)
        await opening.wait(remote)

    return await Tunnel(loop).open(dial)


@lru_cache(maxsize=MAX_NODES)
def _find_route(peer: PeerHop) -> PeerRoute:
    client = make_client(peer.certificate, peer.authority)
    return PeerRoute(peer.port, TlsEndpoint(client, certificate_name(peer.node)))
