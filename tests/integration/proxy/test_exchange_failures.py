"""Errors of origins and clients, and what the other side gets."""

import asyncio
import json
import time

import pytest

from proxy.observe.access_log import AccessLog
from proxy.wire.snapshot import Limits, Timeouts
from tests.support.proxy_scene import (
    OK,
    Visit,
    answers,
    get,
    on_uvloop,
    post,
    scene,
    service,
)
from tests.support.waiting import elapse, settled, wait_until

# --- failures


@on_uvloop
async def test_errors_are_short_and_have_the_accepted_content_type() -> None:
    async with scene() as s:
        origin = await s.origin(answers(OK))
        origin.stop()
        s.install(service(origin))
        await elapse(0.05, "the listener of the origin closes")
        client = await s.ask(get() + get("/", "Accept: application/json"))
        status, head, body = await client.response()
        assert status == 502
        assert b"text/plain" in head
        status, head, body = await client.response()
        assert b"application/json" in head
        assert b'"status": 502' in body


@pytest.mark.parametrize(
    ("timeouts", "low", "high"),
    [(Timeouts(first_byte=0.3), 0.3, 2.0), (Timeouts(request=0.3), 0.3, 2.0)],
)
@on_uvloop
async def test_a_silent_origin_is_504(timeouts: Timeouts, low: float, high: float) -> None:
    async def script(visit: Visit) -> None:
        await visit.head()
        await visit.wait_closed()

    async with scene() as s:
        (origin,) = await s.serve(script, timeouts=timeouts)
        begun = time.monotonic()
        client = await s.ask(get())
        status, _head, _ = await client.response()
        assert status == 504
        assert low <= time.monotonic() - begun < high
        await asyncio.wait_for(origin.visits[0].closed.wait(), 30)


@on_uvloop
async def test_an_idle_body_is_broken_off() -> None:
    async def script(visit: Visit) -> None:
        await visit.head()
        await visit.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
        await visit.wait_closed()

    async with scene() as s:
        await s.serve(script, timeouts=Timeouts(idle=0.3))
        client = await s.ask(get())
        assert (await client.rest()).endswith(b"half")


@pytest.mark.parametrize(
    "response",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\nok",
        b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n",
        b"",
    ],
)
@on_uvloop
async def test_an_ambiguous_answer_is_502(response: bytes) -> None:
    async def script(visit: Visit) -> None:
        await visit.head()
        if response:
            await visit.send(response)
            await visit.wait_closed()

    async with scene() as s:
        await s.serve(script)
        client = await s.ask(post(b"x"))
        assert (await client.response())[0] == 502


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        (b"HTTP/1.1 200 OK\r\nX-A : 1\r\nContent-Length: 2\r\n\r\nok", "a malformed header field"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "chunk"),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", "a switch of protocols"),
    ],
)
@on_uvloop
async def test_the_log_says_why_an_answer_is_not_valid(response: bytes, reason: str) -> None:
    lines: list[str] = []
    log = AccessLog("json")
    async with scene({"access_log": log, "on_problem": lines.append}) as s:
        await s.serve(answers(response))
        for _ in range(3):
            client = await s.ask(post(b"x", "Connection: close"))
            await client.rest()
        entries = [json.loads(line) for line in log.take().splitlines()]
        assert [entry["failure"] for entry in entries] == ["protocol"] * 3
        assert all(reason in entry["detail"] for entry in entries)
        (line,) = lines
        assert line.startswith("shop: the response of shop-0 is not valid: ")
        assert reason in line


# --- slow and rude clients


@on_uvloop
async def slow_client(*pieces: bytes, **policy: Timeouts) -> bytes:
    async def script(visit: Visit) -> None:
        await visit.head()
        await visit.wait_closed()

    async with scene() as s:
        await s.serve(script, **policy)
        client = await s.client()
        for piece in pieces:
            await client.send(piece)
        answer = await client.rest()
        await wait_until(lambda: not s.plane.active())
        return answer


def test_a_slow_head_is_408() -> None:
    short = Timeouts(head=0.2)
    assert slow_client(b"GET / HTTP/1.1\r\nHo", timeouts=short).startswith(b"HTTP/1.1 408 ")
    assert slow_client(timeouts=short) == b""


