"""Two connections joined: what arrives on one is written to the other.

`tunnel` and `proxy.tcp.peer_relay` join one between two proxies with one to an endpoint or to this
process. A side is not read from while the other one takes no bytes. Each direction ends for itself;
a side that breaks breaks the other one.
"""

import asyncio
from collections.abc import Callable
from typing import cast

from proxy.tls.peer_transport import PeerTransport
from proxy.transport.connect import reset_on_close


class PipeEnd(asyncio.Protocol):
    """One side. What arrives before it is joined waits. `on_end` is called once when it has
    ended."""

    def __init__(self, on_end: Callable[[], None]) -> None:
        self.transport: asyncio.Transport | None = None
        self.other: PipeEnd | None = None
        self._on_end = on_end
        self._early = b""
        self._has_read_end = False
        self._broke = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        other = self.other
        if other is None:
            self._early += data
        elif other.transport is not None:
            other.transport.write(data)

    def eof_received(self) -> bool:
        """Pass the end on; keep this side open for the other direction."""
        self._has_read_end = True
        other = self.other
        if other is None:
            return True
        transport = other.transport
        if transport is None:
            return False
        if other._has_read_end:
            transport.close()
            return False
        if not transport.is_closing():
            transport.write_eof()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        self._broke = exc is not None
        other = self.other
        if other is not None:
            other.follow(broke=self._broke)
        self._on_end()

    def follow(self, *, broke: bool) -> None:
        """End this side, because the other one has: after what was written, and so that the peer
        sees whether that one broke."""
        transport = self.transport
        if transport is None:
            return
        if broke:
            _break(transport)
        else:
            transport.close()

    def begin(self, other: "PipeEnd") -> None:
        """Pass on what has arrived so far, and what arrives from now on."""
        self.other = other
        transport, early = other.transport, self._early
        self._early = b""
        if transport is not None:
            if early:
                transport.write(early)
            if self._has_read_end:
                transport.write_eof()
        if self.transport is None:
            other.follow(broke=self._broke)

    def pause_writing(self) -> None:
        other = self._readable_other()
        if other is not None:
            other.pause_reading()

    def resume_writing(self) -> None:
        other = self._readable_other()
        if other is not None:
            other.resume_reading()

    def _readable_other(self) -> asyncio.Transport | None:
        other = self.other
        if other is None or other._has_read_end:
            return None
        transport = other.transport
        return None if transport is None or transport.is_closing() else transport

    def break_off(self) -> None:
        """End both sides so that both peers see a broken connection."""
        for side in (self, self.other):
            if side is not None:
                side.follow(broke=True)


def join(one: PipeEnd, other: PipeEnd) -> None:
    """Join two sides."""
    one.begin(other)
    other.begin(one)


def _break(transport: asyncio.Transport) -> None:
    """End a connection so that the peer sees that it is broken; what was written still leaves
    where that is possible."""
    made = cast("object", transport)
    if isinstance(made, PeerTransport):
        made.break_off()
        return
    sock = transport.get_extra_info("socket")
    if sock is not None:
        reset_on_close(sock)
    transport.abort()
