"""The interface to connections that carry several requests at once.

`EndpointState.streams` has a `StreamPool` if the endpoint speaks HTTP/2; `Exchange` and `Hedge`
open a stream on it for each attempt. `proxy.http2_upstream.pool` implements it.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from proxy.request.sinks import ResponseSink
    from proxy.request.upstream import Upstream


class StreamPool:
    """The connections to one endpoint."""

    def open(self, sink: "ResponseSink") -> "Upstream":
        """Open a stream, which reports to `sink`. If its connection is not open yet,
        `ResponseSink.connected` or `connect_failed` follows; else `Upstream.requests` is positive
        and the request can be sent at once."""
        raise NotImplementedError

    def has_room(self) -> bool:
        """Return whether one more stream needs no new connection."""
        raise NotImplementedError

    def close_idle(self, now: float) -> None:
        """Close connections that had no stream for too long at `now`. At infinity, close all of
        them once their streams have ended, and open none on them."""

    def close(self) -> None:
        """Close all connections at once."""
