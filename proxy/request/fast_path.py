"""The fast path: a shorter form of what `Exchange` does, for requests that need nothing special.

Most requests arrive complete, match a route without rules, find an idle connection to
their endpoint and get a response that arrives complete. `start` and `pass_response` do for these
what `Exchange` does, without asking each time about everything that could be different. What can be
asked once is asked earlier:

- when the snapshot is installed: `ServiceState.fast_path_ok`, `CompiledRoute.fast_path_ok`;
- when the head is read: it matches a request template, and `ClientSink.fast_path_ok` holds.

At the first sign of anything else they leave the exchange to its methods (the slow path), in a
state that these know. This module alone may write the attributes of `Exchange` and `Upstream` from
outside. Where it repeats a function instead of calling it, a comment names the function and what
the call would cost: percent of the instructions of a request in plain Python (`bench.logic` under
cachegrind). Compiled, these calls cost next to nothing.
"""

from typing import TYPE_CHECKING, Final

from proxy.http1.chunked import is_complete
from proxy.http1.framing import CHUNKED
from proxy.http1.request import END
from proxy.http1.request_body import BufferedBody
from proxy.http1.rewrite import CRLF
from proxy.observe.spans import NOT_RECORDED
from proxy.request import accounting, dispatch, resolve, tracing
from proxy.request.connection_pool import MAX_IDLE
from proxy.request.phases import OVER, SENT
from proxy.wire.buckets import index

if TYPE_CHECKING:
    from proxy.http1.response import ResponseHead
    from proxy.request.exchange import Exchange
    from proxy.request.upstream import Upstream
    from proxy.state.service_state import ServiceState

_HEAD: Final = 1
"""`proxy.request.upstream.HEAD`; that module imports this one."""
_REQUEST_ID: Final = b"X-Request-Id: "


def start(exchange: "Exchange", body: bytes, now: float, public: bool) -> None:
    """Start a complete request whose head matches a template; `public` says that it came to a
    public listener. Send it on an idle connection, or leave it to the slow path. The same as
    `Exchange.start`, `Exchange.admit`, `dispatch.dispatch` and `Exchange.go_to`."""
    head = exchange.head
    service: ServiceState | None = None
    if public:
        route = exchange.route = exchange.plane.routing.fast_path_route(head.host or b"")
        if route is not None:
            service = route.service
            if service is not None and head.length > service.max_body:
                service = None
    else:
        service = _called_service(exchange, now)
    if service is None:
        exchange.start(body, True)
        return
    if body:
        exchange.body = BufferedBody(body)
        exchange.bytes_in = head.length
    exchange.service = service
    exchange.counted = True
    service.counters.arrivals += 1
    service.in_flight += 1
    service.budget.deposit(now)
    deadline = now + service.first_byte_timeout
    if service.request_timeout:
        exchange.last_deadline = last = now + service.request_timeout
        deadline = min(last, deadline)
    found = service.fast_candidates
    if len(found) == 1:
        endpoint = found[0]
    elif found:
        endpoint = found[service.picker.pick(found, None, exchange.plane.random, now)]
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
        or not (exchange.idempotent or now - upstream.idle_since <= endpoint.idle_age.fresh)
        or (service.traces and _has_span(exchange))
    ):
        exchange.go_to(endpoint, now)
        return
    idle.pop()
    # `Attempt.begin_attempt`, inlined: 0.6 %.
    exchange.load = endpoint.in_flight
    endpoint.start(now)
    exchange.endpoint = endpoint
    exchange.sent_at = now
    exchange.upstream = upstream
    exchange.reused = True
    exchange.phase = SENT
    client = exchange.client
    lines = client.forwarded_lines(head)
    if head.has_id:
        exchange.request_id = head.request_id
        data = b"".join((head.upstream_head, CRLF, lines, CRLF))
    else:
        exchange.request_id = own_id = exchange.plane.next_id()
        data = b"".join((head.upstream_head, CRLF, lines, _REQUEST_ID, own_id, END))
    if body:
        exchange.body_sent()
        data += body
    if not exchange.bodyless:
        upstream.fast_path_sink = exchange
    # `Upstream.send`, inlined: 0.7 %.
    upstream.sink = exchange
    upstream.reading = _HEAD
    upstream.requests += 1
    upstream.transport.write(data)  # type: ignore[union-attr]
    # `ClientSink.expire_at`, inlined: 0.6 %.
    client.deadline = deadline


