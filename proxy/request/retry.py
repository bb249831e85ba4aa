"""What becomes of an exchange that went wrong: another attempt, an error, or a broken answer."""

from typing import TYPE_CHECKING

from proxy.policy.retry import decide_retry
from proxy.request import dispatch, failure
from proxy.request.failure import Failure
from proxy.request.phases import ANSWERING, CONNECTING, NEW, SENT, WAITING

if TYPE_CHECKING:
    from proxy.request.exchange import Exchange


def expired(exchange: "Exchange", now: float) -> None:
    """The deadline of the phase has passed."""
    if exchange.last_deadline and now >= exchange.last_deadline:
        exchange.fail(failure.REQUEST_TIMEOUT)
        return
    if exchange.phase == WAITING:
        ready = bool(exchange.service.ready)
        exchange.fail(failure.QUEUED if ready else failure.PARKED)
    elif exchange.phase == CONNECTING:
        exchange.fail(failure.CONNECT_TIMEOUT)
    elif exchange.phase == SENT:
        waits_for_client = not (exchange.request_complete or exchange.origin_full)
        exchange.fail(failure.SLOW_BODY if waits_for_client else failure.FIRST_BYTE)
    elif exchange.phase == ANSWERING:
        exchange.fail(failure.IDLE)
    else:
        exchange.client_gone()
        exchange.client.abort()


def failed(exchange: "Exchange", why: Failure, detail: str) -> None:
    """Something went wrong: another attempt, an error answer, or a broken answer."""
    now = exchange.plane.clock()
    # That an idle connection had been closed says nothing against the endpoint.
    stale = exchange.reused and why is failure.CLOSED
    if why.blame and not stale and exchange.endpoint is not None:
        blame(exchange, detail or why.text, now)
    elif exchange.endpoint is not None:
        exchange.endpoint.health.record_abandoned()
    if exchange.phase < ANSWERING and why.cause is not None and try_again(exchange, why, now):
        return
    exchange.failure = why
    answering = exchange.phase == ANSWERING
    if answering:
        exchange.leave(now)
        exchange.client.break_off(abruptly=exchange.head.http10)
        return
    exchange.status = why.status
    exchange.leave(now)
    extra = b"Retry-After: 1\r\n" if why.status == 503 else b""
    exchange.client.answer(
        exchange.head, why, why.status, extra, complete=exchange.request_complete
    )


def blame(exchange: "Exchange", cause: str, now: float) -> None:
    """Counts a failure against the endpoint, which may take it out of rotation."""
    endpoint = exchange.endpoint
    assert endpoint is not None
    endpoint.counters.failed += 1
    ejected = exchange.service.failed(endpoint, now)
    if ejected:
        exchange.plane.ejected(exchange.service, endpoint, f"{ejected} ({cause})")


def try_again(exchange: "Exchange", why: Failure, now: float) -> bool:
    """Makes another attempt, where that is safe, allowed, and there is someone to ask."""
    endpoint, service = exchange.endpoint, exchange.service
    if endpoint is None or why.cause is None:
        return False
    if exchange.hedge is not None and exchange.hedge.take_over(now):
        exchange.first_byte_at = 0.0
        exchange.until(now + (service.config.timeouts.first_byte or float("inf")))
        return True
    verdict = decide_retry(
        why.cause,
        written=exchange.phase >= SENT,
        reused=exchange.reused,
        idempotent=exchange.idempotent,
        replayable=exchange.replayable,
    )
    if verdict == "no":
        return False
    if verdict == "free":
        # The endpoint did nothing wrong, but an idle connection may meet the same end.
        exchange.fresh = True
    else:
        if exchange.attempts >= service.config.retries.attempts:
            return False
        others = (*exchange.tried, endpoint)
        if not dispatch.candidates(exchange, others) or not service.budget.withdraw(now):
            return False
        exchange.tried = others
        exchange.attempts += 1
        service.counters.retries += 1
        endpoint.counters.retried += 1
    exchange.release(now)
    exchange.phase = NEW
    exchange.first_byte_at = 0.0
    dispatch.dispatch(exchange, now)
    return True
