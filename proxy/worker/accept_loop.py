"""Accepts the connections of one listening socket, and passes their sockets on.

`Acceptor` creates an `AcceptLoop` for each listening socket whose connections are looked at before
they get a protocol, which are those to TCP services among others. A server of the event loop would
make a transport for each connection, from which the socket would be taken at once.
"""

import socket
from collections.abc import Callable
from typing import Any, Final

from proxy.state.descriptors import is_shortage
from proxy.tcp.poller import Poller

Take = Callable[[socket.SocketType, str], None]
"""Takes an accepted connection: its socket, which does not block, and the address of the other end;
empty for a Unix socket."""

_UNIX: Final = int(socket.AF_UNIX)
_IPV6: Final = int(socket.AF_INET6)
_STREAM: Final = int(socket.SOCK_STREAM)


class AcceptLoop:
    """Accepts from its creation until `close`, one connection per event: other sockets have their
    turn between two of them, and so have other workers at a socket that they share.

    - `take`: gets the connections.
    - `has_room`: whether one more may be accepted. If not, or if no descriptor is left, `on_full`
      is called, which closes this loop for a while.
    """

    __slots__ = ("_family", "_has_room", "_on_full", "_poller", "_protocol", "_sock", "_take")

    def __init__(
        self,
        poller: Poller,
        sock: socket.socket,
        take: Take,
        has_room: Callable[[], bool],
        on_full: Callable[[], None],
    ) -> None:
        self._poller = poller
        self._sock = sock
        self._family = int(sock.family)
        self._protocol = sock.proto
        self._take = take
        self._has_room = has_room
        self._on_full = on_full
        set_up(sock)
        poller.watch_listening(sock, self._ready)

    def close(self) -> None:
        """Accept no more. The socket stays open."""
        self._poller.leave(self._sock)

    def _ready(self, events: int) -> None:
        del events
        if not self._has_room():
            self._on_full()
            return
        try:
            taken, peer = accept(self._sock, self._family, self._protocol)
        except BlockingIOError:
            return  # another worker was faster
        except OSError as error:
            if is_shortage(error, answered=True):
                self._on_full()
            return  # else the client has gone already
        self._take(taken, peer)


def set_up(sock: socket.socket) -> None:
    """Set up a listening socket. Its connections inherit the options."""
    sock.setblocking(False)
    if sock.family != _UNIX:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def accept(sock: socket.SocketType, family: int, protocol: int) -> tuple[socket.SocketType, str]:
    """Accept one connection. Return its socket, which does not block, and the address of the other
    end; empty for a Unix socket. Raises OSError."""
    descriptor, address = _accept(sock)
    taken = socket.SocketType(family, _STREAM, protocol, descriptor)
    taken.setblocking(False)
    if family == _UNIX:
        return taken, ""
    peer: str = address[0]
    return taken, peer.removeprefix("::ffff:") if family == _IPV6 else peer


def _accept(sock: Any) -> tuple[int, Any]:
    """Return the descriptor and the address of a new connection. What `socket.accept` calls."""
    found: tuple[int, Any] = sock._accept()
    return found
