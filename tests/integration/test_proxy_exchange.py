"""Transcripts: what a client, the proxy and a scripted origin say to each other."""

import asyncio
import socket
import struct
import time
from pathlib import Path

import pytest
from proxy_scene import OK, Client, Visit, answers, eventually, get, on_uvloop, post, scene, service

from proxy.wire.snapshot import Endpoint, Limits, Listener, Service, Timeouts

# --- heads


@on_uvloop
async def test_a_request_goes_on_as_it_came_with_what_a_proxy_adds() -> None:
    async with scene() as s:
        (origin,) = await s.serve(answers(OK))
        client = await s.ask(get("/a//b/../c?x=%2f&y=;", "X-Thing: 1", "Via: 1.0 before"))
        status, head, body = await client.response()
        assert (status, body) == (200, b"ok")
        assert b"\r\nVia: 1.1 meshd\r\n" in head
        seen = origin.visits[0].raw
        assert seen.startswith(b"GET /a//b/../c?x=%2f&y=; HTTP/1.1\r\nHost: shop.test\r\n")
        for line in (
            b"X-Thing: 1",
            b"Via: 1.0 before",
            b"Via: 1.1 meshd",
            b"X-Forwarded-For: 127.0.0.1",
            b"X-Forwarded-Proto: http",
            b"X-Forwarded-Host: shop.test",
            b"Forwarded: for=127.0.0.1;host=shop.test;proto=http",
        ):
            assert b"\r\n" + line + b"\r\n" in seen
        assert seen.count(b"X-Request-Id: ") == 1


@pytest.mark.parametrize(
    "line",
    [
        "Connection: close, X-Hop\r\nX-Hop: 1",
        "Keep-Alive: timeout=5",
        "Proxy-Connection: keep-alive",
        "TE: trailers",
        "Upgrade: h2c",
        "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk",
        "X-Forwarded-For: 6.6.6.6",
        "X-Forwarded-Proto: https",
        "Forwarded: for=6.6.6.6",
        "X_Forwarded_For: 6.6.6.6",
        "Proxy-Authorization: Basic eDp5",
    ],
)
@on_uvloop
async def test_fields_for_this_hop_or_from_strangers_stop_here(line: str) -> None:
    async with scene() as s:
        (origin,) = await s.serve(answers(OK))
        client = await s.ask(get("/", *line.split("\r\n")))
        assert (await client.response())[0] == 200
        for part in line.split("\r\n"):
            assert part.encode() + b"\r\n" not in origin.visits[0].raw
        assert b"6.6.6.6" not in origin.visits[0].raw


@on_uvloop
async def test_a_trusted_proxy_is_believed() -> None:
    async with scene() as s:
        origin = await s.origin(answers(OK))
        s.install(service(origin), trusted_proxies=("127.0.0.0/8",))
        client = await s.ask(
            get(
                "/",
                "X-Forwarded-For: 9.9.9.9",
                "X-Forwarded-Proto: https",
                "Forwarded: for=9.9.9.9",
            )
        )
        await client.response()
        seen = origin.visits[0].raw
        assert b"X-Forwarded-For: 9.9.9.9, 127.0.0.1\r\n" in seen
        assert b"X-Forwarded-Proto: https\r\n" in seen
        assert b"Forwarded: for=9.9.9.9, for=127.0.0.1;" in seen


@on_uvloop
async def test_a_request_id_is_kept_or_made() -> None:
    async with scene() as s:
        (origin,) = await s.serve(answers(OK))
        client = await s.ask(get("/", "X-Request-Id: mine-1") + get("/"))
        await client.response()
        await client.response()
        first, second = origin.visits[0].raw.split(b"\r\n\r\n")[:2]
        assert first.count(b"X-Request-Id") == 1
        assert b"X-Request-Id: mine-1" in first
        assert b"X-Request-Id: " in second
        assert b"mine-1" not in second


@on_uvloop
async def test_response_fields_for_one_hop_stop_here() -> None:
    async with scene() as s:
        await s.serve(
            answers(
                b"HTTP/1.1 200 Fine\r\nServer: mine\r\nConnection: X-Hop, keep-alive\r\n"
                b"X-Hop: 1\r\nKeep-Alive: timeout=9\r\nContent-Length: 2\r\n\r\nok"
            )
        )
        _, head, _ = await (await s.ask(get())).response()
        assert head.startswith(b"HTTP/1.1 200 Fine\r\nServer: mine\r\n")
        for gone in (b"X-Hop", b"Keep-Alive", b"Connection"):
            assert gone not in head


