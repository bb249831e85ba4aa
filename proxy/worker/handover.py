"""Decides what serves an accepted connection: HTTP, or TCP that is passed on as it is.

`Acceptor` asks the `Handover` of the worker what serves a listener. At most listeners each
connection gets the same protocol, and the event loop accepts. At listeners of the kinds `virtual`
and `published` the service is known from the connection itself, before the first byte: the socket
is handed to the TCP side, or is attached to the event loop with a protocol of `proxy.request` if
the service speaks HTTP. That costs more than a connection that the event loop has accepted, so that
it accepts where no service was a TCP service when the listener was opened. A connection that leads
nowhere, or to a TCP service that the caller may not use, is reset. At a virtual address a caller
that an `allow` list refuses only because no snapshot names it yet waits for one (`newcomers`).
Sockets with first bytes to look at are given to `proxy_header_reader` and `client_hello_reader`
before that.
"""

import asyncio
import functools
import os
import socket
import struct
from collections.abc import Callable, Mapping
from typing import Final, cast

import msgspec

from proxy.ipc.address import Address
from proxy.request import failure, resolve
from proxy.request.data_plane import DataPlane
from proxy.state.service_state import ServiceState
from proxy.state.trusted_networks import TrustedNetworks
from proxy.transport.connect import reset_on_close
from proxy.wire.snapshot import Listener
from proxy.worker.accept_loop import Take
from proxy.worker.attachments import Attachments, ProtocolFactory
from proxy.worker.client_hello_reader import ClientHelloReader
from proxy.worker.early_reader import Serve
from proxy.worker.newcomers import Newcomers
from proxy.worker.proxy_header_reader import ProxyHeaderReader
from proxy.worker.tls_listeners import TlsListeners

_SO_ORIGINAL_DST: Final = 80
"""Socket option with the address before redirection (linux/netfilter_ipv4.h)."""
_SOCKADDR_IN: Final = struct.Struct("!HH4s8x")
"""Family, port and IPv4 address (struct sockaddr_in)."""
_BY_CONNECTION: Final = frozenset(("virtual", "published"))
"""Listener kinds at which the connection itself names the service."""

StartTcp = Callable[[DataPlane, Listener, ServiceState, str, socket.SocketType, str], None]
"""Passes a TCP connection on: of a listener, to the called service, with the caller's name in
counts, its socket, and the address of the other end."""


