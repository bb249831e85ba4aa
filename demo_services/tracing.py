"""Traces: a service passes on the trace of a request, and adds its own span for a collector.

`replica` records the requests of the HTTP services, `couriers` its calls; `orders` and `tracking`
add `outgoing()` to what they call. Spans go to `$OTEL_EXPORTER_OTLP_ENDPOINT`, e.g.
http://127.0.0.1:4318, by OTLP over HTTP in JSON. Without that variable the trace is only passed on.
"""

import http.client
import json
import os
import re
import sys
import threading
import time
import urllib.request
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from random import SystemRandom
from typing import Any, Final

ENDPOINT: Final = "OTEL_EXPORTER_OTLP_ENDPOINT"
"""The variables have the names that the OpenTelemetry SDKs use."""
SERVICE_NAME: Final = "OTEL_SERVICE_NAME"
EXPORT_SECONDS: Final = 1.0
"""Seconds between two exports."""
TIMEOUT_SECONDS: Final = 5.0
"""Seconds for the collector to take a batch; it is lost after that."""
MAX_PENDING: Final = 2048
"""Spans that wait for the export; the oldest are lost if there are more."""
SERVER: Final = 2
"""SPAN_KIND_SERVER."""
ERROR: Final = 2
"""STATUS_CODE_ERROR."""
PARENT: Final = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?"
)
"""A `traceparent`: https://www.w3.org/TR/trace-context/#traceparent-header."""
_headers: ContextVar[Mapping[str, str] | None] = ContextVar("headers", default=None)
_random: Final = SystemRandom()


@dataclass
class Span:
    """The part of a trace in which a service handles a request.

    - `parent`: id of the span of the caller
    - `state`: the `tracestate` of the request
    - `start`, `end`: Unix time in nanoseconds
    - `failed`: true until it has ended with success
    """

    name: str
    trace: str
    parent: str
    state: str
    start: int
    end: int = 0
    failed: bool = True
    attributes: dict[str, str | int] = field(default_factory=dict)
    id: str = field(default_factory=lambda: f"{_random.getrandbits(64) or 1:016x}")

    def end_with(self, status: int) -> None:
        """Set the outcome: the status of the response."""
        self.attributes["http.response.status_code"] = status
        self.failed = status >= 500


def outgoing() -> dict[str, str]:
    """Return the headers that continue the trace of the current request; none if it has none."""
    return dict(_headers.get() or {})


@contextmanager
def passing_on(span: Span | None, headers: Mapping[str, str]) -> Iterator[None]:
    """Make `outgoing` continue `span` within the body; without a span the trace in the headers of
    the request."""
    sent: dict[str, str] = {}
    if PARENT.fullmatch(headers.get("traceparent", "")):
        sent = {name: headers[name] for name in ("traceparent", "tracestate") if name in headers}
    if span is not None:
        sent["traceparent"] = f"00-{span.trace}-{span.id}-01"
    token = _headers.set(sent)
    try:
        yield
    finally:
        _headers.reset(token)


class Tracer:
    """The spans of one replica. They are sent in a thread, which starts with the first one.

    `resource` describes the replica, in attributes of OpenTelemetry.
    """

    def __init__(self, resource: Mapping[str, str], endpoint: str = "") -> None:
        self._resource = resource
        self._url = endpoint.rstrip("/") + "/v1/traces" if endpoint else ""
        self._pending: deque[Span] = deque(maxlen=MAX_PENDING)
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._failing = False

    @contextmanager
    def span(self, name: str, headers: Mapping[str, str]) -> Iterator[Span | None]:
        """Record the body as a span, a child of the one in the headers of the request. Without a
        collector, or in a trace that the caller does not sample, nothing is recorded, and the body
        gets None."""
        parent = PARENT.fullmatch(headers.get("traceparent", "")) if self._url else None
        if parent is None or not int(parent[3], 16) & 1:
            yield None
            return
        state = headers.get("tracestate", "")
        span = Span(name, parent[1], parent[2], state, time.time_ns())
        try:
            yield span
        finally:
            span.end = time.time_ns()
            self._pending.append(span)
            self._start()

    def close(self) -> None:
        """Send what is left, and end."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join(TIMEOUT_SECONDS)

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="spans", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while not self._ended.wait(EXPORT_SECONDS):
            self._export()
        self._export()

    def _export(self) -> None:
        """Send all spans. A collector that fails is named once, until it works again."""
        spans = [self._pending.popleft() for _ in range(len(self._pending))]
        if not spans:
            return
        request = urllib.request.Request(  # noqa: S310 (the operator names the collector)
            self._url,
            json.dumps(encode(self._resource, spans)).encode(),
            {"Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS):  # noqa: S310 (as above)
                self._failing = False
        except (OSError, ValueError, http.client.HTTPException) as error:
            if not self._failing:
                print(f"spans are lost: {self._url}: {error}", file=sys.stderr, flush=True)
            self._failing = True


def tracer_from_environment(service: str) -> Tracer:
    """Return the tracer of a replica, with the collector that the environment names."""
    resource = {
        "service.name": os.environ.get(SERVICE_NAME) or service,
        "service.version": os.environ.get("APP_VERSION", "1"),
        "service.instance.id": os.environ.get("MESH_REPLICA", str(os.getpid())),
    }
    return Tracer(resource, os.environ.get(ENDPOINT, ""))


def encode(resource: Mapping[str, str], spans: list[Span]) -> dict[str, Any]:
    """Return spans as an ExportTraceServiceRequest of OTLP in its JSON form, which has ids in
    hexadecimal digits: https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding."""
    return {
        "resourceSpans": [
            {
                "resource": {"attributes": _attributes(resource)},
                "scopeSpans": [
                    {"scope": {"name": __name__}, "spans": [_encode_span(span) for span in spans]}
                ],
            }
        ]
    }


def _encode_span(span: Span) -> dict[str, Any]:
    return {
        "traceId": span.trace,
        "spanId": span.id,
        "parentSpanId": span.parent,
        "traceState": span.state,
        "name": span.name,
        "kind": SERVER,
        "startTimeUnixNano": str(span.start),
        "endTimeUnixNano": str(span.end),
        "attributes": _attributes(span.attributes),
        "status": {"code": ERROR} if span.failed else {},
    }


def _attributes(values: Mapping[str, str | int]) -> list[dict[str, Any]]:
    return [
        {
            "key": key,
            # 64-bit numbers are text in the JSON form of Protocol Buffers.
            "value": {"intValue": str(value)} if isinstance(value, int) else {"stringValue": value},
        }
        for key, value in values.items()
    ]