def _called_service(exchange: "Exchange", now: float) -> "ServiceState | None":
    """The service that another service calls. None, with nothing changed, if the call must not
    take the fast path."""
    head, client, routing = exchange.head, exchange.client, exchange.plane.routing
    listener, address, rest = client.listener, client.peer, b""
    if listener.kind == "token":
        prefix = resolve.TOKEN_PATH
        cut = head.target.find(b"/", head.target.find(b"/", len(prefix)) + 1)
        if cut < len(prefix) or not head.target.startswith(prefix):
            return None
        address, host, rest = "", head.target[:cut], head.target[cut:]
    else:
        host = head.host or b""
    call = routing.fast_path_calls.get((listener.address, address, host))
    if call is None:
        call = resolve.find_fast_path_call(routing, listener, address, host)
        if call is None:
            return None
    service, caller = call
    if head.length > service.max_body:
        return None
    if rest:
        behind = head.upstream_head[len(head.method) + 1 + len(head.target) :]
        head.upstream_head = b"%b %b%b" % (head.method, rest, behind)
        exchange.target = rest
    exchange.caller = caller
    service.counters.start_call(caller, now)
    return service


def _has_span(exchange: "Exchange") -> bool:
    """Decide whether the request has a span."""
    exchange.span = tracing.begin_span(exchange)
    return exchange.span is not NOT_RECORDED


def pass_response(exchange: "Exchange", upstream: "Upstream", data: bytes) -> bool:
    """Pass on a response that arrived complete and whose head is known, and end the exchange.
    Return False, with nothing changed, if `data` is not one. The same as
    `Exchange.whole_response`."""
    plane, client = exchange.plane, exchange.client
    endpoint, service = exchange.endpoint, exchange.service
    if endpoint is None or not client.fast_path_ok:
        return False
    # Most heads equal the one before. A comparison takes a twentieth of the instructions of a
    # search for the end of the head and a lookup, which hashes the head.
    templates = endpoint.response_templates
    body = data.removeprefix(templates.last_bytes)
    head: ResponseHead | None = None
    if len(body) != len(data):
        head = templates.last
    else:
        raw, end, body = data.partition(END)
        if end:
            head = plane.head_cache.find_response(raw, templates)
    if head is None or not head.fast_path_ok:
        return False
    size = len(body)
    if head.body_length != size and not (head.body_length == CHUNKED and is_complete(body)):
        return False
    now = plane.clock()
    total = now - exchange.started
    if endpoint.record_success(total, now, exchange.load):
        service.refresh(now)
    client.respond(head.client_head, body)
    exchange.phase = OVER
    if head.keep_alive_timeout:
        upstream.limit_idle(head.keep_alive_timeout)
    # `connection_pool.keep` and `Upstream.make_idle`, inlined: 1.3 %.
    if endpoint.serving and len(endpoint.idle) < MAX_IDLE and not upstream.closing:
        if upstream.paused:
            upstream.resume()
        upstream.sink = None
        upstream.idle_since = now
        upstream.idle_until = now + upstream.idle_limit
        endpoint.idle.append(upstream)
    else:
        upstream.discard()
    if plane.access_log is not None:
        accounting.log_fast_path(exchange, service, endpoint, now, head.status, size)
    if total >= plane.record_after:
        accounting.record_short_flight(exchange, service, endpoint, now, head.status, size)
    # `accounting.record`, for an exchange that was sent as it began and whose first byte was the
    # last one too: its times are one.
    counters = service.counters
    counters.count_response(exchange.head.method, head.status)
    counters.bytes_in += exchange.bytes_in
    counters.bytes_out += size
    bucket = index(total)
    counters.fast_path_latency.record_bucket(bucket, total)
    own = endpoint.counters
    own.succeeded += 1
    own.latency.record_bucket(bucket, total)
    if exchange.caller:
        counters.finish_call(exchange.caller, now, head.status >= 500, bucket, total)
    # `connection_pool.end_attempt`, inlined: 0.8 %.
    endpoint.finish(now)
    if not endpoint.serving and not own.in_flight:
        plane.endpoint_idle(endpoint)
    # `dispatch.request_over`, inlined: 0.7 %. A service with limits has no fast path.
    service.in_flight -= 1
    if service.waiting:
        dispatch.wake(service, now)
    client.exchange_over(now, complete=True)
    return True
