"""What is counted of an exchange when it is over."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from proxy.exchange import Exchange


def ended(exchange: "Exchange", now: float) -> None:
    """Counts an exchange that is over, whatever came of it.

    The queue and connect histograms hold those that queued or connected; for the others the
    time is zero and recording it would only cost.
    """
    if not exchange.counted:
        exchange.plane.refused(exchange)
        return
    counters = exchange.service.counters
    counters.answered(exchange.head.method, exchange.status)
    if exchange.failure is not None:
        counters.failure(exchange.failure.reason)
    counters.bytes_in += exchange.bytes_in
    counters.bytes_out += exchange.bytes_out
    if exchange.queue_seconds:
        counters.queue.record(exchange.queue_seconds)
        counters.queue_seconds += exchange.queue_seconds
    if exchange.status == 101:
        return
    total = now - exchange.started
    counters.total.record(total)
    endpoint = exchange.endpoint
    if endpoint is not None and exchange.first_byte_at:
        if exchange.connect_seconds:
            counters.connect.record(exchange.connect_seconds)
        counters.first_byte.record(
            exchange.first_byte_at - exchange.sent_at - exchange.connect_seconds
        )
        endpoint.counters.latency.record(now - exchange.sent_at)
        if now > exchange.first_byte_at:
            counters.body.record(now - exchange.first_byte_at)
