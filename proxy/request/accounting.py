"""Counters, histograms, access log and span of an exchange that has ended.

`Exchange.leave` calls `record`, the fast path `log_fast_path`; `Downstream` and
`Http2Connection` call `record_rejected` for bytes that are not a valid request.
"""

import time
from typing import TYPE_CHECKING, Final

from proxy.observe import log_line
from proxy.observe.access_log import AccessLog, Entry, hide_token
from proxy.observe.flight_ring import MAX_HEAD, FlightDetails, FlightRing, FlightTuple
from proxy.observe.trace import parse_traceparent
from proxy.request import failure, resolve, tracing
from proxy.wire.buckets import index

if TYPE_CHECKING:
    from proxy.http1.request import RequestHead
    from proxy.request.data_plane import DataPlane
    from proxy.request.exchange import Exchange
    from proxy.state.endpoint_state import EndpointState
    from proxy.state.service_state import ServiceState

MAX_LOGGED_LINE: Final = 2048
"""Bytes of an invalid request line that are logged."""
FAILED_STATUS: Final = 499
"""Lowest status of a request that failed for the flight recorder."""


def record(exchange: "Exchange", now: float) -> None:
    """Count and log an exchange that has ended, whatever its outcome.

    The queue, connect and body histograms hold only exchanges that queued, connected or had a
    body after their first byte. For the others that time is zero, and recording it would only
    cost time.
    """
    log = exchange.plane.access_log
    if log is not None and log.should_log(exchange.status, exchange.plane.random()):
        _log(exchange, log, now, exchange.status, exchange.bytes_out, exchange.first_byte_at)
    if exchange.plane.spans is not None:
        tracing.record_span(exchange, now)
    if exchange.plane.flights is not None:
        _record_flight(exchange, exchange.plane.flights, now)
    if exchange.status == 101 or exchange.streaming:
        exchange.service.counters.end_stream(now)
    elif exchange.background:
        if exchange.counted:
            exchange.service.counters.end_background(now)
    elif exchange.caller:
        total = now - exchange.started
        failed = exchange.status >= 500 or exchange.failure is not None
        exchange.service.counters.finish_call(exchange.caller, now, failed, index(total), total)
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
    if exchange.background:
        _record_background(exchange, now)
        return
    if exchange.queue_seconds:
        counters.queue.record(exchange.queue_seconds)
        counters.queue_seconds += exchange.queue_seconds
    if exchange.status != 101 and not exchange.streaming:
        _record_times(exchange, now)


def _record_background(exchange: "Exchange", now: float) -> None:
    """Record the latency of a background request at its endpoint, and nothing that the autoscaler
    reads."""
    endpoint = exchange.endpoint
    is_stream = exchange.status == 101 or exchange.streaming
    if endpoint is not None and exchange.first_byte_at and not is_stream:
        endpoint.counters.latency.record(now - exchange.sent_at - exchange.connect_seconds)


def _record_times(exchange: "Exchange", now: float) -> None:
    counters = exchange.service.counters
    started, first_byte_at, endpoint = exchange.started, exchange.first_byte_at, exchange.endpoint
    total = now - started
    if exchange.status >= 500 or exchange.failure is not None:
        counters.failed.record(total)
    if endpoint is None or not first_byte_at:
        counters.total.record(total)
        return
    if exchange.sent_at == started and first_byte_at == now and not exchange.connect_seconds:
        # All three times are equal, as they are for most requests.
        bucket = index(total)
        counters.total.record_bucket(bucket, total)
        counters.first_byte.record_bucket(bucket, total)
        endpoint.counters.latency.record_bucket(bucket, total)
        return
    counters.total.record(total)
    if exchange.connect_seconds:
        counters.connect.record(exchange.connect_seconds)
    counters.first_byte.record(first_byte_at - exchange.sent_at - exchange.connect_seconds)
    endpoint.counters.latency.record(now - exchange.sent_at - exchange.connect_seconds)
    if now > first_byte_at:
        counters.body.record(now - first_byte_at)