@on_uvloop
async def test_head_and_bodyless_statuses_have_no_body() -> None:
    async with scene() as s:
        await s.serve(
            answers(
                b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n",
                b"HTTP/1.1 304 Not Modified\r\nContent-Length: 100\r\nETag: x\r\n\r\n",
                b"HTTP/1.1 204 No Content\r\n\r\n",
                OK,
            )
        )
        client = await s.ask(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n" + get() + get() + get())
        assert b"Content-Length: 100" in await client.head()
        assert (await client.head()).startswith(b"HTTP/1.1 304")
        assert (await client.head()).startswith(b"HTTP/1.1 204")
        assert (await client.response())[2] == b"ok"


# --- persistence


@on_uvloop
async def test_pipelined_requests_are_answered_in_order_on_one_connection() -> None:
    async def script(visit: Visit) -> None:
        while True:
            path = (await visit.head()).split()[1]
            await visit.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(path), path))

    async with scene() as s:
        (origin,) = await s.serve(script)
        client = await s.ask(b"".join(get(f"/{n}") for n in range(50)))
        for n in range(50):
            assert (await client.response())[2] == b"/%d" % n
        assert len(origin.visits) == 1


@on_uvloop
async def test_connections_to_the_origin_are_shared_by_clients() -> None:
    async with scene() as s:
        (origin,) = await s.serve(answers(OK))
        for _ in range(5):
            client = await s.ask(get("/", "Connection: close"))
            assert b"Connection: close" in await client.head()
            assert await client.rest() == b"ok"
        assert len(origin.visits) == 1


