"""Corner cases of an exchange, each as a transcript."""

import asyncio
import contextlib
import time

import pytest

from proxy.wire.snapshot import Fault, Limits, Route, Target, Timeouts
from tests.support.proxy_scene import OK, Visit, answers, get, on_uvloop, post, scene
from tests.support.waiting import elapse, wait_until


@on_uvloop
async def test_an_answer_arrives_although_the_origin_resets_the_upload() -> None:
    async def refuses(visit: Visit) -> None:
        await visit.head()
        await visit.send(b"HTTP/1.1 413 No\r\nContent-Length: 4\r\nConnection: close\r\n\r\nlong")
        # What it has not read makes the end a reset.

    async with scene() as s:
        await s.serve(refuses)
        head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 50000000\r\n\r\n"
        for size in (0, 1000, 100_000, 3_000_000):
            for _ in range(5):
                client = await s.ask(head + b"x" * size)
                with contextlib.suppress(ConnectionError):
                    status, _, body = await client.response()
                    assert (status, body) == (413, b"long")
                    continue
                raise AssertionError(f"reset before the answer, with {size} bytes sent")


@on_uvloop
async def test_a_post_opens_no_connection_beyond_the_limit() -> None:
    async with scene() as s:
        (origin,) = await s.serve(answers(OK), limits=Limits(endpoint_connections=1))
        client = await s.ask(get())
        assert (await client.response())[0] == 200
        state = s.plane.services["shop"].endpoints["shop-0"]
        state.idle[0].idle_since -= 10.0  # idle for too long to carry a POST
        await client.send(post(b"hello"))
        assert (await client.response())[0] == 200
        assert state.connections == 1
        assert len(origin.visits) == 2


@on_uvloop
async def test_an_injected_delay_counts_toward_the_request_timeout() -> None:
    async with scene() as s:
        await s.serve(answers(OK), timeouts=Timeouts(request=0.2))
        config = s.plane.services["shop"].config
        slow = Route("r", (Target("shop"),), fault=Fault(share=1.0, delay=1.0))
        s.install(config, routes=(slow,))
        begun = time.monotonic()
        client = await s.ask(get())
        assert (await client.response())[0] == 504
        assert time.monotonic() - begun < 0.9
        await wait_until(lambda: not s.plane.active())


@on_uvloop
async def test_a_second_request_behind_an_unfinished_refusal_is_never_served() -> None:
    """Bytes after a body that was not read must not be parsed as a request."""
    async with scene() as s:
        (origin,) = await s.serve(answers(OK), limits=Limits(body=4))
        hidden = get("/hidden")
        client = await s.ask(
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(hidden)
        )
        assert (await client.response())[0] == 413
        with contextlib.suppress(ConnectionError):
            await client.send(hidden)
        assert await client.rest() == b""
        assert not origin.visits


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@on_uvloop
async def test_interim_answers_before_a_broken_end_do_not_count(version: str) -> None:
    async def script(visit: Visit) -> None:
        await visit.head()
        await visit.send(b"HTTP/1.1 103 Early\r\nLink: x\r\n\r\nHTTP/1.1 200 O")

    async with scene() as s:
        await s.serve(script)
        client = await s.ask(get(version=version))
        answer = await asyncio.wait_for(client.until(b" 502 "), 30)
        assert answer.startswith(b"HTTP/1.1 103 " if version == "1.1" else b"HTTP/1.1 502 ")
        await wait_until(lambda: not s.plane.active())


@on_uvloop
async def test_a_chunked_head_answer_leaves_the_connection_reusable() -> None:
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with scene() as s:
        (origin,) = await s.serve(answers(chunked, OK))
        client = await s.ask(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert b"chunked" in await client.head()
        await client.send(get())
        assert (await client.response())[2] == b"ok"
        assert len(origin.visits) == 1


@on_uvloop
async def test_a_closed_idle_connection_is_not_used() -> None:
    """Not even for a request in the same turn of the event loop: a POST could not be repeated."""
    async with scene() as s:
        (origin,) = await s.serve(answers(OK))
        client = await s.ask(get())
        assert (await client.response())[0] == 200
        idle = s.plane.services["shop"].endpoints["shop-0"].idle[0]
        idle.eof_received()
        assert idle.closing
        await client.send(post(b"hello"))
        assert (await client.response())[0] == 200
        assert len(origin.visits) == 2


@on_uvloop
async def test_no_post_is_sent_as_the_origin_ends_an_idle_connection() -> None:
    """The origin ends each connection 0.3 s after its last response, as servers do with a short
    keep-alive time."""

    async def script(visit: Visit) -> None:
        while True:
            async with asyncio.timeout(0.3):
                head = await visit.head()
            if b"POST" in head:
                await visit.read(5)
            await visit.send(OK)

    async def with_keep_alive(visit: Visit) -> None:
        with contextlib.suppress(TimeoutError):
            await script(visit)

    async with scene() as s:
        (origin,) = await s.serve(with_keep_alive)
        client = await s.client()
        state = s.plane.services["shop"].endpoints["shop-0"]
        await client.send(get())
        assert (await client.response())[0] == 200
        await wait_until(lambda: origin.visits[0].closed.is_set() and not state.idle)
        assert 0.1 < state.idle_age.fresh < 0.25
        for number in range(20):
            await elapse(0.29 + number * 0.001, "the idle limit is almost over")
            await client.send(post(b"hello"))
            assert (await client.response())[0] == 200
