"""Finds out whether a client that ended its side of the connection still waits for its response.

`Downstream` starts a `HalfCloseWatcher`; `DataPlane` calls `is_reset`. TCP reports a client that
has gone and a client that has only sent everything in the same way. So the watcher sends the first
byte of the response early, which is the same for all responses. A client that has gone answers
with a reset, and its request is cancelled; a client that waits has a byte of its response. A
response that comes within a moment is not split for that.
"""

import asyncio
import socket
from typing import TYPE_CHECKING, Final

from proxy.request.phases import ANSWERING
from proxy.transport.connect import reset_on_close

if TYPE_CHECKING:
    from proxy.request.downstream import Downstream
    from proxy.request.exchange import Exchange

PROBE_AFTER: Final = 0.05
"""Seconds after which the first byte is sent: most responses come sooner."""
CHECK_AFTER: Final[tuple[float, ...]] = (0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6)
"""Seconds between the checks for a reset, which takes a round trip to the client."""
STALLED: Final = 0.25
"""Once a response has begun, its first byte cannot be a probe. If no byte of it is sent within
these seconds after the client ended its side, the client counts as gone."""
_TCP_INFO: Final = getattr(socket, "TCP_INFO", 0)
_CLOSED: Final = 7
"""TCP_CLOSE, the state of a connection that was reset (Linux, net/tcp_states.h)."""


class HalfCloseWatcher:
    """Watches one client during one exchange, from `start` on."""

    __slots__ = ("_checks", "_client", "_exchange", "_seen")

    def __init__(self, client: "Downstream", exchange: "Exchange") -> None:
        self._client = client
        self._exchange = exchange
        self._checks = 0
        self._seen = exchange.bytes_out

    def start(self) -> None:
        """Start the first timer."""
        loop = self._exchange.plane.loop
        if self._exchange.phase < ANSWERING:
            loop.call_later(PROBE_AFTER, self._probe)
        else:
            loop.call_later(STALLED, self._check_progress)

    def _probe(self) -> None:
        if self._client.exchange is self._exchange:
            if self._exchange.phase < ANSWERING:
                self._client.send_first_byte()
            self._check_later()

    def _check_progress(self) -> None:
        if self._client.exchange is self._exchange:
            if self._exchange.bytes_out == self._seen and not self._client.has_unsent_bytes():
                self._client.abort()
            else:
                self._check()

    def _check(self) -> None:
        if self._client.exchange is self._exchange:
            if self._client.is_reset():
                self._client.abort()
            else:
                self._check_later()

    def _check_later(self) -> None:
        if self._checks < len(CHECK_AFTER):
            after = CHECK_AFTER[self._checks]
            self._checks += 1
            self._exchange.plane.loop.call_later(after, self._check)


def is_reset(transport: asyncio.Transport | None) -> bool:
    """Return whether a client's connection was reset. After its end of stream the event loop
    reads no more of it and would not notice. False on Unix sockets, where the next write fails."""
    sock = transport.get_extra_info("socket") if transport is not None else None
    if sock is None or not _TCP_INFO or sock.family == socket.AF_UNIX:
        return False
    info: bytes = sock.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, 1)
    return info[0] == _CLOSED


def end_by_reset(transport: asyncio.Transport) -> None:
    """Have the close of a connection, which the caller does next, send a reset: unsent bytes are
    dropped, and the peer does not see a clean end."""
    sock = transport.get_extra_info("socket")
    if sock is not None:
        reset_on_close(sock)
