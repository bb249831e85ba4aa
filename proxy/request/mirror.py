"""Copies of requests to another service, whose responses are discarded.

`Exchange.start` asks for a copy through `DataPlane.mirror`. A copy is an exchange like any other,
whose client takes everything and does nothing. Only requests that are complete when they arrive
are copied, and only a bounded number at a time, so that a mirror never delays the request that it
copies.
"""

from typing import TYPE_CHECKING, Final

from proxy.http1.request import RequestHead
from proxy.request.exchange import Exchange
from proxy.request.failure import Failure
from proxy.request.sinks import NEVER, ClientSink

if TYPE_CHECKING:
    from proxy.request.data_plane import DataPlane
    from proxy.state.service_state import ServiceState

MAX_IN_FLIGHT: Final = 100
"""Copies in flight in one worker; more are dropped."""


class DiscardClient(ClientSink):
    """The client of a copy. The data plane holds it with its clients, so that deadlines apply."""

    __slots__ = ("_original", "_plane")

    def __init__(self, plane: "DataPlane", original: ClientSink) -> None:
        super().__init__(original.listener, original.peer, original.address, original.tls)
        self.source = original.source
        self._plane = plane
        self._original = original

    def run(self, exchange: Exchange) -> None:
        """Send the copied request."""
        self.exchange = exchange
        exchange.admit()

    def forwarded_lines(self, head: RequestHead) -> bytes:
        return self._original.forwarded_lines(head)

    def send_error(
        self, head: RequestHead, why: Failure, status: int, extra: bytes, *, complete: bool
    ) -> None:
        # The failure is counted, and that is all.
        del head, why, status, extra, complete
        self._over()

    def exchange_over(self, now: float, *, complete: bool) -> None:
        del now, complete
        self._over()

    def break_off(self, *, abruptly: bool) -> None:
        del abruptly
        self._over()

    def close(self) -> None:
        self._over()

    def abort(self) -> None:
        exchange = self.exchange
        self._over()
        if exchange is not None:
            exchange.client_gone()

    def expire(self, now: float) -> None:
        self.deadline = NEVER
        if self.exchange is not None:
            self.exchange.expire(now)

    def _over(self) -> None:
        self.exchange = None
        self._plane.mirror_over(self)


def copy(exchange: Exchange, service: "ServiceState") -> None:
    """Send a copy of a complete request to `service`, if it belongs to the mirrored share."""
    plane, route = exchange.plane, exchange.route
    if route is not None and plane.random() >= route.route.mirror_share:
        return
    if plane.mirrors_in_flight >= MAX_IN_FLIGHT or exchange.head.upgrade:
        return
    client = DiscardClient(plane, exchange.client)
    plane.mirror_begun(client)
    client.run(exchange.copy(client, service))
