"""Has a client that ended its side gone, or does it wait for its answer? TCP tells the two alike.

So it is asked: the first byte of the answer, the same for all of them, is sent ahead. A client that
has gone answers with a reset, and its request is cancelled; one that waits has a byte of its answer
already. An answer that comes within a moment is not torn apart for that.
"""

import asyncio
import socket
import struct
from typing import TYPE_CHECKING, Final

from proxy.request.phases import ANSWERING

if TYPE_CHECKING:
    from proxy.request.downstream import Downstream
    from proxy.request.exchange import Exchange

ASK_AFTER: Final = 0.05
LOOK_AFTER: Final[tuple[float, ...]] = (0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6)
"""A reset takes as long as the way to the client and back."""
STALLED: Final = 0.25
"""An answer that has begun cannot be used to ask. If nothing of it comes for so long, whoever
ended right after asking is taken to have gone."""
_TCP_INFO: Final = getattr(socket, "TCP_INFO", 0)
_CLOSED: Final = 7
_RESET: Final = struct.pack("ii", 1, 0)


class HalfCloseWatcher:
    """Finds out about one client during one exchange. `start` begins."""

    __slots__ = ("_client", "_exchange", "_looks", "_seen")

    def __init__(self, client: "Downstream", exchange: "Exchange") -> None:
        self._client = client
        self._exchange = exchange
        self._looks = 0
        self._seen = exchange.bytes_out

    def start(self) -> None:
        """Ask in a moment."""
        loop = self._exchange.plane.loop
        if self._exchange.phase < ANSWERING:
            loop.call_later(ASK_AFTER, self._ask)
        else:
            loop.call_later(STALLED, self._see_whether_it_moves)

    def _ask(self) -> None:
        if self._client.exchange is self._exchange:
            if self._exchange.phase < ANSWERING:
                self._client.send_ahead()
            self._look_later()

    def _see_whether_it_moves(self) -> None:
        if self._client.exchange is self._exchange:
            if self._exchange.bytes_out == self._seen and not self._client.unsent():
                self._client.abort()
            else:
                self._look()

    def _look(self) -> None:
        if self._client.exchange is self._exchange:
            if is_reset(self._client):
                self._client.abort()
            else:
                self._look_later()

    def _look_later(self) -> None:
        if self._looks < len(LOOK_AFTER):
            after = LOOK_AFTER[self._looks]
            self._looks += 1
            self._exchange.plane.loop.call_later(after, self._look)


def is_reset(client: "Downstream") -> bool:
    """Whether the kernel has had a reset from a client; its end is all that is read of it, so
    that nobody is told. On Unix sockets the write itself fails."""
    sock = client.transport.get_extra_info("socket") if client.transport is not None else None
    if sock is None or not _TCP_INFO or sock.family == socket.AF_UNIX:
        return False
    info: bytes = sock.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, 1)
    return info[0] == _CLOSED


def end_by_reset(transport: asyncio.Transport) -> None:
    """Has the end of a connection, which is to follow, tell the peer at once: what was not sent
    yet is thrown away, and what was is no clean end."""
    sock = transport.get_extra_info("socket")
    if sock is not None and sock.family != socket.AF_UNIX:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
