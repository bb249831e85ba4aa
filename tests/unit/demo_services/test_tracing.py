"""The spans of a demo service: which requests get one, and what happens without a collector."""

import pytest
from aiohttp.test_utils import TestClient, TestServer

from demo_services import payments
from demo_services.replica import Replica, Work, complete
from demo_services.tracing import (
    ENDPOINT,
    MAX_PENDING,
    SERVICE_NAME,
    Tracer,
    outgoing,
    passing_on,
    tracer_from_environment,
)
from tests.support.otlp_collector import attributes, serve_collector
from tests.support.ports import free_port
from tests.support.waiting import wait_until

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED = {"traceparent": f"00-{TRACE}-{PARENT}-01"}


@pytest.mark.parametrize(
    ("given", "continues"),
    [
        ({}, False),
        (SAMPLED, True),
        ({"traceparent": f"00-{TRACE}-{PARENT}-00"}, False),
        ({"traceparent": f"cc-{TRACE}-{PARENT}-01-more"}, True),
        ({"traceparent": f"ff-{TRACE}-{PARENT}-01"}, False),
        ({"traceparent": f"00-{'0' * 32}-{PARENT}-01"}, False),
        ({"traceparent": f"00-{TRACE}-{'0' * 16}-01"}, False),
        ({"traceparent": "nonsense"}, False),
    ],
)
def test_the_caller_decides_whether_there_is_a_span(given: dict[str, str], continues: bool) -> None:
    tracer = Tracer({}, "http://127.0.0.1:1")
    with tracer.span("GET /", given) as span:
        assert (span is not None) is continues
    tracer.close()


def test_a_trace_is_passed_on_without_a_collector() -> None:
    given = {**SAMPLED, "tracestate": "a=1", "accept": "text/plain"}
    with Tracer({}).span("GET /", given) as span, passing_on(span, given):
        assert span is None
        assert outgoing() == {**SAMPLED, "tracestate": "a=1"}
    assert outgoing() == {}
    with passing_on(None, {"traceparent": "nonsense", "tracestate": "a=1"}):
        assert outgoing() == {}


def test_the_span_is_the_parent_of_what_it_calls() -> None:
    tracer = Tracer({}, "http://127.0.0.1:1")
    with tracer.span("GET /", SAMPLED) as span, passing_on(span, SAMPLED):
        assert span is not None
        assert outgoing() == {"traceparent": f"00-{TRACE}-{span.id}-01"}
    tracer.close()


def test_the_environment_names_the_collector(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENDPOINT, "http://collector:4318/")
    monkeypatch.setenv(SERVICE_NAME, "other")
    tracer = tracer_from_environment("test")
    assert tracer._resource["service.name"] == "other"
    assert tracer._url == "http://collector:4318/v1/traces"
    monkeypatch.setenv(ENDPOINT, "")
    assert tracer_from_environment("test")._url == ""


async def test_failures_are_marked_and_lost_spans_cost_no_request(
    monkeypatch: pytest.MonkeyPatch, tmp_path: object, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    monkeypatch.setattr("demo_services.tracing.EXPORT_SECONDS", 0.01)
    async with serve_collector() as (collector, url):
        monkeypatch.setenv(ENDPOINT, url)
        replica = Replica("payments", Work(mean=0.001, cv=0.1))
        app = payments.build(replica)
        complete(app, replica)
        async with TestClient(TestServer(app)) as http:
            collector.refuses = True
            for _ in range(2):
                await http.post("/payments", json={"id": "x", "amount": 1}, headers=SAMPLED)
                seen = collector.refused
                await wait_until(lambda seen=seen: collector.refused > seen, 5, "refused")  # type: ignore[misc]
            collector.refuses = False
            await http.post("/payments", json={"id": "y", "amount": -1}, headers=SAMPLED)
            replica.faults.failing = 1.0
            await http.post("/payments", json={"id": "z", "amount": 1}, headers=SAMPLED)
            assert (await http.get("/nowhere", headers=SAMPLED)).status == 404
        found = {
            (span.name, attributes(span)["http.response.status_code"]): span.status.code
            for _, span in collector.by_service()
        }
    assert found == {
        ("POST /payments", "400"): 0,
        ("POST /payments", "500"): 2,
        ("GET", "404"): 0,
    }
    assert capsys.readouterr().err.count("spans are lost: ") == 1


def test_a_collector_that_is_gone_keeps_the_memory_bounded() -> None:
    tracer = Tracer({}, f"http://127.0.0.1:{free_port()}")
    for _ in range(MAX_PENDING + 10):
        with tracer.span("GET /", SAMPLED):
            pass
    assert len(tracer._pending) <= MAX_PENDING
    tracer.close()
    assert not tracer._pending
