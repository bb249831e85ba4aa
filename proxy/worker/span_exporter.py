"""Sends spans to a collector by OTLP over HTTP, from a thread beside the requests.

The encoding, the retries and the environment variables (`OTEL_EXPORTER_OTLP_HEADERS` and so on)
are the OpenTelemetry SDK's, which is imported only where spans are exported. A collector that does
not answer costs spans, never a request: they wait bounded, and are counted when they are lost.
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

EVERY: Final = 1.0
BATCH: Final = 512
TIMEOUT: Final = 10.0
_GOODBYE: Final = 2.0
_NANO: Final = 1_000_000_000


class SpanExporter:
    """Takes what `spans` collects. `start` begins, `stop` sends what is left, for a moment."""

    def __init__(self, spans: SpanQueue, config: SpanConfig) -> None:
        self._spans = spans
        self._exporter = OTLPSpanExporter(endpoint=config.endpoint, timeout=TIMEOUT)
        self._resource = Resource.create({"service.name": config.service_name})
        self._scope = InstrumentationScope("meshd", version("meshd"))
        self._end = threading.Event()
        self._failing = False
        self._thread = threading.Thread(target=self._run, name="spans", daemon=True)

    def start(self) -> None:
        """Export once a second."""
        # What it says of each failed batch, we say once.
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
        self._thread.start()

    def stop(self) -> None:
        """Export what is left, and end. Blocks for two seconds at most."""
        self._end.set()
        self._thread.join(_GOODBYE)
        self._exporter.shutdown()  # type: ignore[no-untyped-call]

    def _run(self) -> None:
        while not self._end.wait(EVERY):
            self._export()
        self._export()

    def _export(self) -> None:
        while batch := self._spans.take(BATCH):
            try:
                made = [self._readable(span) for span in batch]
                good = self._exporter.export(made) is SpanExportResult.SUCCESS
            except Exception as error:  # noqa: BLE001 (whatever it is, the next batch may do)
                print(f"spans: {type(error).__name__}: {error}", file=sys.stderr)
                good = False
            if good:
                self._spans.exported += len(batch)
            else:
                self._spans.dropped += len(batch)
            if good == self._failing:
                self._failing = not good
                said = "taken again" if good else "not taken by the collector; they are dropped"
                print(f"spans: {said}", file=sys.stderr)

    def _readable(self, span: Span) -> ReadableSpan:
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
            start_time=int(span.start * _NANO),
            end_time=int(span.end * _NANO),
            instrumentation_scope=self._scope,
        )
