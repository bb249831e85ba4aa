"""Reads which host the client of a TLS connection asks for, where connections that are passed on
as they are lead to different services by host.

`proxy.worker.handover` gives it the connections to a listener with `server_names`. The
bytes are only looked at: they stay in the socket, so that the service gets all of them, and the
proxy holds none.
"""

import contextlib
import socket
from collections.abc import Mapping
from typing import Final

import msgspec

from proxy.request import failure
from proxy.request.data_plane import DataPlane
from proxy.tls.client_hello import MAX_BYTES, MAX_RECORDS, BadHello, parse_client_hello
from proxy.wire.snapshot import Listener
from proxy.worker.early_reader import EarlyReader, Serve

HELLO_SECONDS: Final = 5.0
"""Seconds for the ClientHello: clients send it at once, and a lost packet is sent again after 1 s
and 3 s."""
REASON: Final = "client-hello"
"""The reason under which connections without a valid ClientHello are counted."""
_LOOK: Final = MAX_BYTES + MAX_RECORDS * 5
"""Bytes looked at: the longest ClientHello with the headers of its records."""
_PAUSE: Final = 0.1
"""Seconds between two looks at a connection that has ended, or whose socket does not say when more
has arrived, as that of a Unix socket."""
_MAX_NAME: Final = 255
"""Bytes of the longest name in DNS (RFC 1035, section 2.3.4)."""


class ClientHelloReader(EarlyReader):
    """Waits for the ClientHello of a connection. `services` are the names of
    services by server name, exact or `*.suffix`; other clients get the listener's own service, if
    it has one."""

    def __init__(
        self,
        plane: DataPlane,
        listener: Listener,
        sock: socket.SocketType,
        peer: str,
        serve: Serve,
        services: Mapping[str, str],
    ) -> None:
        super().__init__(plane, listener, sock, peer, serve)
        self._services = services
        self._seen = 0

    def seconds(self) -> float:
        return HELLO_SECONDS

    def read(self, sock: socket.SocketType) -> None:
        """Look at what has arrived, and decide once it is enough."""
        data = sock.recv(_LOOK, socket.MSG_PEEK)
        try:
            hello = parse_client_hello(data)
        except BadHello:
            self.refuse(REASON if data else "")
            return
        if hello is not None:
            _wake_at(sock, 1)
            self._continue(hello.server_name)
        elif not data:
            self.refuse("")
        elif len(data) > self._seen:
            self._seen = len(data)
            # Else the socket would be readable all the time, as nothing is taken from it.
            _wake_at(sock, len(data) + 1)
        else:
            self.pause(_PAUSE)

    def expired(self) -> None:
        self.refuse(REASON)

    def _continue(self, server_name: str) -> None:
        service = find_service(self._services, server_name) or self.listener.service
        if service:
            self.proceed(msgspec.structs.replace(self.listener, service=service))
        else:
            self.refuse(failure.NO_SERVICE.reason)


def find_service(services: Mapping[str, str], server_name: str) -> str | None:
    """Return the service of a server name: that of the exact name, else of the longest `*.suffix`;
    None if no name fits."""
    if len(server_name) > _MAX_NAME:
        return None
    found = services.get(server_name)
    rest = server_name
    while found is None and "." in rest:
        rest = rest.partition(".")[2]
        found = services.get(f"*.{rest}")
    return found


def _wake_at(sock: socket.SocketType, count: int) -> None:
    """Let a socket count as readable once this number of bytes has arrived."""
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, count)
