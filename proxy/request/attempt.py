"""One attempt to get a response: an endpoint, a connection to it, and when the request was sent.

Base class of `Exchange`, which makes one attempt at a time, and of `Hedge`, which is a second
attempt next to it. An exchange is its own attempt, and not the owner of one, because one more
object for each request costs more than the fast path may.
"""

from typing import TYPE_CHECKING

from proxy.request import connection_pool
from proxy.request.sinks import ResponseSink

if TYPE_CHECKING:
    from proxy.request.data_plane import DataPlane
    from proxy.request.upstream import Upstream
    from proxy.state.endpoint_state import EndpointState


class Attempt(ResponseSink):
    """One attempt.

    - `endpoint`: the picked endpoint; None before and after the attempt.
    - `upstream`: the connection to it, or None.
    - `reused`: whether the connection carried a request before.
    - `load`: requests in flight at the endpoint before this one.
    - `sent_at`: monotonic seconds at which the attempt began.
    - `connect_seconds`: seconds that opening the connection took; 0.0 for a reused one.
    """

    plane: "DataPlane"
    endpoint: "EndpointState | None" = None
    upstream: "Upstream | None" = None
    reused = False
    load = 0
    sent_at = 0.0
    connect_seconds = 0.0

    def begin_attempt(self, endpoint: "EndpointState", now: float) -> None:
        """Begin an attempt at an endpoint, and count it there."""
        self.load = endpoint.in_flight
        endpoint.start(now)
        self.endpoint = endpoint
        self.sent_at = now

    def end_attempt(self, now: float) -> None:
        """End the attempt, whatever its outcome. A connection that it still has is closed."""
        upstream, endpoint = self.upstream, self.endpoint
        self.upstream = self.endpoint = None
        connection_pool.end_attempt(self.plane, endpoint, upstream, now)

    def take_over(self, other: "Attempt") -> None:
        """Continue the attempt of `other`, which has none afterwards. An own attempt must have
        ended before."""
        self.endpoint, self.upstream = other.endpoint, other.upstream
        self.reused, self.load = other.reused, other.load
        self.sent_at, self.connect_seconds = other.sent_at, other.connect_seconds
        other.endpoint = other.upstream = None
        if self.upstream is not None:
            self.upstream.report_to(self)
