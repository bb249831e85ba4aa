"""What an exchange has to do with traces: the `traceparent` that goes on, and its span."""

import time
from random import getrandbits
from typing import TYPE_CHECKING, Final

from proxy.observe.spans import NOT_RECORDED, Span, Value
from proxy.observe.trace import continue_trace, parse_traceparent

if TYPE_CHECKING:
    from proxy.request.exchange import Exchange

PARENT: Final = frozenset((b"traceparent",))
WHOLE: Final = frozenset((b"traceparent", b"tracestate"))
"""A state says nothing without its parent (W3C Trace Context, section 3.3)."""


def line(exchange: "Exchange") -> tuple[bytes, frozenset[bytes]]:
    """The field line to add for the origin, and the client's fields that it replaces."""
    given = exchange.head.field(b"traceparent")
    known = parse_traceparent(given) is not None
    if not exchange.trace:
        exchange.trace = _started(exchange, given, known=known)
    if not exchange.trace:
        return b"", frozenset()
    replaced = PARENT if known else WHOLE
    return b"traceparent: %b\r\n" % exchange.trace, replaced if given is not None else frozenset()


def has_span(exchange: "Exchange") -> bool:
    """Whether there is to be a span of a request; where there is none, nothing of its trace
    changes on the way. Not for a service that starts traces."""
    spans = exchange.plane.spans
    assert spans is not None
    given = exchange.head.field(b"traceparent")
    exchange.span = spans.start_span(given, exchange.plane.dice(), getrandbits)
    return exchange.span is not NOT_RECORDED


def _started(exchange: "Exchange", given: bytes | None, *, known: bool) -> bytes:
    """The `traceparent` that goes on in place of the one given; empty where that stays."""
    spans, share = exchange.plane.spans, exchange.service.config.trace
    if spans is not None:
        if exchange.span is None:
            exchange.span = spans.start_span(given, exchange.plane.dice(), getrandbits, share)
        if exchange.span is not NOT_RECORDED:
            return exchange.span.header()
    if known or share is None:
        return b""
    sampled = spans is None and exchange.plane.dice() < share
    return continue_trace(None, getrandbits, sampled).header()


def ended(exchange: "Exchange", now: float) -> None:
    """Records the span of an exchange that is over, if it has one."""
    spans = exchange.plane.spans
    assert spans is not None
    head = exchange.head
    if exchange.span is None:
        share = exchange.service.config.trace if exchange.counted else None
        given = head.field(b"traceparent")
        exchange.span = spans.start_span(given, exchange.plane.dice(), getrandbits, share)
    if exchange.span is NOT_RECORDED:
        return
    end = time.time()
    route = exchange.plan.route.path if exchange.plan is not None else ""
    failed = exchange.failure is not None or exchange.status >= 500
    why = exchange.failure.reason if exchange.failure is not None else str(exchange.status)
    state = head.field(b"tracestate") if exchange.span.parent_id else None
    spans.add(
        Span(
            trace=exchange.span,
            state=(state or b"").decode("latin-1"),
            name=f"{head.method.decode('latin-1')} {route}".strip(),
            start=end - (now - exchange.started),
            end=end,
            attributes=_attributes(exchange, now),
            failure=why if failed else "",
        )
    )


def _attributes(exchange: "Exchange", now: float) -> dict[str, Value]:
    """Names of the OpenTelemetry semantic conventions for HTTP, and our own under `meshd`."""
    head, endpoint = exchange.head, exchange.endpoint
    path, _, query = head.target.decode("latin-1").partition("?")
    first_byte_at = exchange.first_byte_at
    found: dict[str, Value | None] = {
        "http.request.method": head.method.decode("latin-1"),
        "http.response.status_code": exchange.status or None,
        "url.scheme": "http",
        "url.path": path,
        "url.query": query,
        "network.protocol.version": "1.0" if head.http10 else "1.1",
        "server.address": (head.host or b"").decode("latin-1"),
        "client.address": exchange.client.peer,
        "user_agent.original": (head.field(b"user-agent") or b"").decode("latin-1"),
        "http.request.body.size": exchange.bytes_in or None,
        "http.response.body.size": exchange.bytes_out,
        "http.request.resend_count": exchange.attempts or None,
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
