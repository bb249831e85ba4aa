"""Reads the PROXY header of a connection from a trusted load balancer, before TLS and HTTP.

`proxy.worker.handover` puts it in front of the protocols of a listener with `proxy_protocol`. The
header is read from the socket byte by byte as far as it goes, so that what follows it is left for
the protocol of the connection. Connections from other networks have no header, and go on as they
are; one from there is a request that is not valid.
"""

import asyncio
import os
import socket
from collections.abc import Callable
from typing import Final, cast

import msgspec

from proxy.request import half_close
from proxy.request.data_plane import DataPlane
from proxy.state.trusted_networks import TrustedNetworks
from proxy.transport.proxy_header import (
    MAX_V1,
    NO_ADDRESS,
    BadProxyHeader,
    ProxiedAddress,
    count_own,
    is_complete,
    parse_header,
)
from proxy.wire.snapshot import Listener

HEADER_SECONDS: Final = 5.0
"""Seconds for the header: load balancers send it at once, and a lost packet is sent again after 1 s
and 3 s."""
_LOOK: Final = MAX_V1
"""Bytes looked at in one step. A header that is longer takes several."""
REASON: Final = "proxy-header"
"""The reason under which connections without a valid header are counted."""

ProtocolOf = Callable[[Listener], asyncio.Protocol]
"""Creates the protocol of one connection to a listener."""


class ProxyHeaderReader(asyncio.Protocol):
    """The protocol of a connection until its PROXY header is read. `trusted` are the networks from
    which one is required; `protocol_of` creates the protocol that continues."""

    def __init__(
        self,
        plane: DataPlane,
        listener: Listener,
        trusted: TrustedNetworks,
        protocol_of: ProtocolOf,
    ) -> None:
        self._plane = plane
        self._listener = listener
        self._trusted = trusted
        self._protocol_of = protocol_of
        self._header = b""
        self._socket: socket.socket | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._peer = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the socket from the transport before a byte is read, or hand the connection on."""
        transport = cast("asyncio.Transport", transport)
        peer = transport.get_extra_info("peername")
        self._peer = peer[0].removeprefix("::ffff:") if isinstance(peer, tuple) else ""
        if not self._trusted.has_peer(self._peer, self._listener.address):
            protocol = self._protocol_of(self._listener)
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
        loop = self._plane.loop
        self._socket = taken
        self._timer = loop.call_later(HEADER_SECONDS, self._refuse, "none arrived in time")
        loop.add_reader(taken.fileno(), self._read)
        self._read()

    def _read(self) -> None:
        """Read what has arrived of the header, and no byte behind it."""
        sock = self._socket
        assert sock is not None
        try:
            while True:
                following = sock.recv(_LOOK, socket.MSG_PEEK)
                if not following:
                    self._refuse("the connection ended before it" if self._header else "")
                    return
                self._header += sock.recv(count_own(self._header, following))
                if is_complete(self._header):
                    self._continue(sock, parse_header(self._header))
                    return
        except BlockingIOError:
            return
        except BadProxyHeader as bad:
            self._refuse(str(bad))
        except OSError:
            self._refuse("")

    def _continue(self, sock: socket.socket, client: ProxiedAddress) -> None:
        """Let the protocol of the connection read what follows."""
        self._release(sock)
        listener = self._listener
        if client != NO_ADDRESS:
            listener = msgspec.structs.replace(listener, client=(client.host, client.port))
        loop = self._plane.loop
        task = loop.create_task(
            loop.connect_accepted_socket(lambda: self._protocol_of(listener), sock)
        )
        task.add_done_callback(_ignore_outcome)

    def _refuse(self, why: str) -> None:
        """Close the connection. Count and log it, unless the client just went away, as health
        checks of load balancers do."""
        sock = self._socket
        assert sock is not None
        self._release(sock)
        if why:
            self._plane.count_refused(REASON)
            self._plane.report_bad_header(self._listener, self._peer, why)
            half_close.reset_on_close(sock)
        sock.close()

    def _release(self, sock: socket.socket) -> None:
        self._plane.loop.remove_reader(sock.fileno())
        self._socket = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _ignore_outcome(task: "asyncio.Task[object]") -> None:
    """Take the error of a client that has gone meanwhile."""
    if not task.cancelled():
        task.exception()
