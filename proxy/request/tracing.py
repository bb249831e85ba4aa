"""Traces of an exchange: the `traceparent` field for the upstream, and the exchange's span.

`Exchange` and the fast path call the functions that decide and store what they return; `headers`
and `accounting` call those that use it.
"""

import time
from random import getrandbits
from typing import TYPE_CHECKING, Final

from proxy.observe.access_log import hide_token
from proxy.observe.spans import NOT_RECORDED, Span, Value
from proxy.observe.trace import continue_trace, parse_traceparent

if TYPE_CHECKING:
    from proxy.observe.trace import TraceContext
    from proxy.request.exchange import Exchange

PARENT: Final = frozenset((b"traceparent",))
PARENT_AND_STATE: Final = frozenset((b"traceparent", b"tracestate"))
"""A state is invalid without its parent (W3C Trace Context, section 3.3)."""


def begin_span(exchange: "Exchange") -> "TraceContext":
    """Return the span of a request, or NOT_RECORDED. Without a span its trace fields pass
    unchanged. For services that do not start traces themselves."""
    spans = exchange.plane.spans
    assert spans is not None
    given = exchange.head.field(b"traceparent")
    return spans.start_span(given, exchange.plane.random(), getrandbits)


def begin(exchange: "Exchange") -> "tuple[bytes, TraceContext | None]":
    """Return the `traceparent` for the upstream, empty if the client's stays, and the span."""
    given = exchange.head.field(b"traceparent")
    plane, share = exchange.plane, exchange.service.config.trace
    spans, span = plane.spans, exchange.span
    if spans is not None:
        if span is None:
            span = spans.start_span(given, plane.random(), getrandbits, share)
        if span is not NOT_RECORDED:
            return span.header(), span
    if share is None or parse_traceparent(given) is not None:
        return b"", span
    sampled = spans is None and plane.random() < share
    return continue_trace(None, getrandbits, sampled).header(), span


def header_line(exchange: "Exchange") -> tuple[bytes, frozenset[bytes]]:
    """Return the field line to add for the upstream, and the names of the client's fields that
    it replaces."""
    if not exchange.trace:
        return b"", frozenset()
    given = exchange.head.field(b"traceparent")
    line = b"traceparent: %b\r\n" % exchange.trace
    if given is None:
        return line, frozenset()
    return line, PARENT if parse_traceparent(given) is not None else PARENT_AND_STATE


def record_span(exchange: "Exchange", now: float) -> None:
    """Record the span of an exchange that has ended, if it has one."""
    spans, span = exchange.plane.spans, exchange.span
    assert spans is not None
    head = exchange.head
    if span is None:
        share = exchange.service.config.trace if exchange.counted else None
        given = head.field(b"traceparent")
        span = spans.start_span(given, exchange.plane.random(), getrandbits, share)
    if span is NOT_RECORDED:
        return
    end = time.time()
    if exchange.counted and not exchange.background and not _is_stream(exchange):
        exchange.service.counters.add_exemplar(
            span.trace_id.decode("latin-1"), now - exchange.started, end
        )
    route = exchange.route.route.path if exchange.route is not None else ""
    failed = exchange.failure is not None or exchange.status >= 500
    reason = exchange.failure.reason if exchange.failure is not None else str(exchange.status)
    state = head.field(b"tracestate") if span.parent_id else None
    spans.add(
        Span(
            trace=span,
            state=(state or b"").decode("latin-1"),
            name=f"{head.method.decode('latin-1')} {route}".strip(),
            start=end - (now - exchange.started),
            end=end,
            attributes=_attributes(exchange, now),
            failure=reason if failed else "",
        )
    )


def _is_stream(exchange: "Exchange") -> bool:
    """Whether the exchange has no latency, because its client or its server chose when it ended."""
    return exchange.status == 101 or exchange.streaming


def _attributes(exchange: "Exchange", now: float) -> dict[str, Value]:
    """Attributes by the OpenTelemetry semantic conventions for HTTP, and our own with the prefix
    `meshd`."""
    head, endpoint = exchange.head, exchange.endpoint
    assert exchange.plane.spans is not None
    target = hide_token(head.target.decode("latin-1"))
    path, _, query = exchange.plane.spans.redact(target).partition("?")
    first_byte_at = exchange.first_byte_at
    found: dict[str, Value | None] = {
        "http.request.method": head.method.decode("latin-1"),
        "http.response.status_code": exchange.status or None,
        "url.scheme": exchange.client.scheme.decode(),
        "url.path": path,
        "url.query": query,
        "network.protocol.version": "2" if head.http2 else "1.0" if head.http10 else "1.1",
        "server.address": (head.host or b"").decode("latin-1"),
        "client.address": exchange.client.source,
        "network.peer.address": exchange.client.peer,
        "user_agent.original": (head.field(b"user-agent") or b"").decode("latin-1"),
        "http.request.body.size": exchange.bytes_in or None,
        "http.response.body.size": exchange.bytes_out,
        "http.request.resend_count": exchange.retries or None,
        "error.type": exchange.failure.reason if exchange.failure is not None else "",
        "meshd.service": exchange.service.name if exchange.counted else "",
        "meshd.endpoint": endpoint.id if endpoint is not None else "",
        "meshd.revision": endpoint.endpoint.revision if endpoint is not None else "",
        "meshd.caller": exchange.caller,
        "meshd.request_id": exchange.request_id.decode("latin-1"),
        "meshd.queue_seconds": exchange.queue_seconds or None,
        "meshd.connect_seconds": exchange.connect_seconds or None,
        "meshd.first_byte_seconds": first_byte_at - exchange.sent_at if first_byte_at else None,
        "meshd.body_seconds": now - first_byte_at if first_byte_at else None,
    }
    return {name: value for name, value in found.items() if value is not None and value != ""}