def begin_stream(exchange: "Exchange", now: float) -> None:
    """Count the start of a tunnel or an event stream. From now on its caller awaits no answer."""
    counters = exchange.service.counters
    counters.start_stream(now)
    if exchange.background:
        counters.end_background(now)
    if exchange.caller:
        counters.end_call(exchange.caller, now)


def record_stream_start(exchange: "Exchange", now: float) -> None:
    """Count the times until the start of an event stream. Its end is up to the client or the
    server, and its duration says nothing about the endpoint's latency."""
    counters, endpoint = exchange.service.counters, exchange.endpoint
    assert endpoint is not None
    begin_stream(exchange, now)
    if exchange.connect_seconds:
        counters.connect.record(exchange.connect_seconds)
    total = now - exchange.started
    counters.total.record(total)
    if exchange.caller:
        counters.record_call(exchange.caller, index(total), total)
    counters.first_byte.record(now - exchange.sent_at - exchange.connect_seconds)
    endpoint.counters.latency.record(now - exchange.sent_at - exchange.connect_seconds)


def log_fast_path(
    exchange: "Exchange",
    service: "ServiceState",
    endpoint: "EndpointState",
    now: float,
    status: int,
    size: int,
) -> None:
    """Log an exchange that took the fast path, if it is to be logged; `size` is the response's
    body in bytes. The fast path counts it by itself."""
    plane = exchange.plane
    log = plane.access_log
    if log is not None and log.should_log(status, plane.random()):
        line = _fast_path_line(exchange, service, endpoint, log, now, status, size)
        if line is not None:
            log.add_line(line)
        else:
            _log(exchange, log, now, status, size, now)


def record_short_flight(
    exchange: "Exchange",
    service: "ServiceState",
    endpoint: "EndpointState",
    now: float,
    status: int,
    size: int,
) -> None:
    """Put an exchange that took the fast path into the flight recorder."""
    ring = exchange.plane.flights
    if ring is not None:
        head, candidates = exchange.head, len(service.fast_candidates)
        ring.answered.append(
            _flight(exchange, head, service.name, endpoint, candidates, now, status, size, None)
        )


def _record_flight(exchange: "Exchange", ring: FlightRing, now: float) -> None:
    """Put an exchange that took the slow path into the flight recorder, if it failed or took long
    enough."""
    head, why, status = exchange.head, exchange.failure, exchange.status
    failed = status >= FAILED_STATUS or (why is not None and why.status >= FAILED_STATUS)
    if not failed and now - exchange.started < exchange.plane.record_after:
        return
    first_byte_at = exchange.first_byte_at
    details = FlightDetails(
        exchange.trace,
        head.http10,
        exchange.choice,
        tuple([each.id for each in exchange.tried]),
        exchange.reused,
        exchange.queue_seconds,
        exchange.connect_seconds,
        first_byte_at - exchange.sent_at if first_byte_at else 0.0,
        now - first_byte_at if first_byte_at else 0.0,
        exchange.retries,
        why.reason if why is not None else "",
        why.detail[:MAX_LOGGED_LINE] if why is not None else "",
    )
    service = exchange.service.name if exchange.counted else ""
    candidates = exchange.candidates
    if not candidates and exchange.endpoint is not None:
        # The fast path chose the endpoint, and handed the exchange over when its response came.
        candidates = len(exchange.service.fast_candidates)
    (ring.failed if failed else ring.answered).append(
        _flight(
            exchange,
            head,
            service,
            exchange.endpoint,
            candidates,
            now,
            status,
            exchange.bytes_out,
            details,
        )
    )


