"""Idle connections to endpoints: take the one used last, keep one for the next request, open
another, close those that were idle for too long.

`EndpointState.idle` holds them. `Exchange`, its attempts and `DataPlane` call the functions here.
"""

import asyncio
import socket
import ssl
from collections.abc import Callable, Container
from typing import TYPE_CHECKING, Final

from proxy.peer.opening import PeerOpening
from proxy.peer.tunnel import Tunnel
from proxy.state.endpoint_state import EndpointState
from proxy.tls.peer_transport import PeerTransport
from proxy.transport.connect import connect_first, connect_socket, hand_over, send_first
from proxy.transport.proxy_header import NO_ADDRESS, build_header
from proxy.transport.upstream_tls import (
    HANDSHAKE_SECONDS,
    TlsEndpoint,
    TlsFailed,
    describe_error,
)

if TYPE_CHECKING:
    from proxy.request.data_plane import DataPlane
    from proxy.request.sinks import ClientSink
    from proxy.request.upstream import Upstream

MAX_IDLE: Final = 1024
"""Idle connections to one endpoint in one worker."""


def prefer(endpoint: EndpointState, client: "ClientSink") -> None:
    """Have `take` begin with a connection that carries requests of `client` only."""
    idle = endpoint.idle
    for upstream in idle:
        if upstream.client is client:
            idle.remove(upstream)
            idle.append(upstream)
            return


def take(
    endpoint: EndpointState, *, idempotent: bool, now: float, client: "ClientSink | None" = None
) -> "Upstream | None":
    """Take an idle connection, the one used last first. Return None if a new one is needed.
    `client`: it must carry requests of this client only; None: of any client."""
    idle = endpoint.idle
    while idle:
        upstream = idle[-1]
        if upstream.client is not client:
            return None
        if not idempotent and now - upstream.idle_since > endpoint.idle_age.fresh:
            return None
        idle.pop()
        if now < upstream.idle_until and not upstream.closing:
            return upstream
        upstream.discard()
    return None


def keep(endpoint: EndpointState, upstream: "Upstream", now: float) -> None:
    """Keep a connection for the next request, or close it if the endpoint needs no more."""
    if endpoint.serving and len(endpoint.idle) < MAX_IDLE and not upstream.closing:
        upstream.make_idle(now)
        endpoint.idle.append(upstream)
    else:
        upstream.discard()


def close_unused(endpoint: EndpointState, upstream: "Upstream") -> None:
    """Close a connection if no request has taken it from the idle ones."""
    if upstream in endpoint.idle:
        endpoint.idle.remove(upstream)
        upstream.discard()


def make_room(endpoint: EndpointState, limit: int) -> None:
    """Close the connections that were idle for longest, so that another one stays within `limit`.
    An endpoint may be picked because it has an idle connection, and still need a new one."""
    for upstream in endpoint.idle[: max(0, endpoint.connections + 1 - limit)]:
        endpoint.idle.remove(upstream)
        upstream.discard()


def end_attempt(
    plane: "DataPlane", endpoint: EndpointState | None, upstream: "Upstream | None", now: float
) -> None:
    """End an attempt: close its connection if it still has one, and count its end."""
    if upstream is not None:
        upstream.discard()
    if endpoint is not None:
        endpoint.finish(now)
        if not endpoint.serving and not endpoint.counters.in_flight:
            plane.endpoint_idle(endpoint)


def close_idle(endpoint: EndpointState, now: float) -> None:
    """Close the connections whose idle time is over at `now`; all of them at infinity. Learn from
    the one that is idle for longest."""
    if endpoint.idle and not endpoint.idle[0].closing:
        endpoint.idle_age.saw_open(now - endpoint.idle[0].idle_since, now)
    for upstream in endpoint.take_expired(now):
        upstream.discard()
    if endpoint.streams is not None:
        endpoint.streams.close_idle(now)


def close_orphaned(endpoint: EndpointState, clients: "Container[ClientSink]") -> None:
    """Close the connections for a client that has gone: it is not among `clients`."""
    for upstream in tuple(endpoint.idle):
        if upstream.client is not None and upstream.client not in clients:
            close_unused(endpoint, upstream)


async def dial(
    loop: asyncio.AbstractEventLoop,
    endpoint: EndpointState,
    client: "ClientSink | None",
    protocol: asyncio.Protocol,
    failed: Callable[[OSError], None],
    tls: TlsEndpoint | None,
) -> None:
    """Open a connection, for the requests of `client` if that is given. On success the transport
    calls `protocol.connection_made`, on failure `failed` is called."""
    where = endpoint.endpoint
    try:
        if tls is not None or endpoint.proxy_protocol:
            await _dial_prepared(loop, endpoint, client, protocol, tls)
        elif endpoint.peer is not None:
            await open_peer(loop, endpoint, protocol)
        elif where.path:
            await loop.create_unix_connection(lambda: protocol, where.path)
        elif where.alternatives or where.node:
            host, sock = await connect_first(
                loop, endpoint.hosts(), where.port, remote=bool(where.node)
            )
            endpoint.record_accepting(host)
            await hand_over(loop, sock, protocol)
        else:
            await loop.create_connection(lambda: protocol, where.host, where.port)
    except OSError as error:
        failed(error)


async def open_peer(
    loop: asyncio.AbstractEventLoop, endpoint: EndpointState, protocol: asyncio.Protocol
) -> PeerTransport:
    """Open a connection to an endpoint through the proxy of its node. Raises OSError if that or
    the endpoint cannot be reached, TlsFailed if one of the proxies does not accept the other."""
    route, where = endpoint.peer, endpoint.endpoint
    assert route is not None
    opening = PeerOpening(loop, route, where.port)
    host, sock = await connect_first(loop, endpoint.hosts(), route.port, remote=True)
    endpoint.record_accepting(host)
    await hand_over(loop, sock, opening)
    return await opening.wait(protocol)


async def _dial_prepared(
    loop: asyncio.AbstractEventLoop,
    endpoint: EndpointState,
    client: "ClientSink | None",
    protocol: asyncio.Protocol,
    tls: TlsEndpoint | None,
) -> None:
    """Open a connection with a PROXY header, with TLS, or with both, the header in the clear.
    Raises OSError if the endpoint cannot be reached, TlsFailed if the handshake fails."""
    where = endpoint.endpoint
    context = tls.prepare() if tls is not None else None
    if endpoint.peer is not None:
        sock = await Tunnel(loop).open(lambda remote: open_peer(loop, endpoint, remote))
    elif where.path:
        sock = socket.socket(socket.AF_UNIX)
        await connect_socket(loop, sock, where.path)
    else:
        host, sock = await connect_first(
            loop, endpoint.hosts(), where.port, remote=bool(where.node)
        )
        endpoint.record_accepting(host)
    if endpoint.proxy_protocol:
        address = client.proxied_address() if client is not None else NO_ADDRESS
        send_first(sock, build_header(endpoint.proxy_protocol, address))
    if tls is None:
        await hand_over(loop, sock, protocol)
        return
    try:
        await hand_over(
            loop,
            sock,
            protocol,
            ssl=context,
            server_hostname=tls.server_name,
            ssl_handshake_timeout=HANDSHAKE_SECONDS,
        )
    except (ssl.SSLError, ConnectionError) as error:
        raise TlsFailed(describe_error(error, tls.server_name)) from error
