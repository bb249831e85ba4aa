"""Idle connections to endpoints: take the one used last, keep one for the next request, open
another, close those that were idle for too long.

`EndpointState.idle` holds them. `Exchange`, its attempts and `DataPlane` call the functions here.
"""

import asyncio
import socket
import ssl
from collections.abc import Callable, Container, Sequence
from typing import TYPE_CHECKING, Any, Final

import uvloop

from proxy.state.endpoint_state import EndpointState
from proxy.transport.proxy_header import NO_ADDRESS, build_header
from proxy.transport.silence import notice_silence
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

ATTEMPT_DELAY: Final = 0.25
"""Seconds before the next address of a host is tried as well: the Connection Attempt Delay that
RFC 8305 recommends."""


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


async def connect_first(
    loop: asyncio.AbstractEventLoop, hosts: Sequence[str], port: int, *, remote: bool = False
) -> tuple[str, socket.socket]:
    """Connect to the first of several IP addresses that accepts (RFC 8305); return it with the
    socket. `remote`: it is on another machine, which may be lost.

    The next address is tried when the one before has failed, or after `ATTEMPT_DELAY`. Raises the
    last OSError if none accepts.
    """
    waiting = list(hosts)
    pending: set[asyncio.Task[tuple[str, socket.socket]]] = set()
    error = OSError("no address")
    try:
        while waiting or pending:
            if waiting:
                pending.add(asyncio.ensure_future(_connect(loop, waiting.pop(0), port, remote)))
            done, pending = await asyncio.wait(
                pending,
                timeout=ATTEMPT_DELAY if waiting else None,
                return_when=asyncio.FIRST_COMPLETED,
            )
            for task in done:
                failure = task.exception()
                if failure is None:
                    pending |= done - {task}
                    return task.result()
                if not isinstance(failure, OSError):
                    raise failure
                error = failure
        raise error
    finally:
        for task in pending:
            task.add_done_callback(_close_unused)
            task.cancel()


def _close_unused(task: "asyncio.Task[tuple[str, socket.socket]]") -> None:
    """Close the connection of an attempt that another one was faster than."""
    if not task.cancelled() and task.exception() is None:
        task.result()[1].close()


async def _connect(
    loop: asyncio.AbstractEventLoop, host: str, port: int, remote: bool
) -> tuple[str, socket.socket]:
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    if remote:
        notice_silence(sock)
    await _connect_socket(loop, sock, (host, port))
    return host, sock


async def _connect_socket(
    loop: asyncio.AbstractEventLoop, sock: socket.socket, where: str | tuple[str, int]
) -> None:
    """Connect a socket; close it if that fails."""
    try:
        sock.setblocking(False)
        await loop.sock_connect(sock, where)
    except BaseException:
        sock.close()
        raise


async def hand_over(
    loop: asyncio.AbstractEventLoop, sock: socket.socket, protocol: asyncio.Protocol, **tls: Any
) -> None:
    """Make a transport of a connected socket. It owns the descriptor from then on. `tls`: the
    arguments of `loop.create_connection` about TLS."""
    ended = True
    try:
        transport, _ = await loop.create_connection(lambda: protocol, sock=sock, **tls)
        ended = transport.is_closing()
    finally:
        if ended and isinstance(loop, uvloop.Loop):
            # A connection that ends before uvloop has returned it leaves the socket object open
            # after its descriptor was closed. The object would close the number once more when it
            # is collected: by then it may be another connection's.
            sock.detach()


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
    if where.path:
        sock = socket.socket(socket.AF_UNIX)
        await _connect_socket(loop, sock, where.path)
    else:
        host, sock = await connect_first(
            loop, endpoint.hosts(), where.port, remote=bool(where.node)
        )
        endpoint.record_accepting(host)
    if endpoint.proxy_protocol:
        address = client.proxied_address() if client is not None else NO_ADDRESS
        # A new connection takes far more bytes at once than the header has.
        sock.send(build_header(endpoint.proxy_protocol, address))
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
