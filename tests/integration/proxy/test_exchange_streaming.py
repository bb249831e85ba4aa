"""Bodies through the proxy: streamed, throttled, and broken off."""

import asyncio
import socket
import struct
import time

import pytest

from tests.support.proxy_scene import OK, Visit, get, on_uvloop, scene
from tests.support.waiting import elapse, settled, wait_until

# --- streaming


@on_uvloop
async def test_the_first_byte_is_sent_before_the_origin_is_finished() -> None:
    go = asyncio.Event()

    async def script(visit: Visit) -> None:
        await visit.head()
        await visit.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
        await go.wait()
        await visit.send(b"1\r\nb\r\n0\r\n\r\n")

    async with scene() as s:
        await s.serve(script)
        client = await s.ask(get())
        await client.until(b"1\r\na\r\n")
        go.set()
        assert await client.until(b"0\r\n\r\n") == b"1\r\nb\r\n0\r\n\r\n"


@on_uvloop
async def test_an_upload_is_not_buffered() -> None:
    got = asyncio.Event()

    async def script(visit: Visit) -> None:
        await visit.head()
        assert await visit.read(5) == b"first"
        got.set()
        assert await visit.read(6) == b"second"
        await visit.send(OK)

    async with scene() as s:
        await s.serve(script)
        client = await s.ask(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\nfirst")
        await asyncio.wait_for(got.wait(), 30)
        await client.send(b"second")
        assert (await client.response())[0] == 200


@on_uvloop
async def test_chunked_uploads_and_trailers_go_through() -> None:
    async with scene() as s:

        async def script(visit: Visit) -> None:
            await visit.head()
            await visit.reader.readuntil(b"0\r\n")
            trailer = await visit.reader.readuntil(b"\r\n\r\n")
            assert trailer == b"X-Sum: 1\r\n\r\n"
            await visit.send(
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-End\r\n\r\n"
                b"2;ext=1\r\nok\r\n0\r\nX-End: yes\r\nContent-Length: 9\r\n\r\n"
            )

        await s.serve(script)
        client = await s.ask(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        for piece in (b"5\r\nhe", b"llo\r", b"\n0\r\nX-Sum: 1\r\n", b"Host: b\r\n\r\n"):
            await client.send(piece)
        assert b"Trailer: X-End" in await client.head()
        assert await client.until(b"yes\r\n\r\n") == b"2\r\nok\r\n0\r\nX-End: yes\r\n\r\n"


@on_uvloop
async def test_interim_responses_are_passed_on() -> None:
    async def script(visit: Visit) -> None:
        await visit.head()
        await visit.send(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
        await visit.send(b"HTTP/1.1 103 Early Hints\r\nLink: </b>\r\n\r\n" + OK)

    async with scene() as s:
        await s.serve(script)
        client = await s.ask(get())
        assert b"</a>" in await client.head()
        assert b"</b>" in await client.head()
        assert (await client.response())[2] == b"ok"


@on_uvloop
async def test_expect_continue_is_answered_by_the_origin() -> None:
    async def script(visit: Visit) -> None:
        head = await visit.head()
        assert b"Expect: 100-continue\r\n" in head
        await visit.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        await visit.read(5)
        await visit.send(OK)

    async with scene() as s:
        await s.serve(script)
        client = await s.ask(
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
        )
        assert (await client.head()).startswith(b"HTTP/1.1 100")
        await client.send(b"hello")
        assert (await client.response())[0] == 200


@on_uvloop
async def test_a_refused_expectation_ends_the_connection() -> None:
    async with scene() as s:

        async def script(visit: Visit) -> None:
            await visit.head()
            await visit.send(b"HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n")
            await visit.wait_closed()

        (origin,) = await s.serve(script)
        client = await s.ask(
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
        )
        answer = await client.rest()
        assert answer.startswith(b"HTTP/1.1 401")
        assert b"Connection: close" in answer
        await asyncio.wait_for(origin.visits[0].closed.wait(), 30)


@on_uvloop
async def test_an_early_answer_to_an_upload_reaches_the_client() -> None:
    async def script(visit: Visit) -> None:
        await visit.head()
        await visit.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig")
        await elapse(0.05, "the answer arrives before the connection ends")

    async with scene() as s:
        await s.serve(script)
        client = await s.ask(
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10000000\r\n\r\n" + b"x" * 1000
        )
        answer = await client.rest()
        assert answer.startswith(b"HTTP/1.1 413")
        assert answer.endswith(b"big")


# --- endings


@on_uvloop
async def test_a_client_that_leaves_cancels_the_origin() -> None:
    async def script(visit: Visit) -> None:
        await visit.head()
        await visit.wait_closed()

    async with scene() as s:
        (origin,) = await s.serve(script)
        client = await s.ask(get())
        await wait_until(lambda: origin.visits and origin.visits[0].raw)
        left = time.monotonic()
        client.close()
        await asyncio.wait_for(origin.visits[0].closed.wait(), 30)
        print(f"the origin connection ended after {(time.monotonic() - left) * 1e3:.0f} ms")
        await wait_until(lambda: not s.plane.active())


@on_uvloop
async def test_a_client_that_leaves_an_endless_answer_cancels_it() -> None:
    async def script(visit: Visit) -> None:
        await visit.head()
        await visit.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            await visit.send(b"1\r\nx\r\n")
            await elapse(0.01, "an endless answer, piece by piece")

    async with scene() as s:
        (origin,) = await s.serve(script)
        client = await s.ask(get())
        await client.head()
        client.close()
        await asyncio.wait_for(origin.visits[0].closed.wait(), 30)


@on_uvloop
async def test_a_half_closed_client_gets_its_answer() -> None:
    async def script(visit: Visit) -> None:
        await visit.head()
        await elapse(0.2, "the client ends its side before the answer")
        await visit.send(OK)

    async with scene() as s:
        await s.serve(script)
        client = await s.ask(get())
        client.writer.write_eof()
        assert (await client.rest()).endswith(b"ok")


@pytest.mark.parametrize(
    "response",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\nzz\r\n",
    ],
)
@pytest.mark.parametrize("version", ["1.1", "1.0"])
@on_uvloop
async def test_a_broken_answer_never_looks_whole(response: bytes, version: str) -> None:
    async def script(visit: Visit) -> None:
        await visit.head()
        await visit.send(response)

    async with scene() as s:
        await s.serve(script)
        client = await s.ask(get(version=version))
        try:
            answer = await client.rest()
        except ConnectionResetError:
            return
        head, _, body = answer.partition(b"\r\n\r\n")
        assert version == "1.1"
        if b"chunked" in head:
            assert not body.endswith(b"0\r\n\r\n")
        else:
            assert len(body) < 10


@on_uvloop
async def test_an_answer_broken_by_a_reset_is_not_ended_cleanly() -> None:
    async def script(visit: Visit) -> None:
        await visit.head()
        await visit.send(b"HTTP/1.1 200 OK\r\n\r\nhello")
        await elapse(0.05, "the proxy passes the first part on")
        sock = visit.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        visit.abort()

    async with scene() as s:
        await s.serve(script)
        client = await s.ask(get())
        assert not (await client.rest()).endswith(b"0\r\n\r\n")


# --- backpressure


@on_uvloop
async def test_a_slow_reader_pauses_the_origin() -> None:
    sent = 0

    async def script(visit: Visit) -> None:
        nonlocal sent
        await visit.head()
        await visit.send(b"HTTP/1.1 200 OK\r\nContent-Length: 268435456\r\n\r\n")
        for _ in range(4096):
            await visit.send(b"x" * 65536)
            sent += 65536

    async with scene() as s:
        await s.serve(script)
        client = await s.ask(get())
        await client.head()
        stuck = await settled(lambda: sent, 0.3)
        print(f"{stuck / 1e6:.1f} MB were taken from the origin")
        assert stuck < 64e6
        client.close()


@on_uvloop
async def test_a_slow_origin_pauses_the_client() -> None:
    async def script(visit: Visit) -> None:
        await visit.head()
        visit.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await asyncio.Event().wait()

    async with scene() as s:
        await s.serve(script)
        client = await s.ask(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 268435456\r\n\r\n")
        sent = 0

        async def upload() -> None:
            nonlocal sent
            while True:
                await client.send(b"x" * 65536)
                sent += 65536

        task = asyncio.create_task(upload())
        stuck = await settled(lambda: sent, 0.3)
        task.cancel()
        assert stuck < 64e6
