"""Hedged requests: a second attempt next to a slow first one (Dean and Barroso, The Tail at
Scale, 2013).

`Exchange` starts a `Hedge` for an idempotent request. If there is no response after `hedge_after`
seconds, the hedge sends the request to another endpoint too. The first good response head wins,
and the other attempt is dropped. If one attempt fails, the other one continues. A hedge counts as a
retry and takes from the retry budget.
"""

import asyncio
from typing import TYPE_CHECKING

from proxy.http1.response import ResponseHead
from proxy.request import connection_pool, dispatch, failure, reachability, retry
from proxy.request.attempt import Attempt
from proxy.request.phases import ANSWERING, CONNECTING, SENT
from proxy.request.sinks import REJECTED
from proxy.state.descriptors import is_shortage

if TYPE_CHECKING:
    from proxy.request.exchange import Exchange
    from proxy.request.upstream import Upstream
    from proxy.state.endpoint_state import EndpointState


class Hedge(Attempt):
    """The second attempt of an exchange. `written` says whether its request is sent."""

    def __init__(self, exchange: "Exchange", after: float) -> None:
        self.exchange = exchange
        self.plane = exchange.plane
        self.bodyless = exchange.bodyless
        self.written = False
        self._timer: asyncio.TimerHandle | None = self.plane.loop.call_later(after, self._launch)

    def _launch(self) -> None:
        """Make the second attempt, if there is another endpoint and the budget allows it."""
        self._timer = None
        exchange, now = self.exchange, self.plane.clock()
        first, service = exchange.endpoint, exchange.service
        if exchange.phase not in (CONNECTING, SENT) or first is None:
            return
        if not exchange.is_replayable():
            return
        others = dispatch.candidates(service, exchange.revision, (*exchange.tried, first))
        if not others or not service.budget.withdraw(now):
            return
        picked = others[service.picker.pick(others, None, self.plane.random, now)]
        if service.has_limits and not service.limits.reserve(picked, now, float("inf")):
            picked.publish()
            return
        exchange.count_retry()
        self._send_to(picked, now)

    def _send_to(self, endpoint: "EndpointState", now: float) -> None:
        self.begin_attempt(endpoint, now)
        upstream = None
        exchange = self.exchange
        owner = exchange.client if exchange.service.config.proxy_protocol else None
        if endpoint.idle:
            if owner is not None:
                connection_pool.prefer(endpoint, owner)
            upstream = connection_pool.take(endpoint, idempotent=True, now=now, client=owner)
        if upstream is None and endpoint.streams is not None:
            upstream = endpoint.streams.open(self)
            if not upstream.requests:
                self.upstream = upstream
                return
        if upstream is not None:
            self.reused = True
            self.connected(upstream)
        else:
            self.upstream = self.plane.connect(endpoint, self, owner)

    def drop(self, now: float) -> None:
        """End it: it is not needed any more, or has failed."""
        self.exchange.forget_hedge()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.end_attempt(now)

    # --- from its upstream connection

    def connected(self, upstream: "Upstream") -> None:
        self.upstream = upstream
        self.written = True
        upstream.send(self, self.exchange.request_bytes())

    def connect_failed(self, error: OSError) -> None:
        endpoint = self.endpoint
        answered = endpoint is not None and endpoint.has_answered_since(0.0)
        if is_shortage(error, answered=answered):
            self.drop(self.plane.clock())
            return
        why = failure.from_connect_error(error)
        if endpoint is not None and why is failure.TLS:
            self.plane.report_no_tls(self.exchange.service, endpoint, str(error))
        elif endpoint is not None:
            reachability.connect_failed(
                self.plane,
                self.exchange.service,
                endpoint,
                why,
                self.sent_at,
                self.plane.clock(),
            )
        self._failed(error.strerror or str(error))

    def connection_full(self) -> None:
        self.drop(self.plane.clock())

    def request_refused(self) -> None:
        self.drop(self.plane.clock())

    def upstream_lost(self, *, answering: bool) -> None:
        if answering or not self.reused:
            self._failed("connection closed")
        else:
            # An idle connection that was closed says nothing about the endpoint.
            self.drop(self.plane.clock())

    def bad_response(self, reason: str) -> None:
        if self.endpoint is not None:
            self.plane.report_bad_response(self.exchange.service, self.endpoint, reason)
        self._failed(reason)

    def switch_protocols(self, head: ResponseHead) -> bool:
        # Requests that ask for another protocol are not hedged.
        del head
        self._failed("a switch of protocols that was not asked for")
        return False

    def whole_response(self, head: ResponseHead, body: bytes, *, reusable: bool) -> None:
        if self._wins(head):
            self.exchange.whole_response(head, body, reusable=reusable)

    def response_head(self, head: ResponseHead, *, until_close: bool) -> int:
        if self._wins(head):
            return self.exchange.response_head(head, until_close=until_close)
        return REJECTED

    def _wins(self, head: ResponseHead) -> bool:
        """Whether this response is the one to pass on. If so, the exchange continues with this
        attempt."""
        exchange, now = self.exchange, self.plane.clock()
        if head.status >= 500:
            self._failed(f"status {head.status}")
            return False
        slow = exchange.endpoint
        if exchange.phase >= ANSWERING or not exchange.adopt_hedge(now):
            self.drop(now)
            return False
        if slow is not None:
            # It has not failed, but it is at least as slow as this one.
            slow.latency_estimate.observe(now - exchange.started, now, slow.in_flight)
        return True

    def _failed(self, cause: str) -> None:
        endpoint, now = self.endpoint, self.plane.clock()
        if endpoint is not None:
            retry.blame(self.plane, self.exchange.service, endpoint, cause, now)
        self.drop(now)
