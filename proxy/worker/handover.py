"""Decides what serves an accepted connection: HTTP, or TCP that is passed on as it is.

`Acceptor` gets its protocol factories here. At listeners of the kinds `virtual` and `published` the
service is known from the connection itself, before the first byte: the connection is handed to
`proxy.request` if the service speaks HTTP, else to the TCP side. A connection that leads nowhere,
or to a TCP service that the caller may not use, is reset. At a virtual address a caller that an
`allow` list refuses only because no snapshot names it yet waits for one (`newcomers`).
"""

import asyncio
import functools
import socket
import struct
from collections.abc import Callable
from typing import Final, cast

import msgspec

from proxy.ipc.address import Address
from proxy.request import failure, half_close, resolve
from proxy.request.data_plane import DataPlane
from proxy.state.service_state import ServiceState
from proxy.state.trusted_networks import TrustedNetworks
from proxy.wire.snapshot import Listener
from proxy.worker.client_hello_reader import ClientHelloReader
from proxy.worker.early_reader import ProtocolOf
from proxy.worker.newcomers import Newcomers
from proxy.worker.proxy_header_reader import ProxyHeaderReader

_SO_ORIGINAL_DST: Final = 80
"""Socket option with the address before redirection (linux/netfilter_ipv4.h)."""
_SOCKADDR_IN: Final = struct.Struct("!HH4s8x")
"""Family, port and IPv4 address (struct sockaddr_in)."""
_BY_CONNECTION: Final = frozenset(("virtual", "published"))
"""Listener kinds at which the connection itself names the service."""

TcpFactory = Callable[[DataPlane, Listener, ServiceState, str], asyncio.Protocol]
"""Creates the protocol of a TCP connection: for a listener, the called service, and the caller's
name in counts."""
TlsFactory = Callable[[Listener], ProtocolOf]
"""Returns a function that creates the protocol of a connection to a listener with TLS."""


def protocol_factory(
    plane: DataPlane,
    listener: Listener,
    tcp: TcpFactory | None = None,
    newcomers: Newcomers | None = None,
    tls: TlsFactory | None = None,
) -> Callable[[], asyncio.Protocol]:
    """Return the protocol factory for the sockets of `listener`. Without `tcp`, connections to TCP
    services are reset; without `newcomers`, unknown callers are refused at once. `tls` is needed
    for listeners with TLS."""
    if listener.tls is not None:
        assert tls is not None
        create = tls(listener)
    elif listener.kind in _BY_CONNECTION:
        create = functools.partial(_create_handover, plane, tcp, newcomers)
        if listener.server_names:
            create = functools.partial(
                _create_hello_reader, plane, dict(listener.server_names), create
            )
    elif listener.proxy_protocol:
        create = lambda each: plane.protocol_factory(each)()  # noqa: E731
    else:
        return plane.protocol_factory(listener)
    if not listener.proxy_protocol:
        return functools.partial(create, listener)
    trusted = TrustedNetworks(listener.proxy_protocol)
    plain = msgspec.structs.replace(listener, proxy_protocol=())
    return lambda: ProxyHeaderReader(plane, plain, trusted, create)


def _create_handover(
    plane: DataPlane, tcp: TcpFactory | None, newcomers: Newcomers | None, listener: Listener
) -> asyncio.Protocol:
    return Handover(plane, listener, tcp, newcomers)


def _create_hello_reader(
    plane: DataPlane, services: dict[str, str], create: ProtocolOf, listener: Listener
) -> asyncio.Protocol:
    return ClientHelloReader(plane, listener, services, create)


class Handover(asyncio.Protocol):
    """The protocol of a connection until the service is known, which is when it is made."""

    def __init__(
        self,
        plane: DataPlane,
        listener: Listener,
        tcp: TcpFactory | None,
        newcomers: Newcomers | None = None,
    ) -> None:
        self._plane = plane
        self._listener = listener
        self._tcp = tcp
        self._newcomers = newcomers

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Hand the connection to the protocol of its service."""
        transport = cast("asyncio.Transport", transport)
        listener = self._listener
        if listener.kind == "virtual":
            original = original_destination(transport.get_extra_info("socket"))
            listener = msgspec.structs.replace(listener, address=original)
        plane = self._plane
        service = plane.routing.find_called(listener, "", "")
        if service is None:
            plane.count_refused(failure.NO_SERVICE.reason)
            _reset(transport)
            return
        if service.config.allow is not None and self._holds(transport, listener):
            return
        protocol = plane.protocol_factory(listener)()
        if service.config.protocol == "tcp":
            accepted = self._accept_tcp(transport, listener, service)
            if accepted is None:
                _reset(transport)
                return
            protocol = accepted
        transport.set_protocol(protocol)
        protocol.connection_made(transport)

    def _holds(self, transport: asyncio.Transport, listener: Listener) -> bool:
        """Whether the connection waits for a snapshot that names its caller."""
        newcomers, plane, address = self._newcomers, self._plane, _peer_address(transport)
        if newcomers is None or listener.kind != "virtual" or plane.routing.is_known(address):
            return False
        _, caller = plane.routing.identify_caller(listener, address)
        # The original listener has the host's own address in the network.
        if caller or not plane.routing.is_inside(self._listener, address):
            return False
        return newcomers.hold(
            transport,
            lambda: plane.routing.is_known(address),
            lambda: Handover(plane, self._listener, self._tcp),
        )

    def _accept_tcp(
        self, transport: asyncio.Transport, listener: Listener, service: ServiceState
    ) -> asyncio.Protocol | None:
        """Return the protocol for a TCP connection; None, with the refusal counted, if the caller
        may not use the service."""
        address = listener.client[0] or _peer_address(transport)
        routing = self._plane.routing
        _, caller = routing.identify_caller(listener, address)
        name = caller or resolve.unknown_caller(listener)
        if not resolve.is_allowed(routing, service, listener, caller, address):
            service.counters.count_uncovered(name)
            if not service.config.audit:
                service.counters.denied += 1
                return None
        return self._tcp and self._tcp(self._plane, listener, service, name)


def original_destination(sock: socket.socket) -> str:
    """Return the address as `HOST:PORT` that a redirected connection was made to; the address of
    the socket itself if it was not redirected, or cannot be."""
    try:
        raw = sock.getsockopt(socket.SOL_IP, _SO_ORIGINAL_DST, _SOCKADDR_IN.size)
        _, port, packed = _SOCKADDR_IN.unpack(raw)
        return str(Address(socket.inet_ntoa(packed), port))
    except OSError:
        host, port = sock.getsockname()[:2]
        return str(Address(host, port))


def _peer_address(transport: asyncio.Transport) -> str:
    peer = transport.get_extra_info("peername")
    return peer[0].removeprefix("::ffff:") if isinstance(peer, tuple) else ""


def _reset(transport: asyncio.Transport) -> None:
    """End a connection so that the client sees that it was refused."""
    half_close.end_by_reset(transport)
    transport.abort()