class Handover:
    """What serves the connections of one worker. Without `start_tcp`, connections to TCP services
    are reset; without `newcomers`, unknown callers are refused at once. `tls` is needed for
    listeners with TLS."""

    def __init__(
        self,
        plane: DataPlane,
        attachments: Attachments,
        start_tcp: StartTcp | None = None,
        newcomers: Newcomers | None = None,
        tls: TlsListeners | None = None,
    ) -> None:
        self._plane = plane
        self._attachments = attachments
        self._start_tcp = start_tcp
        self._newcomers = newcomers
        self._tls = tls

    def protocol_factory(self, listener: Listener) -> ProtocolFactory | None:
        """Return the protocol factory of a listener, whose connections the event loop accepts; None
        if they are looked at first, and go to `taker`."""
        if listener.proxy_protocol:
            return None
        if listener.tls is not None:
            assert self._tls is not None
            return functools.partial(self._tls.protocol_factory(listener), listener)
        if listener.kind not in _BY_CONNECTION:
            return self._plane.protocol_factory(listener)
        if listener.server_names or self._leads_to_tcp(listener):
            return None
        return lambda: cast("asyncio.Protocol", AcceptedConnection(self, listener))

    def _leads_to_tcp(self, listener: Listener) -> bool:
        """Return whether connections may be to a TCP service, as far as is known."""
        plane = self._plane
        if listener.kind == "virtual":
            return any(each.config.protocol == "tcp" for each in plane.services.values())
        service = plane.routing.find_called(listener, "", "")
        return service is not None and service.config.protocol == "tcp"

    def protocol_at_once(
        self, listener: Listener, transport: asyncio.Transport, peer: str
    ) -> asyncio.Protocol | None:
        """Return the protocol of a connection that the event loop has accepted, if it needs nothing
        but that."""
        plane = self._plane
        if listener.kind == "virtual":
            original = original_destination(transport.get_extra_info("socket"))
            listener = msgspec.structs.replace(listener, address=original)
        service = plane.routing.find_called(listener, "", "")
        if service is None or service.config.protocol == "tcp":
            return None
        if service.config.allow is not None and not plane.routing.is_known(peer):
            return None
        return plane.protocol_factory(listener)()

    def take(self, listener: Listener, sock: socket.SocketType, peer: str) -> None:
        """Serve a connection whose service may be any."""
        self._route(listener, sock, peer)

    def taker(self, listener: Listener) -> Take:
        """Return the function that takes the accepted sockets of a listener."""
        serve = self._server_of(listener)
        if not listener.proxy_protocol:
            return functools.partial(serve, listener)
        trusted = TrustedNetworks(listener.proxy_protocol)
        plain = msgspec.structs.replace(listener, proxy_protocol=())
        return functools.partial(self._read_header, trusted, serve, plain)

    def _server_of(self, listener: Listener) -> Serve:
        """Return what serves a connection whose PROXY header is read."""
        attach = self._attachments.attach
        if listener.tls is not None:
            assert self._tls is not None
            create = self._tls.protocol_factory(listener)
            return lambda each, sock, _: attach(lambda: create(each), sock)
        if listener.kind not in _BY_CONNECTION:
            factory_of = self._plane.protocol_factory
            return lambda each, sock, _: attach(factory_of(each), sock)
        if listener.server_names:
            return functools.partial(self._read_hello, dict(listener.server_names))
        return self._route

    def _read_header(
        self,
        trusted: TrustedNetworks,
        serve: Serve,
        listener: Listener,
        sock: socket.SocketType,
        peer: str,
    ) -> None:
        if trusted.has_peer(peer, listener.address):
            ProxyHeaderReader(self._plane, listener, sock, peer, serve).start()
        else:
            serve(listener, sock, peer)

    def _read_hello(
        self, services: Mapping[str, str], listener: Listener, sock: socket.SocketType, peer: str
    ) -> None:
        ClientHelloReader(self._plane, listener, sock, peer, self._route, services).start()

    def _route(
        self, listener: Listener, sock: socket.SocketType, peer: str, *, may_wait: bool = True
    ) -> None:
        """Hand a connection to what serves its service. `may_wait`: it may wait for a snapshot that
        names its caller."""
        given = listener
        if listener.kind == "virtual":
            try:
                original = original_destination(sock)
            except OSError:
                sock.close()  # the client has gone
                return
            listener = msgspec.structs.replace(listener, address=original)
        plane = self._plane
        service = plane.routing.find_called(listener, "", "")
        if service is None:
            plane.count_refused(failure.NO_SERVICE.reason)
            _reset(sock)
            return
        if (
            may_wait
            and service.config.allow is not None
            and self._holds(given, listener, sock, peer)
        ):
            return
        if service.config.protocol != "tcp":
            self._attachments.attach(plane.protocol_factory(listener), sock)
            return
        caller = self._name_tcp_caller(listener, service, peer)
        if caller is None or self._start_tcp is None:
            _reset(sock)
        else:
            self._start_tcp(plane, listener, service, caller, sock, peer)

    def _holds(self, given: Listener, called: Listener, sock: socket.SocketType, peer: str) -> bool:
        """Return whether the connection waits for a snapshot that names its caller. `given` is the
        listener as it was configured, `called` has the address that the connection was made to."""
        newcomers, routing = self._newcomers, self._plane.routing
        if newcomers is None or given.kind != "virtual" or routing.is_known(peer):
            return False
        _, caller = routing.identify_caller(called, peer)
        # The configured listener has the host's own address in the network.
        if caller or not routing.is_inside(given, peer):
            return False
        return newcomers.hold(
            lambda: self._plane.routing.is_known(peer),
            lambda: self._route(given, sock, peer, may_wait=False),
        )

    def _name_tcp_caller(self, listener: Listener, service: ServiceState, peer: str) -> str | None:
        """Return the caller's name in counts; None, with the refusal counted, if it may not use the
        service."""
        address = listener.client[0] or peer
        routing = self._plane.routing
        _, caller = routing.identify_caller(listener, address)
        name = caller or resolve.unknown_caller(listener)
        if not resolve.is_allowed(routing, service, listener, caller, address):
            service.counters.count_uncovered(name)
            if not service.config.audit:
                service.counters.denied += 1
                return None
        return name


class AcceptedConnection:
    """The protocol of a connection that the event loop has accepted, until its service is known,
    which is when it is made. It has the methods of an `asyncio.Protocol` that are called then."""

    def __init__(self, handover: Handover, listener: Listener) -> None:
        self._handover = handover
        self._listener = listener

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Continue with the protocol of the service, or take the socket from the transport."""
        transport = cast("asyncio.Transport", transport)
        handover, listener = self._handover, self._listener
        address = transport.get_extra_info("peername")
        peer = address[0].removeprefix("::ffff:") if isinstance(address, tuple) else ""
        try:
            protocol = handover.protocol_at_once(listener, transport, peer)
            if protocol is not None:
                transport.set_protocol(protocol)
                protocol.connection_made(transport)
                return
            number = transport.get_extra_info("socket").fileno()
            sock = socket.SocketType(fileno=os.dup(number))
        except OSError:
            transport.abort()  # no descriptor is left, or the client has gone already
            return
        sock.setblocking(False)
        # This closes the transport's own descriptor only: the connection has another one now.
        transport.abort()
        handover.take(listener, sock, peer)

    def connection_lost(self, exc: Exception | None) -> None:
        """Do nothing: the connection has another owner."""

    def eof_received(self) -> bool:
        """Do nothing, see `connection_lost`."""
        return False

    def data_received(self, data: bytes) -> None:
        """Do nothing, see `connection_lost`."""

    def pause_writing(self) -> None:
        """Do nothing, see `connection_lost`."""

    def resume_writing(self) -> None:
        """Do nothing, see `connection_lost`."""


def original_destination(sock: socket.SocketType) -> str:
    """Return the address as `HOST:PORT` that a redirected connection was made to; the address of
    the socket itself if it was not redirected, or cannot be. Raises OSError."""
    try:
        raw = sock.getsockopt(socket.SOL_IP, _SO_ORIGINAL_DST, _SOCKADDR_IN.size)
        _, port, packed = _SOCKADDR_IN.unpack(raw)
        return str(Address(socket.inet_ntoa(packed), port))
    except OSError:
        host, port = sock.getsockname()[:2]
        return str(Address(host, port))


def _reset(sock: socket.SocketType) -> None:
    """End a connection so that the client sees that it was refused."""
    reset_on_close(sock)
    sock.close()
