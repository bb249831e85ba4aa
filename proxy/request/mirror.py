"""Copies of requests to another service, whose answers nobody waits for.

A copy is an exchange like any other, with a client that takes everything and says nothing. Only
requests that are whole when they arrive are copied, and a bounded number at a time: a mirror must
never cost the request that it copies.
"""

from typing import TYPE_CHECKING, Final

from proxy.http1.request import RequestHead
from proxy.request import retry
from proxy.request.exchange import Exchange
from proxy.request.failure import Failure
from proxy.wire.snapshot import Listener

if TYPE_CHECKING:
    from proxy.request.data_plane import DataPlane
    from proxy.request.downstream import Downstream
    from proxy.state.service_state import ServiceState

MOST: Final = 100


class DiscardClient:
    """The client of a copy. It is with the plane's connections, so that deadlines hold."""

    exchange: Exchange | None
    persistent = True
    usual = True
    peer: str
    address: bytes

    def __init__(self, plane: "DataPlane", original: "Downstream | DiscardClient") -> None:
        self._plane = plane
        self._forwarded = original.forwarded_lines
        self.listener: Listener = original.listener
        self.peer = original.peer
        self.address = original.address
        self.deadline = float("inf")
        self.exchange = None

    def forwarded_lines(self, head: RequestHead) -> bytes:
        """As for the original."""
        return self._forwarded(head)

    def write(self, data: bytes) -> None:
        """Nobody reads it."""

    def pause(self) -> None:
        """Nothing comes in."""

    def resume(self) -> None:
        """Nothing comes in."""

    def unsent(self) -> bool:
        """Nothing is ever on its way out."""
        return False

    def expected(self) -> bool:
        """Nothing comes in."""
        return False

    def drain(self) -> None:
        """A copy ends by itself."""

    def answer(
        self, head: RequestHead, why: Failure, status: int, extra: bytes, *, complete: bool
    ) -> None:
        """It failed; that is counted, and nobody else cares."""
        del head, why, status, extra, complete
        self._over()

    def open_tunnel(self) -> None:
        """Requests that ask for a tunnel are not copied."""

    def finish_tunnel(self) -> None:
        """Requests that ask for a tunnel are not copied."""

    def exchange_over(self, now: float, *, complete: bool) -> None:
        """It is done."""
        del now, complete
        self._over()

    def break_off(self, *, abruptly: bool) -> None:
        """It broke."""
        del abruptly
        self._over()

    def close(self) -> None:
        """It ended."""
        self._over()

    def abort(self) -> None:
        """The plane ends."""
        exchange = self.exchange
        self._over()
        if exchange is not None:
            exchange.client_gone()

    def expired(self, now: float) -> None:
        """Its deadline has passed."""
        self.deadline = float("inf")
        if self.exchange is not None:
            retry.expired(self.exchange, now)

    def _over(self) -> None:
        self.exchange = None
        self._plane.connections.discard(self)
        self._plane.mirrored -= 1


def copy(exchange: Exchange, service: "ServiceState") -> None:
    """Sends a copy of a whole request to `service`, if it is of the share that is copied."""
    plane, plan = exchange.plane, exchange.plan
    if plan is not None and plane.dice() >= plan.route.mirror_share:
        return
    if plane.mirrored >= MOST or exchange.head.upgrade:
        return
    plane.mirrored += 1
    client = DiscardClient(plane, exchange.client)
    plane.connections.add(client)
    mirrored = client.exchange = Exchange(plane, client, exchange.head, exchange.started)
    mirrored.target = exchange.target
    mirrored.service = service
    mirrored.body = list(exchange.body)
    mirrored.body_size = mirrored.bytes_in = exchange.body_size
    mirrored.admit()
