"""HTTP/2 from clients with prior knowledge: each stream is an exchange like any other."""

import asyncio
import contextlib
import json
from typing import cast

import pytest

from proxy.http2.codec import STREAM_WINDOW, ErrorCode
from proxy.observe.access_log import AccessLog
from proxy.wire.snapshot import AcmeChallenge, Route, Target, Timeouts
from tests.support.http2 import http2_client, http2_scene
from tests.support.proxy_scene import OK, Visit, answers, named_ok, on_uvloop, service
from tests.support.waiting import elapse, settled, wait_until

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


# --- requests and responses


@on_uvloop
async def test_a_request_reaches_the_origin_in_the_form_of_http1() -> None:
    async with http2_scene() as s:
        (origin,) = await s.serve(answers(OK))
        async with http2_client(s) as client:
            for _ in range(4):  # once in full, then by a template
                answer = await client.get(b"/a?b=1", fields=[(b"x-thing", b"1")])
                assert (answer.status, answer.body, answer.code) == (200, b"ok", 0)
                assert answer.get(b"via") == b"1.1 meshd"
                seen = origin.visits[0].raw
                assert seen.startswith(b"GET /a?b=1 HTTP/1.1\r\nhost: shop.test\r\nx-thing: 1\r\n")
                for line in (
                    b"X-Forwarded-For: 127.0.0.1",
                    b"X-Forwarded-Proto: http",
                    b"X-Forwarded-Host: shop.test",
                ):
                    assert seen.count(b"\r\n" + line + b"\r\n") == 1
                assert seen.count(b"X-Request-Id: ") == 1
                origin.visits[0].raw = b""
        assert len(origin.visits) == 1
        (state,) = s.plane.services.values()
        fast = state.counters.fast_path_latency.drain()
        assert sum(fast.counts.values()) >= 2, "a template matches"


@on_uvloop
async def test_a_certificate_authority_gets_its_answer() -> None:
    async with http2_scene() as s:
        origin = await s.origin(answers(OK))
        s.install(
            service(origin),
            challenges=(AcmeChallenge("http-01", "shop.test", "tok", "tok.print"),),
        )
        async with http2_client(s) as client:
            answer = await client.get(b"/.well-known/acme-challenge/tok")
            assert (answer.status, answer.body) == (200, b"tok.print")
            assert (await client.get(b"/")).body == b"ok"


@on_uvloop
async def test_a_preface_in_pieces_is_understood() -> None:
    async with http2_scene() as s:
        await s.serve(answers(OK))
        client = await s.client()
        for byte in b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n":
            await client.send(bytes([byte]))
            await asyncio.sleep(0)
        await client.send(b"\0\0\0\4\0\0\0\0\0")
        assert (await client.exactly(4))[3] == 4, "SETTINGS of the server"


@on_uvloop
async def test_without_http2_a_preface_is_refused_as_before() -> None:
    async with http2_scene({"create_http2_client": None}) as s:
        await s.serve(answers(OK))
        client = await s.ask(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        assert (await client.response())[0] == 505


@on_uvloop
async def test_bodies_pass_with_and_without_a_length() -> None:
    async with http2_scene() as s:
        (origin,) = await s.serve(echo)
        async with http2_client(s) as client:
            for _ in range(3):
                sized = await client.get(
                    method=b"POST", fields=[(b"content-length", b"5")], body=b"12345"
                )
                assert sized.body == b"content-length: 5 12345"
            unsized = await client.get(method=b"POST", body=b"12345")
            assert unsized.body == b"transfer-encoding: chunked 5\r\n12345\r\n0\r\n\r\n"
            stream = await client.request(b"PUT", complete=False)
            for piece in (b"a", b"bc"):
                await client.data(stream, piece)
                await elapse(0.02, "the pieces arrive apart")
            await client.data(stream, b"", complete=True)
            answer = await client.answer(stream)
            assert answer.body.endswith(b" 1\r\na\r\n2\r\nbc\r\n0\r\n\r\n")
        assert len(origin.visits) == 1


async def echo(visit: Visit) -> None:
    """Answer with the framing field and the body as received."""
    while True:
        head = await visit.head()
        for line in head.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                framing, body = line, await visit.read(int(line.partition(b":")[2]))
            elif line.startswith(b"transfer-encoding:"):
                framing, body = line, await visit.reader.readuntil(b"0\r\n\r\n")
        found = framing + b" " + body
        await visit.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(found), found))


