"""One trace through the proxy and the services of the demo, at a real OTLP receiver."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import ClientSession
from aiohttp.test_utils import TestServer
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from demo_services import auth, couriers, orders, payments, restaurants, tracking
from demo_services.replica import Replica, Work, complete
from demo_services.tracing import ENDPOINT
from proxy.ipc.config import SpanConfig
from proxy.observe.spans import SpanQueue
from proxy.wire.snapshot import Endpoint, Service
from proxy.worker.span_exporter import SpanExporter
from tests.support.http2 import create_client
from tests.support.http2_origin import with_http2
from tests.support.otlp_collector import Collector, attributes, serve_collector
from tests.support.proxy_policies import route
from tests.support.proxy_scene import on_uvloop, scene
from tests.support.waiting import wait_until

SERVICES = {
    "auth": auth.build,
    "orders": orders.build,
    "payments": payments.build,
    "restaurants": restaurants.build,
    "tracking": tracking.build,
}
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-"


@asynccontextmanager
async def application(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[Collector, str]]:
    """The services of the demo behind a proxy, all with one collector; yields it and the URL of
    the proxy."""
    async with AsyncExitStack() as stack:
        collector, url = await stack.enter_async_context(serve_collector())
        monkeypatch.setenv("DATA_DIR", str(tmp_path))
        monkeypatch.setenv(ENDPOINT, url)
        spans = SpanQueue(1.0)
        exporter = SpanExporter(spans, SpanConfig(f"{url}/v1/traces", service_name="proxy"))
        exporter.start()
        stack.push_async_callback(asyncio.to_thread, exporter.stop)
        plane = with_http2(spans=spans, create_http2_client=create_client)
        s = await stack.enter_async_context(scene(plane))
        front = f"http://127.0.0.1:{s.port}"
        for name in (*SERVICES, "couriers"):
            monkeypatch.setenv(f"MESH_URL_{name.upper()}", front)
        work = Work(mean=0.001, cv=0.1)
        services, routes = [], []
        for name, build in SERVICES.items():
            replica = Replica(name, work)
            app = build(replica)
            complete(app, replica)
            server = await stack.enter_async_context(TestServer(app))
            assert server.port is not None
            services.append(Service(name, "1", (Endpoint(name, "127.0.0.1", server.port),)))
            routes.append(route(name, path=f"/{name}"))
        courier = Replica("couriers", work)
        grpc_server = couriers.build(courier)
        ends = (Endpoint("couriers", "127.0.0.1", grpc_server.add_insecure_port("127.0.0.1:0")),)
        await grpc_server.start()
        stack.push_async_callback(asyncio.to_thread, courier.tracer.close)
        stack.push_async_callback(grpc_server.stop, 1)
        services.append(Service("couriers", "1", ends, http_version="h2c"))
        routes.append(route("couriers", path=f"/{couriers.SERVICE}"))
        s.install(*services, routes=tuple(routes))
        yield collector, front


def tree(collector: Collector) -> dict[str, str]:
    """Return each span as `SERVICE PATH` with its parent in the same form."""
    names = {
        span.span_id: f"{service} {attributes(span).get('url.path', span.name)}"
        for service, span in collector.by_service()
    }
    return {
        names[span.span_id]: names.get(span.parent_span_id, span.parent_span_id.hex())
        for _, span in collector.by_service()
    }


@on_uvloop
async def test_an_order_is_one_trace_of_proxy_and_services(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with application(tmp_path, monkeypatch) as (collector, front):
        token = auth.issue("eve", time.time())
        async with (
            ClientSession() as session,
            session.post(
                f"{front}/orders",
                json={"restaurant": 7, "dishes": [1]},
                headers={"Authorization": f"Bearer {token}"},
            ) as answer,
        ):
            assert answer.status == 201, await answer.text()
        await wait_until(lambda: len(collector.by_service()) >= 8, 10, "all spans came")
        menu = "/restaurants/7/menu"
        assert tree(collector) == {
            "proxy /orders": "",
            "orders /orders": "proxy /orders",
            "proxy /auth/verify": "orders /orders",
            "auth /auth/verify": "proxy /auth/verify",
            f"proxy {menu}": "orders /orders",
            f"restaurants {menu}": f"proxy {menu}",
            "proxy /payments": "orders /orders",
            "payments /payments": "proxy /payments",
        }
        spans = [span for _, span in collector.by_service()]
        assert len({span.trace_id for span in spans}) == 1
        assert {span.kind for span in spans} == {Span.SPAN_KIND_SERVER}
        paid = next(span for service, span in collector.by_service() if service == "payments")
        assert (paid.name, paid.status.code) == ("POST /payments", 0)
        assert attributes(paid)["http.response.status_code"] == "201"
        assert 0 < paid.start_time_unix_nano < paid.end_time_unix_nano


@on_uvloop
async def test_calls_by_grpc_are_in_the_trace_and_the_caller_decides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with application(tmp_path, monkeypatch) as (collector, front), ClientSession() as session:
        for flags in ("00", "01"):
            headers = {"traceparent": TRACE + flags, "tracestate": "a=1"}
            url = f"{front}/tracking/{flags}/position"
            async with session.get(url, headers=headers) as answer:
                assert answer.status == 200, await answer.text()
        await wait_until(lambda: len(collector.by_service()) >= 4, 10, "all spans came")
        called = f"/{couriers.SERVICE}/Locate"
        assert tree(collector) == {
            "proxy /tracking/01/position": TRACE[-17:-1],
            "tracking /tracking/01/position": "proxy /tracking/01/position",
            f"proxy {called}": "tracking /tracking/01/position",
            f"couriers {called[1:]}": f"proxy {called}",
        }
        assert {span.trace_state for _, span in collector.by_service()} == {"a=1"}
