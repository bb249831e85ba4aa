"""Reads the PROXY header of a connection from a trusted load balancer, before TLS and HTTP.

`proxy.worker.handover` gives it the connections to a listener with `proxy_protocol`. The
header is read from the socket byte by byte as far as it goes, so that what follows it is left for
the protocol of the connection. Connections from other networks have no header, and go on as they
are; one from there is a request that is not valid.
"""

import socket
from typing import Final

import msgspec

from proxy.transport.proxy_header import (
    MAX_V1,
    NO_ADDRESS,
    BadProxyHeader,
    ProxiedAddress,
    count_own,
    is_complete,
    parse_header,
)
from proxy.worker.early_reader import EarlyReader

HEADER_SECONDS: Final = 5.0
"""Seconds for the header: load balancers send it at once, and a lost packet is sent again after 1 s
and 3 s."""
_LOOK: Final = MAX_V1
"""Bytes looked at in one step. A header that is longer takes several."""
REASON: Final = "proxy-header"
"""The reason under which connections without a valid header are counted."""


class ProxyHeaderReader(EarlyReader):
    """Reads the PROXY header of a connection from a network from which one is required."""

    _header = b""

    def seconds(self) -> float:
        return HEADER_SECONDS

    def read(self, sock: socket.SocketType) -> None:
        """Read what has arrived of the header, and no byte behind it."""
        try:
            while True:
                following = sock.recv(_LOOK, socket.MSG_PEEK)
                if not following:
                    self._refuse("the connection ended before it" if self._header else "")
                    return
                self._header += sock.recv(count_own(self._header, following))
                if is_complete(self._header):
                    self._continue(parse_header(self._header))
                    return
        except BadProxyHeader as bad:
            self._refuse(str(bad))

    def expired(self) -> None:
        self._refuse("none arrived in time")

    def _continue(self, client: ProxiedAddress) -> None:
        """Let what serves the connection read what follows."""
        listener = self.listener
        if client != NO_ADDRESS:
            listener = msgspec.structs.replace(listener, client=(client.host, client.port))
        self.proceed(listener)

    def _refuse(self, why: str) -> None:
        """Close the connection. Count and log it, unless the client just went away."""
        self.refuse(REASON if why else "")
        if why:
            self.plane.report_bad_header(self.listener, self.peer, why)