@on_uvloop
async def test_a_chunked_response_loses_its_chunks_and_keeps_its_trailers() -> None:
    async with http2_scene() as s:
        await s.serve(
            answers(
                CHUNKED + b"3\r\nabc\r\n0\r\n\r\n",
                CHUNKED + b"3\r\nabc\r\n2\r\nde\r\n0\r\nX-Sum: 7\r\n\r\n",
            )
        )
        async with http2_client(s) as client:
            whole = await client.get()
            assert (whole.body, whole.trailers) == (b"abc", [])
            assert whole.get(b"transfer-encoding") is None
            trailed = await client.get()
            assert (trailed.body, trailed.trailers) == (b"abcde", [(b"x-sum", b"7")])


@on_uvloop
async def test_trailers_of_a_request_reach_the_origin() -> None:
    async def script(visit: Visit) -> None:
        await visit.head()
        visit.raw = await visit.reader.readuntil(b"\r\n\r\n")
        await visit.send(OK)

    async with http2_scene() as s:
        (origin,) = await s.serve(script)
        async with http2_client(s) as client:
            stream = await client.request(b"POST", complete=False)
            await client.data(stream, b"abc")
            client.codec.send_trailers(stream, [(b"x-sum", b"7"), (b"content-type", b"no")])
            await client.flush()
            assert (await client.answer(stream)).status == 200
            assert origin.visits[0].raw == b"3\r\nabc\r\n0\r\nx-sum: 7\r\n\r\n"


