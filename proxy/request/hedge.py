"""A second try beside the first, for the slow few (Dean and Barroso, The Tail at Scale, 2013).

An idempotent request that has been without an answer for `hedge_after` is sent to another endpoint
too. The first good head wins, the other attempt is dropped; a failure leaves the request to the
other. A hedge counts as a retry and takes from the same budget.
"""

import asyncio
from typing import TYPE_CHECKING

from proxy.http1.response import ResponseHead
from proxy.request import connection_pool, dispatch, headers
from proxy.request.phases import ANSWERING, CONNECTING, SENT
from proxy.state.endpoint_state import EndpointState

if TYPE_CHECKING:
    from proxy.request.exchange import Exchange
    from proxy.request.upstream import Upstream


class Hedge:
    """The second try of an exchange. To its upstream it is an exchange, until it has won."""

    def __init__(self, exchange: "Exchange", after: float) -> None:
        self.exchange = exchange
        self.plane = exchange.plane
        self.endpoint: EndpointState | None = None
        self.upstream: Upstream | None = None
        self.bodyless = exchange.bodyless
        self.reused = False
        self.sent = False
        self.load = 0
        self.sent_at = 0.0
        self._timer: asyncio.TimerHandle | None = self.plane.loop.call_later(after, self._launch)

    @property
    def chunked_to_client(self) -> bool:
        """Whether the answer goes on in chunks; asked once it has won."""
        return self.exchange.chunked_to_client

    def _launch(self) -> None:
        """Makes the second try, where there is another to ask and the budget allows."""
        self._timer = None
        exchange, now = self.exchange, self.plane.clock()
        first, service = exchange.endpoint, exchange.service
        if exchange.phase not in (CONNECTING, SENT) or first is None or not exchange.replayable:
            return
        others = dispatch.candidates(exchange, (*exchange.tried, first))
        if not others or not service.budget.withdraw(now):
            return
        picked = others[service.picker.pick(others, None, self.plane.dice, now)]
        if service.limited and not service.bounds.take(picked, now, float("inf")):
            picked.tell()
            return
        service.counters.retries += 1
        exchange.attempts += 1
        self.load = picked.in_flight
        picked.start(now)
        self.endpoint = picked
        self.sent_at = now
        self.upstream = (
            connection_pool.take(picked, idempotent=True, now=now) if picked.idle else None
        )
        if self.upstream is not None:
            self.reused = True
            self.connected(self.upstream)
        else:
            self.upstream = self.plane.connect(picked, self)

    def drop(self, now: float) -> None:
        """It is not needed any more."""
        self.exchange.hedge = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        connection_pool.give_back(self.plane, self.endpoint, self.upstream, now)
        self.endpoint = self.upstream = None

    def take_over(self, now: float) -> bool:
        """It becomes the attempt of its exchange, whose own has ended or lost; False when it
        was not made."""
        exchange, endpoint, upstream = self.exchange, self.endpoint, self.upstream
        if endpoint is None or upstream is None:
            return False
        if exchange.endpoint is not None:
            exchange.tried = (*exchange.tried, exchange.endpoint)
        exchange.release(now)
        exchange.endpoint, exchange.upstream = endpoint, upstream
        exchange.sent_at, exchange.load, exchange.reused = self.sent_at, self.load, self.reused
        exchange.connect_seconds = 0.0
        exchange.phase = SENT if self.sent else CONNECTING
        upstream.exchange = exchange
        self.endpoint = self.upstream = None
        exchange.hedge = None
        return True

    # --- what its upstream tells

    def connected(self, upstream: "Upstream") -> None:
        """The connection is there: send the request."""
        self.upstream = upstream
        self.sent = True
        upstream.send(self, b"".join((headers.for_origin(self.exchange), *self.exchange.body)))

    def connect_failed(self, error: OSError) -> None:
        """The endpoint took no connection."""
        self._failed(error.strerror or str(error))

    def upstream_lost(self, *, answering: bool) -> None:
        """The connection ended before a whole head had come."""
        if answering or not self.reused:
            self._failed("connection closed")
        else:
            self.drop(self.plane.clock())

    def answer_unclear(self, reason: str) -> None:
        """The origin's bytes have no single reading."""
        if self.exchange.hedge is self:
            self._failed(reason)
        else:
            self.exchange.answer_unclear(reason)

    def interim(self, head: ResponseHead) -> None:
        """A 1xx answer: that of the one that will win is not known yet."""

    def answer_whole(self, head: ResponseHead, body: bytes, *, reusable: bool) -> None:
        """A whole answer."""
        if self._wins(head):
            self.exchange.answer_whole(head, body, reusable=reusable)

    def answer_head(self, head: ResponseHead, *, until_close: bool) -> bool:
        """A final head whose body follows."""
        return self._wins(head) and self.exchange.answer_head(head, until_close=until_close)

    def answer_body(self, data: bytes) -> None:
        """The body that came with the head that won."""
        self.exchange.answer_body(data)

    def answer_ended(self, last: bytes, *, reusable: bool) -> None:
        """All of it came with the head that won."""
        self.exchange.answer_ended(last, reusable=reusable)

    def origin_is_full(self) -> None:
        """The request is written as a whole, and bounded."""

    def origin_has_room(self) -> None:
        """Nothing waits."""

    def _wins(self, head: ResponseHead) -> bool:
        exchange, now = self.exchange, self.plane.clock()
        if head.status >= 500:
            self._failed(f"status {head.status}")
            return False
        slow = exchange.endpoint
        if exchange.phase >= ANSWERING or not self.take_over(now):
            self.drop(now)
            return False
        if slow is not None:
            # It has not failed, but is at least as slow as this.
            slow.estimate.observe(now - exchange.started, now, slow.in_flight)
        return True

    def _failed(self, cause: str) -> None:
        endpoint, now = self.endpoint, self.plane.clock()
        if endpoint is not None:
            endpoint.counters.failed += 1
            ejected = self.exchange.service.failed(endpoint, now)
            if ejected:
                self.plane.ejected(self.exchange.service, endpoint, f"{ejected} ({cause})")
        self.drop(now)