def _flight(
    exchange: "Exchange",
    head: "RequestHead",
    service: str,
    endpoint: "EndpointState | None",
    candidates: int,
    now: float,
    status: int,
    size: int,
    details: FlightDetails | None,
) -> FlightTuple:
    """The record of an exchange."""
    route = exchange.route
    return (
        now,
        now - exchange.started,
        head.raw[:MAX_HEAD],
        head.http2,
        exchange.client.source,
        exchange.caller,
        route.route.id if route is not None else "",
        service,
        endpoint.endpoint if endpoint is not None else None,
        candidates,
        exchange.load,
        status,
        exchange.bytes_in,
        size,
        exchange.request_id,
        details,
    )


def record_rejected(plane: "DataPlane", peer: str, status: int, data: bytes, detail: str) -> None:
    """Count and log bytes that were rejected before they were a request. `data` is what was
    received, `detail` what is wrong with it."""
    reason = failure.from_status(status).reason
    plane.count_refused(reason)
    log = plane.access_log
    if log is None or not log.should_log(status, plane.random()):
        return
    line = data[:MAX_LOGGED_LINE].partition(b"\r\n")[0].decode("latin-1")
    method, _, rest = line.partition(" ")
    target, _, version = rest.partition(" ")
    log.add(
        Entry(
            time=time.time(),
            client=peer,
            method=method,
            target=hide_token(target),
            version=version,
            status=status,
            failure=reason,
            detail=detail,
        )
    )


def _fast_path_line(
    exchange: "Exchange",
    service: "ServiceState",
    endpoint: "EndpointState",
    log: AccessLog,
    now: float,
    status: int,
    size: int,
) -> bytes | None:
    """The log line of a request that took the fast path, put together from a template. None where
    the general form is needed."""
    head, client = exchange.head, exchange.client
    if not log.as_json or not client.source or head.field(b"traceparent"):
        return None
    if log.hides and log.must_redact(head.target, head.field(b"referer")):
        return None
    if head.target.startswith(resolve.TOKEN_PATH):
        return None
    names = (service.name, endpoint.id, endpoint.endpoint.revision, _version(head))
    template = log.templates.get(names)
    if template is None:
        if len(log.templates) >= log_line.MAX_TEMPLATES:
            log.templates.clear()
        template = log.templates[names] = log_line.make_template(*names)
    seconds = now - exchange.started
    return log_line.format_line(
        template,
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


def _version(head: "RequestHead") -> str:
    """The version of HTTP that a request came in, for the log."""
    if head.http2:
        return "HTTP/2"
    return "HTTP/1.0" if head.http10 else "HTTP/1.1"


def _log(
    exchange: "Exchange",
    log: AccessLog,
    now: float,
    status: int,
    bytes_out: int,
    first_byte_at: float,
) -> None:
    """Add an exchange to the access log."""
    head = exchange.head
    endpoint = exchange.endpoint
    trace = parse_traceparent(exchange.trace or head.field(b"traceparent"))
    log.add(
        Entry(
            time=time.time() - (now - exchange.started),
            client=exchange.client.source,
            method=head.method.decode("latin-1"),
            target=hide_token(head.target.decode("latin-1")),
            version=_version(head),
            status=status,
            host=(head.host or b"").decode("latin-1"),
            service=exchange.service.name if exchange.counted else "",
            endpoint=endpoint.id if endpoint is not None else "",
            revision=endpoint.endpoint.revision if endpoint is not None else "",
            bytes_in=exchange.bytes_in,
            bytes_out=bytes_out,
            total=now - exchange.started,
            queue=exchange.queue_seconds,
            connect=exchange.connect_seconds,
            first_byte=first_byte_at - exchange.sent_at if first_byte_at else 0.0,
            body=now - first_byte_at if first_byte_at else 0.0,
            retries=exchange.retries,
            failure=exchange.failure.reason if exchange.failure is not None else "",
            detail=exchange.failure.detail if exchange.failure is not None else "",
            request_id=exchange.request_id.decode("latin-1"),
            trace_id=trace[0].decode() if trace else "",
            referer=(head.field(b"referer") or b"").decode("latin-1"),
            user_agent=(head.field(b"user-agent") or b"").decode("latin-1"),
        )
    )