@pytest.mark.parametrize(
    ("response", "reused"),
    [
        (OK, True),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", False),
        (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok", True),
        (OK + b"surplus", False),
    ],
)
@on_uvloop
async def test_an_origin_connection_is_reused_only_when_it_is_clear(
    response: bytes, reused: bool
) -> None:
    async with scene() as s:
        (origin,) = await s.serve(answers(response))
        client = await s.client()
        for _ in range(2):
            await client.send(get())
            assert (await client.response())[2] == b"ok"
        assert len(origin.visits) == (1 if reused else 2)


@on_uvloop
async def test_http_1_0_clients() -> None:
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"
    async with scene() as s:
        await s.serve(answers(OK, OK, b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + chunked))
        client = await s.ask(get("/", version="1.0"))
        assert (await client.rest()).endswith(b"\r\n\r\nok")
        client = await s.ask(get("/", "Connection: keep-alive", version="1.0"))
        assert b"Connection: keep-alive" in (await client.response())[1]
        await client.send(get("/", "Connection: keep-alive", version="1.0"))
        answer = await client.rest()
        assert b"chunked" not in answer
        assert b"103" not in answer
        assert answer.endswith(b"\r\n\r\nok")


@on_uvloop
async def test_an_http_1_0_request_without_host_gets_one() -> None:
    async with scene() as s:
        (origin,) = await s.serve(answers(OK))
        client = await s.ask(b"GET / HTTP/1.0\r\n\r\n")
        assert (await client.rest()).endswith(b"ok")
        assert b"Host: 127.0.0.1:%d\r\n" % origin.port in origin.visits[0].raw


@on_uvloop
async def test_an_answer_that_ends_with_the_connection_is_chunked_for_the_client() -> None:
    async def script(visit: Visit) -> None:
        await visit.head()
        await visit.send(b"HTTP/1.1 200 OK\r\n\r\nhello ")
        await visit.send(b"world")

    async with scene() as s:
        await s.serve(script)
        client = await s.ask(get())
        assert b"Transfer-Encoding: chunked" in await client.head()
        whole = await client.until(b"0\r\n\r\n")
        assert whole.replace(b"\r\n", b"").replace(b"6hello", b"hello").count(b"world")


# --- streaming


@on_uvloop
async def test_the_first_byte_leaves_before_the_origin_is_finished() -> None:
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
async def test_expect_continue_is_the_origins_to_answer() -> None:
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
        await asyncio.sleep(0.05)

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
async def test_a_client_that_goes_away_cancels_the_origin() -> None:
    async def script(visit: Visit) -> None:
        await visit.head()
        await visit.wait_closed()

    async with scene() as s:
        (origin,) = await s.serve(script)
        client = await s.ask(get())
        await eventually(lambda: origin.visits and origin.visits[0].raw)
        await asyncio.sleep(0.1)
        left = time.monotonic()
        client.close()
        await asyncio.wait_for(origin.visits[0].closed.wait(), 30)
        print(f"the origin was told after {(time.monotonic() - left) * 1e3:.0f} ms")
        await eventually(lambda: not s.plane.active())


@on_uvloop
async def test_a_client_that_leaves_an_endless_answer_cancels_it() -> None:
    async def script(visit: Visit) -> None:
        await visit.head()
        await visit.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            await visit.send(b"1\r\nx\r\n")
            await asyncio.sleep(0.01)

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
        await asyncio.sleep(0.2)
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
        await asyncio.sleep(0.05)
        sock = visit.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        visit.abort()

    async with scene() as s:
        await s.serve(script)
        client = await s.ask(get())
        assert not (await client.rest()).endswith(b"0\r\n\r\n")


# --- backpressure


@on_uvloop
async def test_a_slow_reader_stops_the_origin() -> None:
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
        await asyncio.sleep(1.0)
        stuck = sent
        await asyncio.sleep(0.3)
        print(f"{stuck / 1e6:.1f} MB were taken from the origin")
        assert sent == stuck
        assert stuck < 64e6
        client.close()


@on_uvloop
async def test_a_slow_origin_stops_the_client() -> None:
    async def script(visit: Visit) -> None:
        await visit.head()
        visit.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await asyncio.sleep(30)

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
        await asyncio.sleep(1.0)
        stuck = sent
        await asyncio.sleep(0.3)
        task.cancel()
        assert sent == stuck
        assert stuck < 64e6


# --- failures


@on_uvloop
async def test_errors_are_short_and_in_the_form_asked_for() -> None:
    async with scene() as s:
        origin = await s.origin(answers(OK))
        origin.stop()
        s.install(service(origin))
        await asyncio.sleep(0.05)
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
async def test_an_origin_that_says_nothing_is_504(
    timeouts: Timeouts, low: float, high: float
) -> None:
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
async def test_an_answer_with_two_readings_is_502(response: bytes) -> None:
    async def script(visit: Visit) -> None:
        await visit.head()
        if response:
            await visit.send(response)
            await visit.wait_closed()

    async with scene() as s:
        await s.serve(script)
        client = await s.ask(post(b"x"))
        assert (await client.response())[0] == 502


# --- upgrades


@on_uvloop
async def test_a_tunnel_passes_bytes_and_ends_on_both_sides() -> None:
    async def script(visit: Visit) -> None:
        head = await visit.head()
        assert b"Connection: Upgrade\r\nUpgrade: websocket\r\n" in head
        assert b"Sec-WebSocket-Key: k\r\n" in head
        await visit.send(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n"
            b"Upgrade: websocket\r\n\r\nhi"
        )
        while data := await visit.reader.read(100):
            await visit.send(data.upper())

    async with scene() as s:
        await s.serve(script)
        client = await s.ask(
            get(
                "/", "Connection: keep-alive, Upgrade", "Upgrade: websocket", "Sec-WebSocket-Key: k"
            )
        )
        assert b"Upgrade: websocket" in await client.head()
        assert await client.exactly(2) == b"hi"
        await client.send(b"hello")
        assert await client.exactly(5) == b"HELLO"
        assert s.plane.active() == 1
        client.writer.write_eof()
        assert await client.rest() == b""
        await eventually(lambda: not s.plane.active())


@on_uvloop
async def test_a_refused_upgrade_is_an_answer_like_any_other() -> None:
    async with scene() as s:
        (origin,) = await s.serve(
            answers(b"HTTP/1.1 426 Upgrade Required\r\nContent-Length: 0\r\n\r\n", OK)
        )
        client = await s.ask(get("/", "Connection: Upgrade", "Upgrade: websocket") + get("/next"))
        assert (await client.response())[0] == 426
        assert (await client.response())[0] == 200
        assert b"GET /next" in origin.visits[0].raw


# --- draining


@on_uvloop
async def test_draining_ends_keep_alive_and_idle_connections() -> None:
    go = asyncio.Event()

    async def script(visit: Visit) -> None:
        while True:
            head = await visit.head()
            if b"/slow" in head:
                await go.wait()
            await visit.send(OK)

    async with scene() as s:
        (origin,) = await s.serve(script)
        idle = await s.ask(get())
        await idle.response()
        again = await s.ask(get())
        await again.response()
        busy = await s.ask(get("/slow"))
        fresh = await s.client()
        await eventually(
            lambda: b"/slow" in origin.visits[-1].raw and len(s.plane.connections) == 4
        )
        s.plane.start_drain()
        # What is on its way at this moment would be lost if idle connections were closed at once.
        await again.send(get())
        await fresh.send(get())
        assert await idle.rest() == b""
        for client in (again, fresh, busy):
            go.set()
            answer = await client.rest()
            assert b"Connection: close" in answer
            assert answer.endswith(b"ok")
        await eventually(lambda: not s.plane.active())


@on_uvloop
async def test_draining_does_not_wait_long_for_a_first_request() -> None:
    async with scene() as s:
        await s.serve(answers(OK))
        silent = await s.client()
        await eventually(lambda: s.plane.connections)
        s.plane.start_drain()
        assert await silent.rest() == b""
        await eventually(lambda: not s.plane.active())


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
        await eventually(lambda: not s.plane.active())
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
async def test_an_origin_that_takes_no_upload_is_to_blame_for_it() -> None:
    async def script(visit: Visit) -> None:
        visit.reader._transport.pause_reading()  # type: ignore[attr-defined]
        await asyncio.sleep(3)

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
            await asyncio.sleep(0.02)
        assert (await client.response())[0] == status
        counters = s.plane.report(0.0, 1.0).services[0]
        assert counters.failures == ({"too-large": 1} if status == 413 else {})
        await eventually(lambda: not s.plane.active())


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
async def test_what_is_refused_ends_the_connection_and_reaches_no_origin() -> None:
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
async def test_a_bad_chunk_is_400_and_the_origin_is_told_by_a_break() -> None:
    async def script(visit: Visit) -> None:
        await visit.head()
        await visit.wait_closed()

    async with scene() as s:
        (origin,) = await s.serve(script)
        client = await s.ask(
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"
        )
        await eventually(lambda: origin.visits)
        await client.send(b"zz\r\n")
        assert (await client.rest()).startswith(b"HTTP/1.1 400 ")
        await asyncio.wait_for(origin.visits[0].closed.wait(), 30)
        assert not origin.visits[0].raw.endswith(b"0\r\n\r\n")


@on_uvloop
async def test_a_client_that_asks_and_asks_but_never_reads_is_held_back() -> None:
    big = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 1_000_000
    async with scene() as s:
        (origin,) = await s.serve(answers(big))
        client = await s.client()
        for _ in range(60):
            client.writer.write(get())
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.2)
        asked = sum(visit.raw.count(b"GET / ") for visit in origin.visits)
        print(f"{asked} of 60 answers were fetched")
        assert asked < 30
        for _ in range(60):
            assert len((await client.response())[2]) == 1_000_000


