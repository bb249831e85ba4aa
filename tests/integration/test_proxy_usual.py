"""The short way through the proxy, which a connection takes from its third request or so on: what
it does is what the general way does, and everything unusual finds its way back to that one."""

import asyncio

import pytest
from proxy_scene import (
    OK,
    Client,
    Scene,
    Script,
    Visit,
    answers,
    eventually,
    get,
    named_ok,
    on_uvloop,
    scene,
)

from proxy.downstream import HALF_CLOSED
from proxy.wire.snapshot import Ejection, Retries, Timeouts

LESSONS = 4


def numbered(number: int, *lines: str) -> bytes:
    return get(f"/{number}", f"X-Tag: {number}", "Accept: */*", *lines)


async def taught(made: Scene) -> Client:
    """A client whose requests are known by their shape."""
    client = await made.client()
    for number in range(LESSONS):
        await client.send(numbered(number))
        assert (await client.response())[0] == 200
    return client


def taken(made: Scene) -> int:
    """How many requests took the short way since this was last asked."""
    recorded = made.plane.services["shop"].counters.direct.take()
    return sum(recorded.counts.values())


def after(good: int, *then: bytes, close: bool = False) -> Script:
    """An origin that gives so many good answers on its first connection, then others, each in
    a segment of its own."""

    async def script(visit: Visit) -> None:
        for _ in range(good):
            await visit.head()
            await visit.send(OK)
        if close:
            return
        await visit.head()
        for piece in then:
            await visit.send(piece)
            await asyncio.sleep(0.02)
        await visit.wait_closed()

    return script


@on_uvloop
async def test_the_origin_gets_and_the_client_sees_the_same() -> None:
    async with scene() as made:
        (origin,) = await made.serve(answers(OK))
        client = await taught(made)
        assert taken(made) == 1, "the first ones have to be parsed"
        await client.send(numbered(7))
        short = await client.response()
        assert taken(made) == 1
        other = await made.ask(numbered(7))
        assert short == await other.response()
        assert taken(made) == 0
        heads = b"".join(visit.raw for visit in origin.visits).split(b"\r\n\r\n")[:-1]
        one, two = (
            [line for line in head.split(b"\r\n") if not line.startswith(b"X-Request-Id")]
            for head in heads
            if head.startswith(b"GET /7 ")
        )
        assert one == two
        ids = [head.partition(b"X-Request-Id: ")[2] for head in heads]
        assert len(set(ids)) == len(ids) == LESSONS + 2


@on_uvloop
async def test_everything_is_counted() -> None:
    async with scene() as made:
        await made.serve(answers(OK))
        await taught(made)
        (counted,) = made.plane.report(0.0, 1.0).services
        (endpoint,) = counted.endpoints
        assert counted.arrivals == endpoint.started == endpoint.succeeded == LESSONS
        assert counted.codes == {"GET 2xx": LESSONS}
        assert counted.bytes_out == 2 * LESSONS
        for histogram in (counted.total, counted.first_byte, endpoint.latency):
            assert sum(histogram.counts.values()) == LESSONS
            assert histogram.sum > 0.0
        assert endpoint.in_flight == 0
        again = made.plane.report(1.0, 2.0).services[0]
        assert not again.total.counts
        assert again.arrivals == 0


@pytest.mark.parametrize(
    ("pieces", "status", "body"),
    [
        ((b"HTTP/1.1 200 OK\r\nContent-", b"Length: 4\r\n\r\nabcd"), 200, b"abcd"),
        ((b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab", b"cd"), 200, b"abcd"),
        ((b"HTTP/1.1 500 No\r\nContent-Length: 2\r\n\r\nno",), 500, b"no"),
        ((b"HTTP/1.1 404 No\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno",), 404, b"no"),
        ((b"HTTP/1.1 204 Empty\r\n\r\n",), 204, b""),
        ((b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok surplus",), 200, b"ok"),
    ],
)
@on_uvloop
async def test_answers_of_other_kinds(pieces: tuple[bytes, ...], status: int, body: bytes) -> None:
    async with scene() as made:
        await made.serve(after(LESSONS, *pieces))
        client = await taught(made)
        await client.send(numbered(8))
        found, _, got = await client.response()
        assert (found, got) == (status, body)


@on_uvloop
async def test_an_answer_without_one_reading_is_not_passed_on() -> None:
    async with scene() as made:
        bad = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok"
        await made.serve(after(LESSONS, bad))
        client = await taught(made)
        await client.send(numbered(8))
        assert (await client.response())[0] == 502


@on_uvloop
async def test_an_idle_connection_that_had_closed_costs_nothing() -> None:
    async with scene() as made:
        await made.serve(after(LESSONS, close=True), retries=Retries(attempts=0))
        client = await taught(made)
        await client.send(numbered(8))
        assert (await client.response())[0] == 200


@on_uvloop
async def test_no_answer_in_time() -> None:
    async with scene() as made:
        await made.serve(
            after(LESSONS), timeouts=Timeouts(first_byte=0.2), retries=Retries(attempts=0)
        )
        client = await taught(made)
        await client.send(numbered(8))
        assert (await client.response())[0] == 504


@on_uvloop
async def test_a_client_that_leaves_holds_nothing() -> None:
    async with scene() as made:
        (origin,) = await made.serve(after(LESSONS), ejection=Ejection(consecutive=1))
        client = await taught(made)
        await client.send(numbered(8))
        await eventually(lambda: b"/8" in origin.visits[0].raw)
        # Earlier it might have closed its side alone, and wait for the answer.
        await asyncio.sleep(2 * HALF_CLOSED)
        client.close()
        state = made.plane.services["shop"].endpoints["shop-0"]
        await eventually(lambda: not state.counters.in_flight and not state.connections)
        assert not made.plane.services["shop"].in_flight
        assert not state.health.bad


@on_uvloop
async def test_routes_change_under_a_connection() -> None:
    async with scene() as made:
        await made.serve(answers(named_ok(b"one")))
        client = await taught(made)
        await made.serve(answers(named_ok(b"two")))
        await client.send(numbered(8))
        assert (await client.response())[2] == b"two"
        made.install(routes=())
        await client.send(numbered(9))
        assert (await client.response())[0] == 404


@on_uvloop
async def test_requests_sent_ahead_are_answered_in_turn() -> None:
    async with scene() as made:
        await made.serve(answers(*(named_ok(b"%d" % n) for n in range(LESSONS + 4))))
        client = await taught(made)
        await client.send(b"".join(numbered(n) for n in range(LESSONS, LESSONS + 4)))
        got = [(await client.response())[2] for _ in range(4)]
        assert got == [b"%d" % n for n in range(LESSONS, LESSONS + 4)]


@on_uvloop
async def test_a_bad_request_after_good_ones_is_refused() -> None:
    async with scene() as made:
        await made.serve(answers(OK))
        client = await taught(made)
        await client.send(numbered(8).replace(b"X-Tag: 8", b"X-Tag: 8\nEvil: 1"))
        assert (await client.response())[0] == 400
        assert await client.rest() == b""