@on_uvloop
async def test_interim_responses_and_expect_pass() -> None:
    async def script(visit: Visit) -> None:
        assert b"\r\nExpect: 100-continue\r\n" in await visit.head()
        await visit.send(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
        await visit.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        await visit.read(3)
        await visit.send(OK)

    async with http2_scene() as s:
        await s.serve(script)
        async with http2_client(s) as client:
            stream = await client.request(
                b"POST",
                fields=[(b"content-length", b"3"), (b"expect", b"100-continue")],
                complete=False,
            )
            answer = client.answers[stream]
            await client.until(lambda: len(answer.interim) == 2)
            assert answer.interim[0] == [(b":status", b"103"), (b"link", b"</a>")]
            await client.data(stream, b"abc", complete=True)
            assert (await client.answer(stream)).status == 200


@on_uvloop
async def test_responses_without_a_body() -> None:
    async with http2_scene() as s:
        await s.serve(
            answers(
                b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n",
                b"HTTP/1.1 204 No Content\r\n\r\n",
                b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n",
                b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            )
        )
        async with http2_client(s) as client:
            head = await client.get(method=b"HEAD")
            assert (head.status, head.get(b"content-length"), head.body) == (200, b"9", b"")
            assert [(await client.get()).status for _ in range(3)] == [204, 304, 200]


@on_uvloop
async def test_a_response_until_the_end_of_its_connection_is_complete() -> None:
    async def script(visit: Visit) -> None:
        await visit.head()
        await visit.send(b"HTTP/1.0 200 OK\r\n\r\nabc")

    async with http2_scene() as s:
        await s.serve(script)
        async with http2_client(s) as client:
            answer = await client.get()
            assert (answer.body, answer.code) == (b"abc", 0)


@on_uvloop
async def test_streams_are_served_at_the_same_time() -> None:
    waiting = asyncio.Event()

    async def script(visit: Visit) -> None:
        if b"/slow" in await visit.head():
            await waiting.wait()
            await visit.send(named_ok(b"slow"))
        else:
            await visit.send(named_ok(b"fast"))

    async with http2_scene() as s:
        await s.serve(script)
        async with http2_client(s) as client:
            slow = await client.request(path=b"/slow")
            assert [(await client.get()).body for _ in range(3)] == [b"fast"] * 3
            assert not client.answers[slow].complete
            waiting.set()
            assert (await client.answer(slow)).body == b"slow"


# --- rules apply as in HTTP/1.1


@on_uvloop
async def test_routes_and_own_responses() -> None:
    async with http2_scene() as s:
        shop, cart = await s.origin(answers(named_ok(b"shop"))), await s.origin(answers(OK))
        s.install(
            service(shop),
            service(cart, name="cart"),
            routes=(
                Route(id="cart", targets=(Target("cart"),), host="shop.test", path="/cart"),
                Route(id="shop", targets=(Target("shop"),), host="shop.test"),
            ),
        )
        async with http2_client(s) as client:
            assert (await client.get(b"/x")).body == b"shop"
            assert (await client.get(b"/cart/1")).body == b"ok"
            other = await client.get(b"/x", authority=b"other.test")
            assert other.status == 404
            assert other.get(b"connection") is None
            assert b"no route" in other.body


@on_uvloop
async def test_the_access_log_says_http2() -> None:
    log = AccessLog("json", 1.0)
    async with http2_scene({"access_log": log}) as s:
        await s.serve(answers(OK))
        async with http2_client(s) as client:
            for _ in range(3):
                await client.get(b"/a")
            refused = await client.get(fields=[(b"host", b"other.test")])
            assert (refused.status, refused.code) == (400, 0)
        lines = log.take().decode().splitlines()
    assert len(lines) == 4
    assert all('"version":"HTTP/2"' in line for line in lines)


@on_uvloop
async def test_refused_requests_are_counted_and_logged() -> None:
    """By the translation, by the codec with the stream, and by the codec with the connection."""
    log = AccessLog("json", 1.0)
    many = [(b"x-%d" % number, b"v" * 100) for number in range(1100)]
    async with http2_scene({"access_log": log}) as s:
        await s.serve(answers(OK))
        async with http2_client(s) as client:
            assert (await client.get(b"/a", fields=[(b"host", b"other.test")])).status == 400
            fields = [(b"x-long", b"v" * 70_000)]
            assert (await client.get(b"/b", fields=fields)).status == 431
            reset = await client.get(b"/c", fields=[(b"connection", b"close")])
            assert (reset.status, reset.code) == (0, ErrorCode.PROTOCOL_ERROR)
            assert (await client.get(b"/d")).status == 200
            stream = await client.request(path=b"/gone", complete=False)
            client.codec.reset(stream, ErrorCode.PROTOCOL_ERROR)
            assert (await client.get(b"/d")).status == 200
            with contextlib.suppress(ConnectionError):
                await client.get(b"/e", fields=many)
            await client.until_closed()
        async with http2_client(s) as client:
            await client.get(b"/f")
            await client.send(bytes(9))  # DATA on stream 0
            await client.until_closed()
        async with http2_client(s) as client:
            await client.get(b"/f")
            client.codec.terminate(ErrorCode.INTERNAL_ERROR)
            await client.flush()
            await client.until_closed()
        lines = [json.loads(line) for line in log.take().decode().splitlines()]
        report = s.plane.report(0, 1)
    seen = [(each["status"], each["target"], each.get("failure", "")) for each in lines]
    # A stream that the client resets does not count as refused.
    seen = [each for each in seen if each[1] != "/gone"]
    assert sorted(seen) == [
        (200, "/d", ""),
        (200, "/d", ""),
        (200, "/f", ""),
        (200, "/f", ""),
        (400, "", "bad-request"),
        (400, "", "bad-request"),
        (400, "", "bad-request"),
        (400, "/a", "bad-request"),
        (431, "/b", "too-long"),
    ]
    assert all(each["version"] == "HTTP/2" and each["client"] == "127.0.0.1" for each in lines)
    details = {each["detail"] for each in lines if each["status"] == 400}
    assert "a request that HTTP/2 forbids" in details
    assert "DATA: stream_id == 0" in details
    assert report.refused == {"bad-request": 4, "too-long": 1}


@on_uvloop
async def test_a_failed_attempt_is_retried() -> None:
    async def broken(visit: Visit) -> None:
        await visit.head()

    async with http2_scene() as s:
        await s.serve(broken, answers(OK))
        async with http2_client(s) as client:
            assert [(await client.get()).status for _ in range(4)] == [200] * 4


@on_uvloop
async def test_a_response_that_breaks_resets_its_stream_alone() -> None:
    async def script(visit: Visit) -> None:
        if b"/bad" in await visit.head():
            await visit.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc")
            visit.abort()
        else:
            await visit.send(OK)

    async with http2_scene() as s:
        await s.serve(script)
        async with http2_client(s) as client:
            bad = await client.get(b"/bad")
            assert (bad.status, bad.complete, bad.code) == (200, False, ErrorCode.INTERNAL_ERROR)
            assert (await client.get()).status == 200


@on_uvloop
async def test_a_response_before_the_end_of_the_request_stops_the_upload() -> None:
    async def script(visit: Visit) -> None:
        await visit.head()
        await visit.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")

    async with http2_scene() as s:
        await s.serve(script)
        async with http2_client(s) as client:
            stream = await client.request(b"POST", complete=False)
            await client.data(stream, b"abc")
            answer = await client.answer(stream)
            assert (answer.status, answer.body, answer.complete) == (413, b"no", True)
            await client.until(lambda: answer.code is not None)
            assert answer.code == ErrorCode.NO_ERROR
            assert not s.plane.streams_in_flight


@on_uvloop
async def test_a_request_that_the_client_resets_is_cancelled() -> None:
    async with http2_scene() as s:
        (origin,) = await s.serve(lambda visit: visit.wait_closed())
        async with http2_client(s) as client:
            stream = await client.request()
            await wait_until(lambda: bool(origin.visits) and bool(origin.visits[0].raw))
            client.codec.reset(stream, ErrorCode.CANCEL)
            await client.flush()
            await origin.visits[0].closed.wait()
            assert not s.plane.streams_in_flight


@on_uvloop
async def test_the_end_of_the_connection_cancels_its_streams() -> None:
    async with http2_scene() as s:
        (origin,) = await s.serve(lambda visit: visit.wait_closed())
        async with http2_client(s) as client:
            await client.request()
            await client.request()
            await wait_until(lambda: len([v for v in origin.visits if v.raw]) == 2)
        for visit in origin.visits:
            await visit.closed.wait()
        await wait_until(lambda: not s.plane.clients)
        assert not s.plane.streams_in_flight


# --- flow control


@on_uvloop
async def test_an_upload_advances_only_as_the_origin_reads() -> None:
    reading = asyncio.Event()

    async def script(visit: Visit) -> None:
        if b"/other" in await visit.head():
            await visit.send(OK)
            return
        transport = cast("asyncio.Transport", visit.writer.transport)
        transport.pause_reading()
        await reading.wait()
        transport.resume_reading()
        last = b""
        while not last.endswith(b"0\r\n\r\n"):
            last = last[-5:] + await visit.reader.read(1 << 20)
        await visit.send(OK)

    async with http2_scene() as s:
        await s.serve(script)
        async with http2_client(s) as client:
            stream = await client.request(b"POST", complete=False)
            size = 24 * 1024 * 1024
            await client.data(stream, bytes(size), complete=True)
            await client.until(lambda: client.codec.unsent(stream) < size)
            left = await settled(lambda: client.codec.unsent(stream), 0.3)
            assert left > size // 2, "socket buffers and windows hold the rest"
            assert (await client.get(b"/other")).status == 200, "other streams continue"
            reading.set()
            assert (await client.answer(stream)).status == 200


@on_uvloop
async def test_a_response_is_read_only_as_the_client_takes_it() -> None:
    size = 32 * 1024 * 1024
    sent = [0]

    async def script(visit: Visit) -> None:
        if b"/big" not in await visit.head():
            await visit.send(OK)
            return
        await visit.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        while sent[0] < size:
            await visit.send(bytes(65536))
            sent[0] += 65536

    async with http2_scene() as s:
        await s.serve(script)
        async with http2_client(s) as client:
            client.consumes = False
            stream = await client.request(path=b"/big")
            answer = client.answers[stream]
            await client.until(lambda: len(answer.body) == STREAM_WINDOW)
            assert await settled(lambda: sent[0], 0.3) < size // 2, "the origin is not read"
            (held,) = [each for each in s.plane.clients if each.exchange is not None]
            assert held.has_unsent_bytes()
            assert (await client.get()).status == 200, "other streams continue"
            client.consumes = True
            client.codec.consume(stream, len(answer.body))
            await client.flush()
            assert len((await client.answer(stream)).body) == size


@pytest.mark.parametrize("end", ["client", "deadline"])
@on_uvloop
async def test_nothing_is_left_of_a_stalled_response(end: str) -> None:
    async def script(visit: Visit) -> None:
        await visit.head()
        await visit.send(b"HTTP/1.1 200 OK\r\nContent-Length: 50000000\r\n\r\n")
        await visit.send(bytes(50_000_000))

    async with http2_scene() as s:
        await s.serve(script, timeouts=Timeouts(idle=0.3 if end == "deadline" else 60.0))
        async with http2_client(s) as client:
            client.consumes = False
            stream = await client.request()
            await client.until(lambda: len(client.answers[stream].body) == STREAM_WINDOW)
            if end == "client":
                client.codec.reset(stream, ErrorCode.CANCEL)
                await client.flush()
            await wait_until(lambda: not s.plane.streams_in_flight)
            assert len(s.plane.clients) == 1
