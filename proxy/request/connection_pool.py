"""Connections to endpoints: reuse the warmest, open another, close what idles too long."""

import asyncio
from typing import TYPE_CHECKING, Final, cast

from proxy.state.endpoint_state import EndpointState

if TYPE_CHECKING:
    from proxy.request.data_plane import DataPlane
    from proxy.request.upstream import Upstream

IDLE_MOST: Final = 1024
FRESH_SECONDS: Final = 1.5
"""A request that may not be sent twice rides on a connection that was idle for no longer than
this: an origin that closes idle ones would otherwise meet it half way."""


def take(endpoint: EndpointState, *, idempotent: bool, now: float) -> "Upstream | None":
    """An idle connection, the last used first; None when a new one is needed."""
    idle = endpoint.idle
    while idle:
        upstream = idle[-1]
        if not idempotent and now - upstream.idle_since > FRESH_SECONDS:
            return None
        idle.pop()
        if now < upstream.idle_until and not upstream.closing:
            return upstream
        upstream.discard()
    return None


def give(endpoint: EndpointState, upstream: "Upstream", now: float) -> None:
    """Keep a connection for the next request, or close it where none is wanted."""
    if not endpoint.serving or len(endpoint.idle) >= IDLE_MOST:
        upstream.discard()
        return
    if upstream.paused:
        # The client was slow to take the end of an answer. Left so, the connection would
        # neither notice that the origin closes it nor read the next answer.
        upstream.resume()
    upstream.idle_since = now
    upstream.idle_until = now + upstream.idle_limit
    endpoint.idle.append(upstream)


def make_room(endpoint: EndpointState, most: int) -> None:
    """Closes the connections idle for longest, so that another one stays within `most`: one
    that may be asked thanks to an idle connection may still need a new one."""
    for upstream in endpoint.idle[: max(0, endpoint.connections + 1 - most)]:
        endpoint.idle.remove(upstream)
        upstream.discard()


def forget(endpoint: EndpointState, upstream: "Upstream") -> None:
    """A connection closed, or will never come about; it may have been idle."""
    if upstream.counted:
        upstream.counted = False
        endpoint.connected(-1)
    if upstream in endpoint.idle:
        endpoint.idle.remove(upstream)


def give_back(
    plane: "DataPlane", endpoint: EndpointState | None, upstream: "Upstream | None", now: float
) -> None:
    """An attempt is over: its connection ends if it still has one, and its endpoint has a
    request less."""
    if upstream is not None:
        upstream.discard()
    if endpoint is not None:
        endpoint.finish(now)
        if not endpoint.serving and not endpoint.counters.in_flight:
            plane.endpoint_idle(endpoint)


def close_idle(endpoint: EndpointState, now: float) -> None:
    """Closes the connections that have been idle for too long; all of them at infinity."""
    idle = endpoint.idle
    expired = [upstream for upstream in idle if upstream.idle_until <= now]
    if expired:
        endpoint.idle = [upstream for upstream in idle if upstream.idle_until > now]
        for upstream in expired:
            upstream.discard()


async def dial(
    loop: asyncio.AbstractEventLoop, endpoint: EndpointState, upstream: "Upstream"
) -> None:
    """Opens a connection; `upstream` is told of success by its transport, of failure here."""
    where = endpoint.endpoint
    protocol = cast("asyncio.Protocol", upstream)
    try:
        if where.path:
            await loop.create_unix_connection(lambda: protocol, where.path)
        else:
            await loop.create_connection(lambda: protocol, where.host, where.port)
    except OSError as error:
        upstream.dial_failed(error)
