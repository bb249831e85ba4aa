"""Sends spans to a collector by OTLP over HTTP, in a thread.

Owned by `worker`; takes spans from `proxy.observe.spans`. Encoding, retries and environment
variables (`OTEL_EXPORTER_OTLP_HEADERS` and so on) are those of the OpenTelemetry SDK, which is
imported only if spans are exported. A collector that does not answer costs spans but never a
request: the queue is bounded, and lost spans are counted.
"""

import logging
import sys
import threading
from importlib.metadata import version
from typing import Final

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, TraceFlags, TraceState
from opentelemetry.trace.status import Status, StatusCode

from proxy.ipc.config import SpanConfig
from proxy.observe.spans import Span, SpanQueue

EXPORT_INTERVAL: Final = 1.0
"""Seconds between exports."""
BATCH_SIZE: Final = 512
"""Spans per request to the collector (the SDK's default)."""
TIMEOUT: Final = 10.0
"""Seconds for one export, retries included (the SDK's default)."""
_STOP_SECONDS: Final = 2.0
"""Seconds that a worker waits at its end for the last export."""
_NANOSECONDS: Final = 1_000_000_000
"""Per second."""


class SpanExporter:
    """Exports the spans of a queue. Call `start` once, and `stop` at the end of the worker."""

    def __init__(self, spans: SpanQueue, config: SpanConfig) -> None:
        self._spans = spans
        self._exporter = OTLPSpanExporter(endpoint=config.endpoint, timeout=TIMEOUT)
        self._resource = Resource.create({"service.name": config.service_name})
        self._scope = InstrumentationScope("meshd", version("meshd"))
        self._end = threading.Event()
        self._failing = False
        self._thread = threading.Thread(target=self._run, name="spans", daemon=True)

    def start(self) -> None:
        """Start to export once per second."""
        # The SDK logs every failed batch; this class prints one message.
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
        self._thread.start()

    def stop(self) -> None:
        """Export the rest and stop. Blocks for at most two seconds."""
        self._end.set()
        self._thread.join(_STOP_SECONDS)
        self._exporter.shutdown()  # type: ignore[no-untyped-call]

    def _run(self) -> None:
        while not self._end.wait(EXPORT_INTERVAL):
            self._export()
        self._export()

    def _export(self) -> None:
        while batch := self._spans.take(BATCH_SIZE):
            try:
                converted = [self._convert(span) for span in batch]
                success = self._exporter.export(converted) is SpanExportResult.SUCCESS
            except Exception as error:  # noqa: BLE001 (the next batch may succeed)
                print(f"spans: {type(error).__name__}: {error}", file=sys.stderr)
                success = False
            if success:
                self._spans.exported += len(batch)
            else:
                self._spans.dropped += len(batch)
            if success == self._failing:
                self._failing = not success
                text = (
                    "export works again" if success else "the collector failed; spans are dropped"
                )
                print(f"spans: {text}", file=sys.stderr)

    def _convert(self, span: Span) -> ReadableSpan:
        """Return the span as a span of the SDK."""
        trace_id, span_id = int(span.trace.trace_id, 16), int(span.trace.span_id, 16)
        flags, state = TraceFlags(TraceFlags.SAMPLED), TraceState.from_header([span.state])
        parent = None
        if span.trace.parent_id:
            parent_id = int(span.trace.parent_id, 16)
            parent = SpanContext(trace_id, parent_id, True, flags, state)
        return ReadableSpan(
            name=span.name,
            context=SpanContext(trace_id, span_id, False, flags, state),
            parent=parent,
            resource=self._resource,
            attributes=span.attributes,
            kind=SpanKind.SERVER,
            status=Status(StatusCode.ERROR, span.failure) if span.failure else Status(),
            start_time=int(span.start * _NANOSECONDS),
            end_time=int(span.end * _NANOSECONDS),
            instrumentation_scope=self._scope,
        )
