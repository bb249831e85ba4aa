"""The HTTP/2 connections of one worker to one endpoint.

`DataPlane` creates a pool for each endpoint that speaks HTTP/2; `Exchange` opens streams on it. A
further connection is opened when all have as many streams as the endpoint allows.
"""

from typing import TYPE_CHECKING, Final

from proxy.http2_upstream.connection import MOST_STREAMS, Http2UpstreamConnection
from proxy.request.sinks import StreamPool
from proxy.request.upstream import Upstream
from proxy.state.endpoint_state import EndpointState
from proxy.transport.upstream_tls import TlsEndpoint

if TYPE_CHECKING:
    from proxy.request.data_plane import DataPlane
    from proxy.request.sinks import ResponseSink

_NEVER: Final = float("inf")


class Http2Pool(StreamPool):
    """The connections to one endpoint.

    - `plane`, `endpoint`: the data plane, and the endpoint.
    - `tls`: how connections are encrypted; None for connections in the clear.
    - `is_optional`: whether HTTP/1.1 is used if the endpoint does not choose HTTP/2 by ALPN.
    - `most_streams`: streams that a connection may have, by the last SETTINGS of the endpoint.
    """

    def __init__(
        self,
        plane: "DataPlane",
        endpoint: EndpointState,
        tls: TlsEndpoint | None,
        *,
        is_optional: bool,
    ) -> None:
        self.plane = plane
        self.endpoint = endpoint
        self.tls = tls
        self.is_optional = is_optional
        self.most_streams = MOST_STREAMS
        self._connections: list[Http2UpstreamConnection] = []
        self._speaks_http1 = False

    def open(self, sink: "ResponseSink") -> Upstream:
        if self._speaks_http1:
            return self.plane.connect(self.endpoint, sink)
        for connection in self._connections:
            if connection.has_room():
                return connection.begin(sink)
        connection = Http2UpstreamConnection(self)
        self._connections.append(connection)
        connection.open()
        return connection.begin(sink)

    def has_room(self) -> bool:
        return any(connection.has_room() for connection in self._connections)

    def forget(self, connection: Http2UpstreamConnection) -> None:
        """Note that a connection has ended."""
        if connection in self._connections:
            self._connections.remove(connection)

    def http1_chosen(self) -> None:
        """Note that the endpoint chose HTTP/1.1."""
        self._speaks_http1 = True

    def close_idle(self, now: float) -> None:
        for connection in tuple(self._connections):
            connection.close_idle(now, for_good=now == _NEVER)

    def close(self) -> None:
        for connection in tuple(self._connections):
            connection.abort()


def create_pool(plane: "DataPlane", endpoint: EndpointState) -> StreamPool:
    """Return the pool of an endpoint that speaks HTTP/2."""
    return Http2Pool(
        plane, endpoint, endpoint.http2_tls, is_optional=endpoint.http_version == "auto"
    )