def test_a_slow_body_is_408() -> None:
    request = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhal"
    answer = slow_client(request, timeouts=Timeouts(body=0.2))
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"Connection: close" in answer


@on_uvloop
async def test_an_origin_that_does_not_read_an_upload_counts_as_failed() -> None:
    async def script(visit: Visit) -> None:
        visit.reader._transport.pause_reading()  # type: ignore[attr-defined]
        await asyncio.Event().wait()

    async with scene() as s:
        await s.serve(script, timeouts=Timeouts(body=0.2, idle=0.5))
        client = await s.client()
        client.writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 30000000\r\n\r\n")
        client.writer.write(b"x" * 20_000_000)
        begun = time.monotonic()
        assert b" 504 " in await client.head()
        assert time.monotonic() - begun > 0.45


@on_uvloop
async def test_an_idle_connection_is_closed() -> None:
    async with scene() as s:
        await s.serve(answers(OK), timeouts=Timeouts(keep_alive=0.2))
        client = await s.ask(get())
        await client.response()
        assert await client.rest() == b""


CHUNKED = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("pieces", "status"),
    [
        ([post(b"x" * 10)], 200),
        ([post(b"x" * 11)], 413),
        ([b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\n"], 413),
        ([CHUNKED + b"b\r\nhello world\r\n0\r\n\r\n"], 413),
        ([CHUNKED, b"5\r\nhello\r\n", b"5\r\nworld\r\n"], 413),
    ],
)
@on_uvloop
async def test_a_body_over_the_limit_is_413(pieces: list[bytes], status: int) -> None:
    async def origin(visit: Visit) -> None:
        if b"chunked" not in await visit.head():
            await visit.read(10)
            await visit.send(OK)
        await visit.wait_closed()

    async with scene() as s:
        await s.serve(origin, limits=Limits(body=10))
        client = await s.client()
        for piece in pieces:
            await client.send(piece)
            await elapse(0.02, "the pieces arrive one by one")
        assert (await client.response())[0] == status
        counters = s.plane.report(0.0, 1.0).services[0]
        assert counters.failures == ({"too-large": 1} if status == 413 else {})
        await wait_until(lambda: not s.plane.active())


@pytest.mark.parametrize("step", [1, 7])
@on_uvloop
async def test_requests_byte_by_byte(step: int) -> None:
    async with scene() as s:
        (origin,) = await s.serve(answers(OK))
        client = await s.client()
        request = post(b"hello", "X-A: b") + b"\r\n" + get("/next")
        for start in range(0, len(request), step):
            client.writer.write(request[start : start + step])
            await asyncio.sleep(0)
        assert (await client.response())[0] == 200
        assert (await client.response())[0] == 200
        assert b"GET /next" in origin.visits[0].raw


@on_uvloop
async def test_a_refused_request_ends_the_connection_and_reaches_no_origin() -> None:
    async with scene() as s:
        (origin,) = await s.serve(answers(OK))
        client = await s.ask(
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"0\r\n\r\n" + get("/smuggled")
        )
        answer = await client.rest()
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert b"Connection: close" in answer
        assert answer.count(b"HTTP/1.1") == 1
        assert not origin.visits


@on_uvloop
async def test_a_bad_chunk_is_400_and_breaks_the_origin_connection() -> None:
    async def script(visit: Visit) -> None:
        await visit.head()
        await visit.wait_closed()

    async with scene() as s:
        (origin,) = await s.serve(script)
        client = await s.ask(
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"
        )
        await wait_until(lambda: origin.visits)
        await client.send(b"zz\r\n")
        assert (await client.rest()).startswith(b"HTTP/1.1 400 ")
        await asyncio.wait_for(origin.visits[0].closed.wait(), 30)
        assert not origin.visits[0].raw.endswith(b"0\r\n\r\n")


@on_uvloop
async def test_a_client_that_never_reads_is_throttled() -> None:
    big = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 1_000_000
    async with scene() as s:
        (origin,) = await s.serve(answers(big))
        client = await s.client()
        for _ in range(60):
            client.writer.write(get())
            await elapse(0.01, "the requests arrive one by one")
        asked = await settled(lambda: sum(v.raw.count(b"GET / ") for v in origin.visits), 0.2)
        print(f"{asked} of 60 answers were fetched")
        assert asked < 30
        for _ in range(60):
            assert len((await client.response())[2]) == 1_000_000
