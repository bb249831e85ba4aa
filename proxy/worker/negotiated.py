"""Chooses the protocol of a client connection after its TLS handshake.

`proxy.worker.tls_listeners` calls `create_handshake` for each connection. A connection is HTTP/1.1
unless ALPN chose another protocol that this module knows.
"""

import asyncio
import functools
import re
from typing import Final, cast

from proxy import http2
from proxy.http1.rewrite import build_response
from proxy.peer.protocol import PEER_ALPN
from proxy.request.data_plane import DataPlane
from proxy.tcp.peer_relay import PeerRelay
from proxy.tls.contexts import ServerContexts
from proxy.tls.handshake import Handshake
from proxy.tls.session_info import TlsSession
from proxy.tls.transport import TlsTransport
from proxy.wire.snapshot import Listener

HTTP2: Final = "h2"
"""The name of HTTP/2 in ALPN."""
_REQUEST_LINE: Final = re.compile(rb"[A-Z]{3,16} [^ \r\n]+ HTTP/1\.[01]\r?\n")
"""The beginning of a request of HTTP/1."""


def create_handshake(
    plane: DataPlane, contexts: ServerContexts, listener: Listener
) -> asyncio.Protocol:
    """Return the protocol of a new connection to a listener with TLS."""
    tls = listener.tls
    assert tls is not None
    handshake = Handshake(
        contexts,
        plane.handshakes,
        functools.partial(serve, plane, listener),
        answer_nothing if listener.kind == "peer" else answer_plain_http,
        tls.handshake_seconds,
        tls.handshakes_per_address,
        listener.client[0],
    )
    return cast("asyncio.Protocol", handshake)


def serve(
    plane: DataPlane, listener: Listener, transport: TlsTransport, session: TlsSession
) -> None:
    """Hand a connection whose handshake is complete to the protocol that it negotiated."""
    protocol = create_protocol(plane, listener, session)
    transport.set_protocol(protocol)
    protocol.connection_made(cast("asyncio.Transport", transport))


def answer_plain_http(data: bytes) -> bytes:
    """Return the answer to a request in clear text; empty if the bytes are not one."""
    if _REQUEST_LINE.match(data) is None:
        return b""
    return build_response(
        400,
        "The plain HTTP request was sent to an HTTPS port; use https://",
        bodyless=data.startswith(b"HEAD "),
        close=True,
    )


def answer_nothing(data: bytes) -> bytes:
    """Return no answer to bytes that are not TLS."""
    del data
    return b""


def create_protocol(plane: DataPlane, listener: Listener, session: TlsSession) -> asyncio.Protocol:
    """Return the protocol for what ALPN chose."""
    if listener.kind == "peer":
        return cast("asyncio.Protocol", PeerRelay(plane, listener, session))
    if session.protocol == HTTP2 and plane.create_http2_client is not None:
        return plane.create_http2_client(plane, listener, session)
    return plane.create_client(listener, session)


def offered_protocols(listener: Listener) -> tuple[str, ...]:
    """Return the protocols that a listener offers by ALPN, the preferred one first."""
    assert listener.tls is not None
    if listener.kind == "peer":
        return PEER_ALPN
    if listener.tls.http2 and http2.is_available():
        return (HTTP2, "http/1.1")
    return ("http/1.1",)
