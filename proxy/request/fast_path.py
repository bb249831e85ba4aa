"""The usual request, straight through.

Most requests want nothing of what an exchange can do: they came whole, their route changes
nothing, a connection to their endpoint is idle, and the answer comes whole. `start` and
`answered` do for these exactly what `Exchange` does, without asking each time for each of the
things that are not wanted; what has to be asked was settled when the snapshot came
(`ServiceState.simple`, `Routing.straight`) or when the head was read. At the first sign of
anything else they leave the exchange to its general way, in a state that it knows.
"""

from typing import TYPE_CHECKING, Final, cast

from proxy.http1.chunked import is_complete
from proxy.http1.framing import CHUNKED
from proxy.http1.request import END, VIA
from proxy.http1.rewrite import CRLF
from proxy.request import accounting, dispatch, tracing
from proxy.request.connection_pool import FRESH_SECONDS, IDLE_MOST
from proxy.request.phases import OVER, SENT
from proxy.wire.buckets import index

if TYPE_CHECKING:
    from proxy.request.downstream import Downstream
    from proxy.request.exchange import Exchange
    from proxy.request.upstream import Upstream
    from proxy.state.service_state import ServiceState

_HEAD: Final = 1
_VIA_AND_ID: Final = VIA + b"X-Request-Id: "


def start(exchange: "Exchange", service: "ServiceState", now: float) -> None:
    """Counts a request for a simple service, and sends it on an idle connection; on another
    way where there is none."""
    exchange.service = service
    exchange.counted = True
    service.counters.arrivals += 1
    service.in_flight += 1
    service.budget.deposit(now)
    deadline = now + service.first_byte
    if service.within:
        exchange.last_deadline = last = now + service.within
        deadline = min(last, deadline)
    found = service.candidates
    if len(found) == 1:
        endpoint = found[0]
    elif found:
        endpoint = found[service.picker.pick(found, None, exchange.plane.dice, now)]
    else:
        dispatch.dispatch(exchange, now)
        return
    idle = endpoint.idle
    upstream = idle[-1] if idle else None
    if (
        upstream is None
        or now >= upstream.idle_until
        or upstream.closing
        or endpoint.health.ejected
        or not (exchange.idempotent or now - upstream.idle_since <= FRESH_SECONDS)
        or (service.traces and tracing.has_span(exchange))
    ):
        exchange.go_to(endpoint, now)
        return
    idle.pop()
    exchange.load = endpoint.in_flight
    endpoint.start(now)
    exchange.endpoint = endpoint
    exchange.upstream = upstream
    exchange.sent_at = now
    exchange.reused = True
    exchange.phase = SENT
    head, client = exchange.head, exchange.client
    lines = client.forwarded_lines(head)
    body = b""
    if exchange.bytes_in:
        body = exchange.body[0]
        exchange.body_sent()
    if head.has_id:
        exchange.request_id = head.request_id
        data = b"".join((head.upstream_head, CRLF, lines, VIA, CRLF, body))
    else:
        exchange.request_id = own_id = exchange.plane.next_id()
        data = b"".join((head.upstream_head, CRLF, lines, _VIA_AND_ID, own_id, END, body))
    if not exchange.bodyless:
        upstream.direct = exchange
    upstream.exchange = exchange
    upstream.reading = _HEAD
    upstream.served += 1
    upstream.transport.write(data)  # type: ignore[union-attr]
    client.deadline = deadline


def answered(exchange: "Exchange", upstream: "Upstream", data: bytes) -> bool:
    """Passes on an answer that came whole, with a head such as was seen before, and ends the
    exchange; False, with nothing done, where it is not such an answer."""
    plane, client = exchange.plane, cast("Downstream", exchange.client)
    end = data.find(END)
    if end < 0:
        return False
    transport = client.transport
    endpoint, service = exchange.endpoint, exchange.service
    if transport is None or endpoint is None or not client.usual:
        return False
    raw = data[:end]
    recall = plane.recall
    head = recall.responses.get(raw) or recall.known_response(raw, data, endpoint.answers)
    if head is None or not head.fast_path_ok:
        return False
    body = data[end + 4 :]
    size = len(body)
    if head.body_length != size and not (head.body_length == CHUNKED and is_complete(body)):
        return False
    now = plane.clock()
    total = now - exchange.started
    status = head.status
    if endpoint.answered(total, now, exchange.load):
        service.refresh(now)
    transport.write(head.client_head + body if size else head.client_head)
    # The connection goes back to the pool.
    exchange.phase = OVER
    upstream.exchange = None
    if head.keep_alive_timeout:
        upstream.heard_limit(head.keep_alive_timeout)
    if endpoint.serving and len(endpoint.idle) < IDLE_MOST and not upstream.closing:
        if upstream.paused:
            upstream.resume()
        upstream.idle_since = now
        upstream.idle_until = now + upstream.idle_limit
        endpoint.idle.append(upstream)
    else:
        upstream.discard()
    # What is counted; all times are the same one.
    log = plane.access_log
    if log is not None and log.should_log(status, plane.dice()):
        accounting.write_usual(exchange, log, now, status, size)
    counters = service.counters
    counters.count_response(exchange.head.method, status)
    counters.bytes_in += exchange.bytes_in
    counters.bytes_out += size
    bucket = index(total)
    counters.fast_path_latency.record_bucket(bucket, total)
    own = endpoint.counters
    own.succeeded += 1
    own.latency.record_bucket(bucket, total)
    if exchange.caller:
        counters.end_call(exchange.caller, now)
    endpoint.finish(now)
    if not endpoint.serving and not own.in_flight:
        plane.endpoint_idle(endpoint)
    service.in_flight -= 1
    if service.waiting:
        dispatch.wake(service, now)
    client.exchange_over(now, complete=True)
    return True
