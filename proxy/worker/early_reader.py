"""The base of readers that look at the first bytes of a connection before its protocol does.

`proxy_header_reader` and `client_hello_reader` extend it. They work on the accepted socket, so that
a reader decides what it reads, and what is left for the protocol that follows.
"""

import asyncio
import socket
from abc import ABC, abstractmethod
from collections.abc import Callable

from proxy.request.data_plane import DataPlane
from proxy.transport.connect import reset_on_close
from proxy.wire.snapshot import Listener

Serve = Callable[[Listener, socket.SocketType, str], None]
"""Serves a connection of a listener: its socket, and the address of the other end; empty for a Unix
socket."""


class EarlyReader(ABC):
    """Reads from a connection until its first bytes are known, then passes it to `serve`.

    - `plane`, `listener`: the data plane, and the listener of the connection.
    - `peer`: the address of the other end; empty for a Unix socket.
    """

    def __init__(
        self,
        plane: DataPlane,
        listener: Listener,
        sock: socket.SocketType,
        peer: str,
        serve: Serve,
    ) -> None:
        self.plane = plane
        self.listener = listener
        self.peer = peer
        self._serve = serve
        self._socket: socket.SocketType | None = sock
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Read what has arrived, and whatever arrives later, for a limited time."""
        self._timer = self.plane.loop.call_later(self.seconds(), self._expire)
        self.plane.count_opening(1)
        self.watch()

    @abstractmethod
    def seconds(self) -> float:
        """Return the seconds that the client has for it."""

    @abstractmethod
    def read(self, sock: socket.SocketType) -> None:
        """Read what has arrived, then wait for more, or call `proceed` or `refuse`. May raise
        OSError."""

    @abstractmethod
    def expired(self) -> None:
        """Call `refuse`: the client took too long."""

    def watch(self) -> None:
        """Read what has arrived, and whatever arrives later."""
        sock = self._socket
        if sock is not None:
            self.plane.loop.add_reader(sock.fileno(), self._readable)
            self._readable()

    def pause(self, seconds: float) -> None:
        """Read again after some seconds, whatever arrives meanwhile."""
        if self._socket is not None:
            self.plane.loop.remove_reader(self._socket.fileno())
            self.plane.loop.call_later(seconds, self.watch)

    def proceed(self, listener: Listener) -> None:
        """Let what serves the connection read what follows."""
        self._serve(listener, self._release(), self.peer)

    def refuse(self, reason: str) -> None:
        """Reset the connection, and count it under `reason`; if that is empty, the client just
        went away, as health checks of load balancers do."""
        sock = self._release()
        if reason:
            self.plane.count_refused(reason)
            reset_on_close(sock)
        sock.close()

    def _readable(self) -> None:
        sock = self._socket
        if sock is None:
            return
        try:
            self.read(sock)
        except BlockingIOError:
            return
        except OSError:
            self.refuse("")

    def _expire(self) -> None:
        if self._socket is not None:
            self.expired()

    def _release(self) -> socket.SocketType:
        sock = self._socket
        assert sock is not None
        self.plane.loop.remove_reader(sock.fileno())
        self.plane.count_opening(-1)
        self._socket = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        return sock
