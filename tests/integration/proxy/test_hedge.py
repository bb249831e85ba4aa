"""Hedged requests: a second attempt if the first is slow, and never two answers."""

import asyncio
import time
from types import SimpleNamespace
from typing import Any

import pytest

from proxy.http1.response_template import ResponseTemplates
from proxy.request.upstream import Upstream
from proxy.state.descriptors import Descriptors
from proxy.state.endpoint_state import EndpointState
from proxy.wire.snapshot import Balance, Endpoint, Retries
from tests.support.proxy_scene import (
    OK,
    Client,
    Origin,
    Scene,
    Script,
    Visit,
    answers,
    get,
    on_uvloop,
    post,
    scene,
    service,
)
from tests.support.waiting import elapse, wait_until


async def silent(visit: Visit) -> None:
    await visit.head()
    await visit.wait_closed()


async def slams(visit: Visit) -> None:
    await visit.head()
    await elapse(0.15, "the failure is later than the hedge")
    visit.abort()


async def refuses(visit: Visit) -> None:
    await visit.head()
    await visit.send(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n")
    await visit.wait_closed()


def later(seconds: float, body: bytes) -> Script:
    async def script(visit: Visit) -> None:
        while True:
            await visit.head()
            await elapse(seconds, "a slow origin")
            await visit.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    return script


async def pair(s: Scene, first: Script, second: Script, **more: Any) -> list[Origin]:
    """Install two origins; the first one is asked first."""
    origins = [await s.origin(first), await s.origin(second)]
    more.setdefault("retries", Retries(hedge_after=0.05, status=()))
    s.install(service(*origins, balance=Balance("round-robin"), **more))
    picker = s.plane.services["shop"].picker
    pick = picker.pick
    picker.pick = lambda found, *rest: 0 if len(found) == 2 else pick(found, *rest)  # type: ignore[method-assign]
    return origins


async def over(s: Scene) -> None:
    """Wait until nothing is in flight and every connection is accounted for."""
    shop = s.plane.services["shop"]
    await wait_until(lambda: not s.plane.active() and not shop.in_flight)
    for state in shop.endpoints.values():
        assert state.in_flight == 0
        await wait_until(lambda state=state: state.connections == len(state.idle))  # type: ignore[misc]


@on_uvloop
async def test_the_hedge_answers_if_the_first_attempt_is_slow() -> None:
    async with scene() as s:
        slow, quick = await pair(s, silent, answers(OK))
        begun = time.monotonic()
        client = await s.ask(get() + get("/b", "X-A: b"))
        for _ in range(2):
            assert (await client.response())[0] == 200
        assert 0.09 < time.monotonic() - begun < 2.0
        for visit in slow.visits:
            await visit.closed.wait()
        assert len(slow.visits) == 2
        assert quick.visits[0].raw.count(b"GET ") == 2
        report = s.plane.report(0.0, 1.0).services[0]
        assert (report.retries, report.codes) == (2, {"GET 2xx": 2})
        await over(s)


@on_uvloop
async def test_the_first_attempt_wins_if_it_answers_first() -> None:
    hedged = asyncio.Event()

    async def first(visit: Visit) -> None:
        await visit.head()
        await hedged.wait()
        await visit.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfirst")
        await visit.wait_closed()

    async def second(visit: Visit) -> None:
        await visit.head()
        hedged.set()
        await visit.wait_closed()

    async with scene() as s:
        _, other = await pair(s, first, second)
        client = await s.ask(get())
        assert (await client.response())[2] == b"first"
        await other.visits[0].closed.wait()
        await over(s)


@on_uvloop
async def test_a_fast_answer_causes_no_hedge() -> None:
    async with scene() as s:
        _, second = await pair(
            s, answers(OK), answers(OK), retries=Retries(hedge_after=0.5, status=())
        )
        client = await s.client()
        for _ in range(2):
            await client.send(get())
            assert (await client.response())[0] == 200
            await elapse(0.55, "longer than hedge_after")
        assert not second.visits


@pytest.mark.parametrize("first", [slams, silent])
@pytest.mark.parametrize("second", [slams, refuses])
@on_uvloop
async def test_a_failed_attempt_leaves_the_answer_to_the_other(
    first: Script, second: Script
) -> None:
    async with scene() as s:
        await pair(s, first, later(0.3, b"late"))
        client = await s.ask(get())
        assert (await client.response())[2] == b"late"
        await over(s)
    async with scene() as s:
        await pair(s, later(0.3, b"late"), second)
        client = await s.ask(get())
        assert (await client.response())[2] == b"late"
        await over(s)


@on_uvloop
async def test_a_client_that_leaves_cancels_both_attempts() -> None:
    async with scene() as s:
        origins = await pair(s, silent, silent)
        client = await s.ask(get())
        await wait_until(lambda: all(origin.visits for origin in origins))
        client.close()
        for origin in origins:
            await origin.visits[0].closed.wait()
        await over(s)


BIG = b"x" * 300_000
STREAM = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@on_uvloop
async def test_a_long_answer_of_the_hedge_is_whole() -> None:
    begun, answered = asyncio.Event(), asyncio.Event()

    async def streams(visit: Visit) -> None:
        await visit.head()
        await visit.send(STREAM + b"%x\r\n" % len(BIG) + BIG[:100_000])
        begun.set()
        await answered.wait()
        await visit.send(BIG[100_000:] + b"\r\n0\r\n\r\n")
        await visit.wait_closed()

    async def hesitates(visit: Visit) -> None:
        await visit.head()
        await begun.wait()
        try:
            await visit.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\ntoo late!")
        finally:
            answered.set()

    async with scene() as s:
        await pair(s, hesitates, streams)
        client = await s.ask(get())
        assert b"chunked" in await client.head()
        got = b""
        while not got.endswith(b"0\r\n\r\n"):
            got += await client.reader.read(65536)
        assert got.count(b"x") == len(BIG)
        await over(s)


@pytest.mark.parametrize(
    ("request_bytes", "retries"),
    [
        (post(b"hello"), Retries(hedge_after=0.05)),
        (get(), Retries(hedge_after=0.0)),
        (get(), Retries(hedge_after=0.05, budget=0.0, reserve=0.0)),
        (get("/", "Connection: upgrade", "Upgrade: websocket"), Retries(hedge_after=0.05)),
    ],
)
@on_uvloop
async def test_requests_that_are_not_hedged(request_bytes: bytes, retries: Retries) -> None:
    async with scene() as s:
        _, second = await pair(s, later(0.3, b"slow"), answers(OK), retries=retries)
        client: Client = await s.ask(request_bytes)
        assert (await client.response())[2] == b"slow"
        assert not second.visits


class Transport:
    """A transport that notes whether it was aborted."""

    def __init__(self) -> None:
        self.aborted = False

    def set_write_buffer_limits(self, high: int) -> None:
        """Do nothing: there is no buffer."""

    def abort(self) -> None:
        self.aborted = True


def test_an_abandoned_connect_is_closed_and_counted_once() -> None:
    where = Endpoint("e", "127.0.0.1", 1)
    endpoint = EndpointState("shop", where, ResponseTemplates(), peak=False, adaptive=False)
    endpoint.connections = 1
    plane = SimpleNamespace(descriptors=Descriptors())
    plane.descriptors.count_to_endpoints(1)
    upstream = Upstream(plane, endpoint, None)  # type: ignore[arg-type]
    upstream.discard()
    transport = Transport()
    upstream.connection_made(transport)  # type: ignore[arg-type]
    assert transport.aborted
    upstream.connection_lost(None)
    assert endpoint.connections == 0
    assert plane.descriptors.to_endpoints == 0
