"""What is counted and logged of an exchange when it is over."""

import time
from typing import TYPE_CHECKING, Final

from proxy.observe import log_line
from proxy.observe.access_log import AccessLog, Entry
from proxy.observe.trace import parse_traceparent
from proxy.request import failure, tracing
from proxy.wire.buckets import index

if TYPE_CHECKING:
    from proxy.request.data_plane import DataPlane
    from proxy.request.exchange import Exchange

LONGEST_REFUSED: Final = 2048
"""So much of the first line of what is no request is logged, in bytes."""


def ended(exchange: "Exchange", now: float) -> None:
    """Counts an exchange that is over, whatever came of it.

    The queue, connect and body histograms hold the exchanges that queued, connected or had a
    body after their first byte; for the others that time is zero, and recording it would only
    cost.
    """
    log = exchange.plane.access_log
    if log is not None and log.should_log(exchange.status, exchange.plane.dice()):
        write_down(exchange, log, now)
    if exchange.plane.spans is not None:
        tracing.ended(exchange, now)
    if exchange.caller:
        exchange.service.counters.end_call(exchange.caller, now)
    if not exchange.counted:
        if exchange.failure is not None:
            exchange.plane.count_refused(exchange.failure.reason)
        return
    counters = exchange.service.counters
    counters.count_response(exchange.head.method, exchange.status)
    if exchange.failure is not None:
        counters.count_failure(exchange.failure.reason)
    counters.bytes_in += exchange.bytes_in
    counters.bytes_out += exchange.bytes_out
    if exchange.queue_seconds:
        counters.queue.record(exchange.queue_seconds)
        counters.queue_seconds += exchange.queue_seconds
    if exchange.status == 101 or exchange.streaming:
        return
    started, first_byte_at, endpoint = exchange.started, exchange.first_byte_at, exchange.endpoint
    total = now - started
    if exchange.status >= 500 or exchange.failure is not None:
        counters.failed.record(total)
    if endpoint is None or not first_byte_at:
        counters.total.record(total)
        return
    if exchange.sent_at == started and first_byte_at == now and not exchange.connect_seconds:
        # The usual case: all three are the same time.
        bucket = index(total)
        counters.total.record_bucket(bucket, total)
        counters.first_byte.record_bucket(bucket, total)
        endpoint.counters.latency.record_bucket(bucket, total)
        return
    counters.total.record(total)
    if exchange.connect_seconds:
        counters.connect.record(exchange.connect_seconds)
    counters.first_byte.record(first_byte_at - exchange.sent_at - exchange.connect_seconds)
    endpoint.counters.latency.record(now - exchange.sent_at)
    if now > first_byte_at:
        counters.body.record(now - first_byte_at)


def refused(plane: "DataPlane", peer: str, status: int, data: bytes) -> None:
    """Counts and logs what was refused before it was understood; `data` is what came of it."""
    reason = failure.of_status(status).reason
    plane.count_refused(reason)
    log = plane.access_log
    if log is None or not log.should_log(status, plane.dice()):
        return
    line = data[:LONGEST_REFUSED].partition(b"\r\n")[0].decode("latin-1")
    method, _, rest = line.partition(" ")
    target, _, version = rest.partition(" ")
    log.add(
        Entry(
            time=time.time(),
            client=peer,
            method=method,
            target=target,
            version=version,
            status=status,
            failure=reason,
        )
    )


def stream_began(exchange: "Exchange", now: float) -> None:
    """Counts the time that a stream of events took to begin. It ends when somebody ends it, and
    how long that took says nothing about who answered."""
    counters, endpoint = exchange.service.counters, exchange.endpoint
    assert endpoint is not None
    if exchange.connect_seconds:
        counters.connect.record(exchange.connect_seconds)
    counters.total.record(now - exchange.started)
    counters.first_byte.record(now - exchange.sent_at - exchange.connect_seconds)
    endpoint.counters.latency.record(now - exchange.sent_at)


def write_usual(exchange: "Exchange", log: AccessLog, now: float, status: int, size: int) -> None:
    """The same as `write_down` for a request that went straight through."""
    head, client, endpoint = exchange.head, exchange.client, exchange.endpoint
    if endpoint is not None and log.as_json and client.peer and not head.field(b"traceparent"):
        names = (exchange.service.name, endpoint.id, endpoint.endpoint.revision)
        form = log.templates.get(names)
        if form is None:
            if len(log.templates) >= log_line.MAX_TEMPLATES:
                log.templates.clear()
            form = log.templates[names] = log_line.make_template(*names)
        seconds = now - exchange.started
        line = log_line.format_line(
            form,
            time.time() - seconds,
            client.address,
            head.method,
            head.target,
            status,
            head.host or b"",
            exchange.bytes_in,
            size,
            seconds,
            exchange.request_id,
            head.field(b"referer"),
            head.field(b"user-agent"),
        )
        if line is not None:
            log.add_line(line)
            return
    exchange.status = status
    exchange.bytes_out = size
    exchange.first_byte_at = now
    write_down(exchange, log, now)


def write_down(exchange: "Exchange", log: AccessLog, now: float) -> None:
    """Adds an exchange to the access log."""
    head = exchange.head
    endpoint = exchange.endpoint
    trace = parse_traceparent(exchange.trace or head.field(b"traceparent"))
    first_byte_at = exchange.first_byte_at
    log.add(
        Entry(
            time=time.time() - (now - exchange.started),
            client=exchange.client.peer,
            method=head.method.decode("latin-1"),
            target=head.target.decode("latin-1"),
            version="HTTP/1.0" if head.http10 else "HTTP/1.1",
            status=exchange.status,
            host=(head.host or b"").decode("latin-1"),
            service=exchange.service.name if exchange.counted else "",
            endpoint=endpoint.id if endpoint is not None else "",
            revision=endpoint.endpoint.revision if endpoint is not None else "",
            bytes_in=exchange.bytes_in,
            bytes_out=exchange.bytes_out,
            total=now - exchange.started,
            queue=exchange.queue_seconds,
            connect=exchange.connect_seconds,
            first_byte=first_byte_at - exchange.sent_at if first_byte_at else 0.0,
            body=now - first_byte_at if first_byte_at else 0.0,
            retries=exchange.attempts,
            failure=exchange.failure.reason if exchange.failure is not None else "",
            request_id=exchange.request_id.decode("latin-1"),
            trace_id=trace[0].decode() if trace else "",
            referer=(head.field(b"referer") or b"").decode("latin-1"),
            user_agent=(head.field(b"user-agent") or b"").decode("latin-1"),
        )
    )
