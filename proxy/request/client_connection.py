"""One connection of a client, whatever its protocol: who the client is, and what endpoints learn
about it.

Base class of `proxy.request.downstream` (HTTP/1) and `proxy.http2_downstream.connection`. Both add
their protocol; the data plane sees them as `ClientSink`s.
"""

import asyncio
from typing import TYPE_CHECKING, Final, cast

from proxy.http1.request import RequestHead
from proxy.http1.rewrite import extend_forwarded
from proxy.request import half_close
from proxy.request.headers import certificate_line
from proxy.request.sinks import ClientSink
from proxy.tls.session_info import TlsSession
from proxy.transport.proxy_header import ProxiedAddress
from proxy.wire.snapshot import Listener

if TYPE_CHECKING:
    from proxy.request.data_plane import DataPlane

WRITE_HIGH: Final = 64 * 1024
"""Bytes in the write buffer above which nothing more is written: the upstream is not read, and the
codec of HTTP/2 keeps its frames, whose order depends on their priorities until then."""
UNKNOWN: Final = b"unknown"
"""The address of a client of a Unix socket (RFC 7239, section 6.2)."""


class ClientConnection(ClientSink):
    """A connection of a client.

    - `plane`: the data plane.
    - `transport`: None before and after the connection.
    - `trusted`: whether the other end is a proxy that is believed about its clients.
    - `public`: whether the listener is public.
    - `plain_heads`: whether a response head goes to the client as it is. With HSTS each is built.
    """

    __slots__ = (
        "_hop", "_lines", "_lines_host", "plain_heads", "plane", "public", "transport", "trusted",
    )  # fmt: skip

    def __init__(self, plane: "DataPlane", listener: Listener, tls: TlsSession | None) -> None:
        super().__init__(listener, "", b"", tls)
        self.plane = plane
        self.transport: asyncio.Transport | None = None
        self.trusted = False
        self.public = listener.kind == "public"
        self.plain_heads = tls is None or listener.tls is None or not listener.tls.hsts
        self._hop = b""
        self._lines = b""
        self._lines_host: bytes | None = None

    def take_transport(self, transport: asyncio.BaseTransport) -> None:
        """Begin the connection: note who the client is, and when its first request is due."""
        self.transport = cast("asyncio.Transport", transport)
        self.transport.set_write_buffer_limits(high=WRITE_HIGH)
        peer = transport.get_extra_info("peername")
        if self.listener.client[0]:
            self.peer = self.source = self.listener.client[0]
        elif isinstance(peer, tuple):
            self.peer = self.source = peer[0].removeprefix("::ffff:")
        self._hop = self.peer.encode()
        self.address = self._hop or UNKNOWN
        plane = self.plane
        self.trusted = plane.routing.trusted.has_peer(self.peer, self.listener.address)
        self.deadline = plane.clock() + plane.routing.head_seconds
        plane.clients.add(self)

    def drop_transport(self) -> None:
        """End the connection: the transport is lost."""
        self.plane.clients.discard(self)
        self.plane.paused_clients.discard(self)
        self.transport = None

    def forwarded_lines(self, head: RequestHead) -> bytes:
        host = head.host or b""
        if head.forwarded and self.trusted:
            lines = extend_forwarded(head, self._hop, self.scheme, host)
            return lines + certificate_line(self.tls) + self.plane.head_cache.hop_lines
        if host != self._lines_host:
            lines = self.plane.head_cache.forwarded_lines(self._hop or UNKNOWN, self.scheme, host)
            # Via is the last line, if there is one.
            self._lines = certificate_line(self.tls) + lines
            self._lines_host = host
        return self._lines

    def forget_forwarded_lines(self) -> None:
        self._lines_host = None

    def proxied_address(self) -> ProxiedAddress:
        transport = self.transport
        if transport is None or self.source != self.peer:
            return ProxiedAddress(self.source, 0)
        peer, own = transport.get_extra_info("peername"), transport.get_extra_info("sockname")
        port = self.listener.client[1]
        if not port and isinstance(peer, tuple):
            port = peer[1]
        if not isinstance(own, tuple):
            return ProxiedAddress(self.peer, port)
        return ProxiedAddress(self.peer, port, own[0].removeprefix("::ffff:"), own[1])

    def has_unsent_bytes(self) -> bool:
        transport = self.transport
        return transport is not None and transport.get_write_buffer_size() > 0

    def is_reset(self) -> bool:
        return half_close.is_reset(self.transport)
