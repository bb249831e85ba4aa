"""What counts as latency: of an event stream the time to its first byte, of an endpoint the time
without that to connect."""

import asyncio
import time
from typing import Any

import pytest

from proxy.request import connection_pool
from proxy.wire.buckets import quantile
from proxy.wire.report import ServiceReport
from tests.support.proxy_scene import Visit, answers, get, on_uvloop, scene
from tests.support.waiting import elapse

EVENTS = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"9\r\ndata: 1\n\n\r\n"
)


@on_uvloop
async def test_a_stream_is_counted_once_when_it_begins() -> None:
    go = asyncio.Event()

    async def script(visit: Visit) -> None:
        await visit.head()
        await visit.send(EVENTS)
        await go.wait()
        await visit.send(b"0\r\n\r\n")

    async with scene() as s:
        await s.serve(script)

        def report() -> ServiceReport:
            (service,) = s.plane.report(0.0, 1.0).services
            return service

        asked = time.monotonic()
        client = await s.ask(get())
        await client.reader.readuntil(b"data: 1\n\n")
        took = time.monotonic() - asked
        begun = report()
        await elapse(0.3, "the stream lasts, which must not count as latency")
        go.set()
        await client.reader.readuntil(b"0\r\n\r\n")
        ended = report()
        for histogram in (begun.total, begun.first_byte, begun.endpoints[0].latency):
            assert sum(histogram.counts.values()) == 1
            assert (quantile(histogram.counts, 0.5) or 1.0) < took * 1.05 + 0.01
        assert (begun.codes, ended.codes) == ({}, {"GET 2xx": 1})
        assert not any(
            (ended.total.counts, ended.first_byte.counts, ended.endpoints[0].latency.counts)
        )


@on_uvloop
async def test_any_other_answer_is_counted_at_its_end() -> None:
    async with scene() as s:
        await s.serve(answers(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"))
        client = await s.ask(get())
        await client.response()
        (service,) = s.plane.report(0.0, 1.0).services
        assert sum(service.total.counts.values()) == 1
        assert service.codes == {"GET 2xx": 1}


@on_uvloop
async def test_the_time_to_connect_is_no_latency_of_the_endpoint(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A new replica gets new connections, also encrypted ones between nodes: canary analysis must
    not take the time for them for a slower revision."""
    dial = connection_pool.dial

    async def dial_slowly(*words: Any) -> None:
        await elapse(0.3, "the way to the endpoint is long")
        await dial(*words)

    monkeypatch.setattr(connection_pool, "dial", dial_slowly)
    async with scene() as s:
        await s.serve(answers(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"))
        asked = time.monotonic()
        client = await s.ask(get())
        await client.response()
        took = time.monotonic() - asked
        (service,) = s.plane.report(0.0, 1.0).services
        assert (quantile(service.total.counts, 0.5) or 0.0) >= 0.29
        assert (quantile(service.connect.counts, 0.5) or 0.0) >= 0.29
        latency = quantile(service.endpoints[0].latency.counts, 0.5)
        assert latency is not None
        assert latency < (took - 0.3) * 1.05 + 0.1
