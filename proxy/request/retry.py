"""Decisions about an exchange that went wrong: which failure a deadline means, and whether another
attempt is allowed.

`Exchange` and `Hedge` call these functions and act on the result. The only state that changes here
is the retry budget and what is counted against an endpoint.
"""

from typing import TYPE_CHECKING, Final

from proxy.policy.retry import decide_retry
from proxy.request import dispatch, failure
from proxy.request.failure import Failure
from proxy.request.phases import ANSWERING, CONNECTING, SENT, WAITING

if TYPE_CHECKING:
    from proxy.request.data_plane import DataPlane
    from proxy.request.exchange import Exchange
    from proxy.state.endpoint_state import EndpointState
    from proxy.state.service_state import ServiceState

# The outcome of `decide`.
NO: Final = 0
"""No further attempt."""
ON_NEW_CONNECTION: Final = 1
"""Another attempt at no cost: the endpoint closed an idle connection, which is not a failure."""
ELSEWHERE: Final = 2
"""Another attempt at an endpoint that was not tried yet; the budget was charged if need be."""
WAIT: Final = 3
"""Another attempt as soon as there is an endpoint for it, which may be now."""


def failure_by_timeout(exchange: "Exchange", now: float) -> Failure | None:
    """Return the failure that a passed deadline means. None where the exchange simply ends, as a
    tunnel without traffic does."""
    if exchange.last_deadline and now >= exchange.last_deadline:
        return failure.REQUEST_TIMEOUT
    if exchange.phase == WAITING:
        return _failure_by_waiting(exchange)
    if exchange.phase == CONNECTING:
        return failure.CONNECT_TIMEOUT
    if exchange.phase == SENT:
        waits_for_client = not (exchange.request_complete or exchange.upstream_is_full)
        return failure.SLOW_BODY if waits_for_client else failure.FIRST_BYTE
    if exchange.phase == ANSWERING:
        return failure.IDLE
    return None


def _failure_by_waiting(exchange: "Exchange") -> Failure:
    """Return the failure of a request that waited too long in the queue."""
    entry, route = exchange.queue_entry, exchange.route
    if entry is not None and not entry.parked:
        return failure.QUEUED
    filters = route.filters if route is not None else None
    if filters is not None and filters.gets_waiting_page(exchange.head):
        return failure.WAKING
    return failure.PARKED


def blame(
    plane: "DataPlane",
    service: "ServiceState",
    endpoint: "EndpointState",
    cause: str,
    now: float,
) -> None:
    """Count a failure against an endpoint, which may eject it."""
    endpoint.counters.failed += 1
    if endpoint.unreachable:
        # It gets no requests anyway, and may get them again as soon as it accepts a connection.
        endpoint.health.record_abandoned()
        return
    ejected = service.record_failure(endpoint, now)
    if ejected:
        plane.report_ejection(service, endpoint, f"{ejected} ({cause})")


def decide(exchange: "Exchange", why: Failure, now: float) -> int:
    """Return whether another attempt is safe, allowed and possible: NO, ON_NEW_CONNECTION,
    ELSEWHERE or WAIT."""
    endpoint, service = exchange.endpoint, exchange.service
    if endpoint is None or why.cause is None:
        return NO
    may_wait = service.parks_on_refusal
    if may_wait and why.cause == "connect" and why is not failure.TLS:
        return _decide_unsent(exchange, endpoint, now)
    answer = decide_retry(
        why.cause,
        written=exchange.phase >= SENT,
        reused=exchange.reused,
        idempotent=exchange.idempotent,
        replayable=exchange.is_replayable(),
    )
    if answer == "no":
        return NO
    if answer == "free" and why.cause == "closed":
        return ON_NEW_CONNECTION
    # A request may be the reason why endpoints end or hang: it must not go to all of them.
    if exchange.retries >= service.config.retries.attempts:
        return NO
    if why.cause == "given-up":
        return WAIT
    others = dispatch.candidates(service, exchange.revision, (*exchange.tried, endpoint))
    if others and service.budget.withdraw(now):
        return ELSEWHERE
    if why.cause == "refused" and not exchange.new_connection:
        return ON_NEW_CONNECTION
    return WAIT if may_wait and why.cause == "closed" else NO


def _decide_unsent(exchange: "Exchange", endpoint: "EndpointState", now: float) -> int:
    """Return ELSEWHERE or WAIT for a request of which nothing was sent, since no endpoint has any
    work with it; NO if it took as long as it may wait."""
    tried = (*exchange.tried, endpoint)
    if dispatch.candidates(exchange.service, exchange.revision, tried):
        return ELSEWHERE
    waited = now - exchange.started
    return WAIT if waited < exchange.service.config.parking.timeout else NO
