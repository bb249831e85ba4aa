"""An OTLP/HTTP receiver that decodes what it gets with the messages of opentelemetry-proto."""

import base64
import gzip
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web
from google.protobuf import json_format
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

IDS = ("traceId", "spanId", "parentSpanId")
"""The fields that OTLP has in hexadecimal digits, where Protocol Buffers have Base64."""


class Collector:
    """The spans that were received. While `refuses` is set, it rejects everything."""

    def __init__(self) -> None:
        self.requests: list[ExportTraceServiceRequest] = []
        self.refuses = False
        self.refused = 0

    async def take(self, request: web.Request) -> web.Response:
        if self.refuses:
            self.refused += 1
            return web.Response(status=400)
        body = await request.read()
        if body[:2] == b"\x1f\x8b":
            body = gzip.decompress(body)
        if request.content_type == "application/json":
            self.requests.append(decode_json(body))
        else:
            assert request.content_type == "application/x-protobuf"
            self.requests.append(ExportTraceServiceRequest.FromString(body))
        return web.Response()

    def spans(self) -> dict[str, Span]:
        """Return the spans by the path of their request."""
        return {attributes(span)["url.path"]: span for _, span in self.by_service()}

    def by_service(self) -> list[tuple[str, Span]]:
        """Return all spans, each with the name of the service that sent it."""
        return [
            (service_of(resource.resource.attributes), span)
            for request in self.requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]


def service_of(found: Any) -> str:
    return next(str(each.value.string_value) for each in found if each.key == "service.name")


def attributes(span: Span) -> dict[str, str]:
    return {
        each.key: str(getattr(each.value, each.value.WhichOneof("value")))
        for each in span.attributes
    }


def decode_json(body: bytes) -> ExportTraceServiceRequest:
    """Decode the JSON form. Unknown fields, wrong types and wrong lengths of ids are errors."""
    request = json.loads(body)
    for resource in request["resourceSpans"]:
        for scope in resource["scopeSpans"]:
            for span in scope["spans"]:
                for name in IDS:
                    raw = bytes.fromhex(span[name])
                    assert len(raw) == (16 if name == "traceId" else 8)
                    span[name] = base64.b64encode(raw).decode()
    return json_format.ParseDict(request, ExportTraceServiceRequest())


@asynccontextmanager
async def serve_collector() -> AsyncIterator[tuple[Collector, str]]:
    """Run a collector, and yield it with its URL."""
    collector = Collector()
    app = web.Application()
    app.router.add_post("/v1/traces", collector.take)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield collector, f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()
