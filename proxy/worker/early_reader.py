"""The base of protocols that look at the first bytes of a connection before its own protocol does.

`proxy_header_reader` and `client_hello_reader` extend it. The socket is taken from the transport
before a byte is read, so that a reader decides what it reads, and what is left for the protocol
that follows.
"""

import asyncio
import os
import socket
from abc import abstractmethod
from collections.abc import Callable
from typing import cast

from proxy.request.data_plane import DataPlane
from proxy.transport.connect import reset_on_close
from proxy.wire.snapshot import Listener

ProtocolOf = Callable[[Listener], asyncio.Protocol]
"""Creates the protocol of one connection to a listener."""


class EarlyReader(asyncio.Protocol):
    """The protocol of a connection until its first bytes are known.

    - `plane`, `listener`: the data plane, and the listener of the connection.
    - `peer`: the address of the other end; empty for a Unix socket.
    """

    def __init__(self, plane: DataPlane, listener: Listener, protocol_of: ProtocolOf) -> None:
        self.plane = plane
        self.listener = listener
        self.peer = ""
        self._protocol_of = protocol_of
        self._socket: socket.socket | None = None
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the socket from the transport before a byte is read, or hand the connection on."""
        transport = cast("asyncio.Transport", transport)
        peer = transport.get_extra_info("peername")
        self.peer = peer[0].removeprefix("::ffff:") if isinstance(peer, tuple) else ""
        if not self.is_needed():
            protocol = self._protocol_of(self.listener)
            transport.set_protocol(protocol)
            protocol.connection_made(transport)
            return
        try:
            taken = socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno()))
            taken.setblocking(False)
        except OSError:
            transport.abort()  # no descriptor is left, or the client has gone already
            return
        transport.abort()
        loop = self.plane.loop
        self._socket = taken
        self._timer = loop.call_later(self.seconds(), self._expire)
        self.watch()

    def is_needed(self) -> bool:
        """Return whether this connection has something to read."""
        return True

    @abstractmethod
    def seconds(self) -> float:
        """Return the seconds that the client has for it."""

    @abstractmethod
    def read(self, sock: socket.socket) -> None:
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
        """Let the protocol of the connection read what follows."""
        sock = self._release()
        loop = self.plane.loop
        task = loop.create_task(
            loop.connect_accepted_socket(lambda: self._protocol_of(listener), sock)
        )
        task.add_done_callback(_ignore_outcome)

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

    def _release(self) -> socket.socket:
        sock = self._socket
        assert sock is not None
        self.plane.loop.remove_reader(sock.fileno())
        self._socket = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        return sock


def _ignore_outcome(task: "asyncio.Task[object]") -> None:
    """Take the error of a client that has gone meanwhile."""
    if not task.cancelled():
        task.exception()