# --- other ways to an origin


@on_uvloop
async def test_an_origin_that_accepts_nothing_is_504_in_time() -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        # The accept queue takes one or two connections; what comes then is not answered.
        filling = [socket.socket() for _ in range(3)]
        for sock in filling:
            sock.setblocking(False)
            sock.connect_ex(deaf.getsockname())
        async with scene() as s:
            where = Endpoint(id="deaf", host="127.0.0.1", port=deaf.getsockname()[1])
            s.install(Service("shop", "1", (where,), timeouts=Timeouts(connect=0.3)))
            begun = time.monotonic()
            client = await s.ask(get())
            assert (await client.response())[0] == 504
            assert time.monotonic() - begun < 3.0
            assert s.plane.services["shop"].endpoints["deaf"].connections == 0
        for sock in filling:
            sock.close()


@on_uvloop
async def test_origins_and_clients_on_unix_sockets(tmp_path: Path) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"X-Forwarded-For: unknown\r\n" in head
        writer.write(OK)
        await reader.read()
        writer.close()

    async with scene() as s:
        origin = await asyncio.start_unix_server(serve, str(tmp_path / "origin"))
        s.install(Service("shop", "1", (Endpoint("e", "", 0, path=str(tmp_path / "origin")),)))
        factory = s.plane.protocol_factory(Listener(f"unix:{tmp_path}/proxy"))
        server = await s.loop.create_unix_server(factory, str(tmp_path / "proxy"))
        client = Client(*await asyncio.open_unix_connection(str(tmp_path / "proxy")))
        await client.send(get())
        assert (await client.response())[2] == b"ok"
        client.close()
        server.close()
        origin.close()


@on_uvloop
async def test_a_real_websocket_client_and_server() -> None:
    from websockets.asyncio.client import connect
    from websockets.asyncio.server import ServerConnection, serve

    async def echo(socket: ServerConnection) -> None:
        async for message in socket:
            await socket.send(message)

    async with scene() as s, serve(echo, "127.0.0.1", 0) as origin:
        port = next(iter(origin.sockets)).getsockname()[1]
        s.install(Service("shop", "1", (Endpoint("e", "127.0.0.1", port),)))
        async with connect(f"ws://127.0.0.1:{s.port}/chat", proxy=None) as client:
            for message in ("hello", b"x" * 500_000):
                await client.send(message)
                assert await client.recv() == message
        await eventually(lambda: not s.plane.active())
