"""Spans at a collector: a real OTLP receiver, `meshd proxy`, and an origin that answers with the
`traceparent` that it got."""

import asyncio
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import ClientSession, UnixConnector
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from tests.processes.supervised import Supervised
from tests.support.otlp_collector import Collector, attributes, serve_collector
from tests.support.proxy_scene import Client, Origin, Visit, get
from tests.support.waiting import wait_until

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


async def origin(visit: Visit) -> None:
    """Answer with the trace context of the request; with an error if the path is `/bad`."""
    while True:
        head = await visit.head()
        body = b"|".join(re.findall(rb"(?mi)^trace(?:parent|state): .*?(?=\r)", head))
        status = b"500 Bad" if b" /bad" in head else b"200 OK"
        await visit.send(b"HTTP/1.1 %b\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body))


@asynccontextmanager
async def scene(tmp_path: Path, text: str) -> AsyncIterator[tuple[Collector, Supervised, str, str]]:
    async with serve_collector() as (collector, url):
        behind = await Origin(origin).start()
        file = tmp_path / "front.yml"
        file.write_text(
            f"listen: 127.0.0.1:0\nto: 127.0.0.1:{behind.port}\nadmin: unix:{tmp_path}/admin\n"
            f"otlp: {{endpoint: '{url}', service_name: edge, {text}}}\n"
        )
        argv = [sys.executable, "-m", "meshd.cli.main", "proxy", "--config", str(file)]
        running = Supervised(argv, tmp_path / "log")
        try:
            yield collector, running, await running.listening(), f"{tmp_path}/admin"
        finally:
            running.close()
            behind.stop()


async def ask(address: str, path: str, *lines: str) -> str:
    """Return the trace context that the origin got."""
    host, _, port = address.rpartition(":")
    client = Client(*await asyncio.open_connection(host, int(port)))
    await client.send(get(path, *lines))
    _, _, body = await client.response()
    client.close()
    return body.decode()


async def test_spans_have_the_right_parents(tmp_path: Path) -> None:
    async with scene(tmp_path, "sample: 100%") as (collector, running, address, admin):
        new = await ask(address, "/new?q=1", "User-Agent: test/1")
        given = f"traceparent: 00-{TRACE}-{PARENT}-01"
        child = await ask(address, "/child", given, "tracestate: a=1")
        unsampled = await ask(address, "/not", f"traceparent: 00-{TRACE}-{PARENT}-00")
        assert unsampled == f"traceparent: 00-{TRACE}-{PARENT}-00"
        broken = await ask(address, "/broken", "traceparent: 00-xyz-01", "tracestate: a=1")
        await ask(address, "/bad")
        await wait_until(lambda: len(collector.spans()) >= 4, 10, "spans came")
        spans = collector.spans()
        assert set(spans) == {"/new", "/child", "/broken", "/bad"}

        def context(of: Span) -> str:
            return f"00-{of.trace_id.hex()}-{of.span_id.hex()}-01"

        assert new == f"traceparent: {context(spans['/new'])}"
        assert spans["/new"].parent_span_id == b""
        values = attributes(spans["/new"])
        assert (values["http.request.method"], values["url.query"]) == ("GET", "q=1")
        assert (values["http.response.status_code"], values["user_agent.original"]) == (
            "200",
            "test/1",
        )
        assert values["meshd.service"] == "proxy/upstream"
        assert spans["/new"].kind == Span.SPAN_KIND_SERVER
        length = spans["/new"].end_time_unix_nano - spans["/new"].start_time_unix_nano
        assert 0 < length < 5e9
        (resource, *_) = collector.requests[0].resource_spans
        assert ("service.name", "edge") in {
            (each.key, each.value.string_value) for each in resource.resource.attributes
        }
        of_child = spans["/child"]
        assert (of_child.trace_id.hex(), of_child.parent_span_id.hex()) == (TRACE, PARENT)
        assert sorted(child.split("|")) == [f"traceparent: {context(of_child)}", "tracestate: a=1"]
        assert of_child.trace_state == "a=1"
        assert broken == f"traceparent: {context(spans['/broken'])}"
        assert spans["/broken"].parent_span_id == b""
        assert spans["/bad"].status.code == Status.STATUS_CODE_ERROR
        # What the collector does not take is lost, counted, and costs no request.
        collector.refuses = True
        await ask(address, "/lost")
        await wait_until(lambda: collector.refused > 0, 10, "refused")
        collector.refuses = False
        await ask(address, "/last")

        async def exported() -> bool:
            return "meshd_spans_exported_total 5.0" in await metrics(admin)

        await wait_until(exported, 10, "five spans exported", interval=0.1)
        assert 'meshd_dropped_total{what="spans"} 1.0' in await metrics(admin)
        # What is left goes out at the end.
        await ask(address, "/end")
        running.signal(signal.SIGTERM)
        assert await running.ended() == 0
        assert "/end" in collector.spans()


async def test_exemplars_have_the_ids_of_recorded_traces(tmp_path: Path) -> None:
    async with scene(tmp_path, "sample: 100%") as (_, _, address, admin):
        await ask(address, "/recorded", f"traceparent: 00-{TRACE}-{PARENT}-01")
        await ask(address, "/unrecorded", f"traceparent: 00-{'1' * 32}-{PARENT}-00")
        accept = "application/openmetrics-text;version=1.0.0"

        async def exemplars() -> list[str]:
            return re.findall(r'# {trace_id="(\w+)"} \S+ \S+\n', await metrics(admin, accept))

        await wait_until(exemplars, 10, "an exemplar", interval=0.1)
        assert await exemplars() == [TRACE]
        assert "trace_id" not in await metrics(admin)


async def metrics(path: str, accept: str = "*/*") -> str:
    async with (
        ClientSession(connector=UnixConnector(path), headers={"Accept": accept}) as session,
        session.get("http://admin/metrics") as answer,
    ):
        return await answer.text()


@pytest.mark.parametrize("options", [("proxy", "--to", "127.0.0.1:9"), ("up", "--adopt")])
def test_a_missing_extra_says_what_to_install(options: tuple[str, ...]) -> None:
    code = (
        "import sys; sys.modules['opentelemetry'] = None\nfrom meshd.cli.main import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *options, "--otlp", "http://127.0.0.1:4318"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "pip install 'meshd[otlp]'" in done.stderr
