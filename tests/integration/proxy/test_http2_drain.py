"""The end of HTTP/2 connections: two GOAWAY frames, and no accepted stream is lost."""

import asyncio

from proxy.http2.codec import ErrorCode
from tests.support.http2 import http2_client, http2_scene
from tests.support.proxy_scene import OK, Visit, answers, on_uvloop
from tests.support.waiting import wait_until

LAST = (1 << 31) - 1
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


@on_uvloop
async def test_a_drain_announces_itself_and_serves_what_is_on_its_way() -> None:
    answering = asyncio.Event()

    async def script(visit: Visit) -> None:
        await visit.head()
        await answering.wait()
        await visit.send(OK)

    async with http2_scene() as s:
        await s.serve(script)
        async with http2_client(s) as client:
            before = await client.request()
            await wait_until(lambda: s.plane.streams_in_flight == 1)
            s.plane.start_drain()
            # The client has not read the announcement yet.
            after = await client.request()
            await client.until(lambda: len(client.going) == 2)
            assert client.going == [(LAST, ErrorCode.NO_ERROR), (after, ErrorCode.NO_ERROR)]
            assert s.plane.active() == 3
            answering.set()
            for stream in (before, after):
                answer = await client.answer(stream)
                assert (answer.status, answer.body, answer.complete) == (200, b"ok", True)
            await client.until_closed()
            await wait_until(lambda: not s.plane.active())


@on_uvloop
async def test_an_idle_connection_ends_at_once() -> None:
    async with http2_scene() as s:
        await s.serve(answers(OK))
        async with http2_client(s) as client:
            assert (await client.get()).status == 200
            s.plane.start_drain()
            await client.until_closed()
            assert client.going == [(LAST, ErrorCode.NO_ERROR)], "the client ends it by itself"
            await wait_until(lambda: not s.plane.active())


@on_uvloop
async def test_a_request_that_crosses_the_announcement_is_served() -> None:
    async with http2_scene() as s:
        await s.serve(answers(OK))
        raw = await s.ask(PREFACE + frame(4))
        await raw.exactly(9)
        await wait_until(lambda: len(s.plane.clients) == 1)
        s.plane.start_drain()
        seen = await raw.until(frame(7, LAST.to_bytes(4) + bytes(4)) + frame(6, bytes(8)))
        assert seen.count(b"\0\0\x08\x07\0\0\0\0\0") == 1
        # The connection had no stream: it must not end before the client knows.
        get = b"\0\0\6\1\5\0\0\0\1\x82\x86\x84\x41\x01a"
        await raw.send(get + frame(6, bytes(8), flags=1))
        rest = await raw.rest()
        assert rest.count(frame(7, (1).to_bytes(4) + bytes(4))) == 1
        assert rest.endswith(b"\0\0\2\0\1\0\0\0\1ok")
        await wait_until(lambda: not s.plane.active())


def frame(kind: int, payload: bytes = b"", flags: int = 0) -> bytes:
    return len(payload).to_bytes(3) + bytes([kind, flags, 0, 0, 0, 0]) + payload


@on_uvloop
async def test_a_client_that_answers_no_ping_gets_a_second_for_its_last_streams() -> None:
    async with http2_scene() as s:
        await s.serve(answers(OK))
        raw = await s.ask(PREFACE + frame(4))
        await raw.exactly(9)
        s.plane.start_drain()
        frames = await raw.rest()
        assert frames.count(b"\0\0\x08\x07\0\0\0\0\0") == 2, "two GOAWAY frames"
        await wait_until(lambda: not s.plane.active())


@on_uvloop
async def test_an_idle_connection_ends_after_its_keep_alive_time() -> None:
    async with http2_scene() as s:
        await s.serve(answers(OK))
        async with http2_client(s) as client:
            assert (await client.get()).status == 200
            (connection,) = s.plane.clients
            connection.expire_at(0.0)
            await client.until_closed()
            assert client.going == [(LAST, ErrorCode.NO_ERROR)]


@on_uvloop
async def test_a_connection_without_a_preface_is_closed() -> None:
    async with http2_scene() as s:
        await s.serve(answers(OK))
        raw = await s.ask(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        await wait_until(lambda: len(s.plane.clients) == 1)
        await raw.exactly(9)
        (connection,) = s.plane.clients
        connection.expire_at(0.0)
        await raw.rest()
        assert not s.plane.clients
