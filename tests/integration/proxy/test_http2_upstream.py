"""HTTP/2 to endpoints: many requests on one connection, and what the endpoint may do with them."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from proxy.http1.limits import INTERIM_RESPONSES
from proxy.http2 import codec
from proxy.http2.codec import ErrorCode
from proxy.http2_upstream.connection import PING_SECONDS, Http2UpstreamConnection
from proxy.http2_upstream.pool import Http2Pool
from proxy.state.endpoint_state import EndpointState
from proxy.wire.snapshot import Endpoint, Limits, Parking, Retries, Service, Timeouts, UpstreamTls
from tests.support.certificate_authority import Authority, server_context
from tests.support.http2 import create_client, http2_client
from tests.support.http2_origin import Call, Http2Origin, echo, http2_origin, with_http2
from tests.support.proxy_scene import OK, Scene, Visit, answers, get, on_uvloop, post, scene
from tests.support.waiting import wait_until


def install(s: Scene, *origins: Http2Origin, **config: Any) -> None:
    endpoints = tuple(
        Endpoint(f"shop-{index}", "127.0.0.1", origin.port) for index, origin in enumerate(origins)
    )
    s.install(Service("shop", "1", endpoints, **{"http_version": "h2c", **config}))


def connections_of(state: EndpointState) -> list[Http2UpstreamConnection]:
    assert isinstance(state.streams, Http2Pool)
    return state.streams._connections


@on_uvloop
async def test_requests_of_all_clients_share_one_connection() -> None:
    async with scene(with_http2()) as s, http2_origin(echo) as origin:
        install(s, origin)
        clients = [await s.client() for _ in range(20)]

        async def ask(number: int) -> None:
            client = clients[number]
            for round in range(5):
                await client.send(get(f"/{number}/{round}", "X-Thing: Some Value"))
                status, head, body = await client.response()
                assert (status, body) == (200, b"GET /%d/%d " % (number, round))
                assert b"Via: 1.1 meshd" in head

        await asyncio.gather(*map(ask, range(20)))
        assert len(origin.connections) == 1
        fields = origin.calls[0].fields
        assert fields[b":authority"] == b"shop.test"
        assert fields[b"x-thing"] == b"Some Value"
        assert fields[b"x-forwarded-for"] == b"127.0.0.1"
        assert not {b"host", b"connection", b"te", b"transfer-encoding"} & fields.keys()


@on_uvloop
async def test_bodies_with_and_without_a_length() -> None:
    async with scene(with_http2()) as s, http2_origin(echo) as origin:
        install(s, origin)
        client = await s.ask(post(b"hello"))
        assert (await client.response())[2] == b"POST / hello"
        await client.send(
            b"POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\n"
            b"3\r\nabc\r\n2\r\nde\r\n0\r\nX-Sum: 5\r\nContent-Length: 9\r\n\r\n"
        )
        assert (await client.response())[2] == b"POST /c abcde"
        assert origin.calls[1].trailers == {b"x-sum": b"5"}
        await client.send(b"HEAD /h HTTP/1.1\r\nHost: a\r\n\r\n")
        head = await client.head()
        assert head.startswith(b"HTTP/1.1 200")
        old = await s.ask(b"GET /old HTTP/1.0\r\n\r\n")
        assert (await old.rest()).endswith(b"GET /old ")
        assert origin.calls[3].fields[b":authority"] == b"127.0.0.1:%d" % origin.port


@on_uvloop
async def test_large_bodies_and_backpressure_in_both_directions() -> None:
    size = 3_000_000
    async with scene(with_http2()) as s, http2_origin(echo) as origin:
        install(s, origin)
        client = await s.client()
        sending = asyncio.ensure_future(client.send(post(b"x" * size)))
        status, _, body = await client.response()
        await sending
        assert (status, len(body)) == (200, size + len(b"POST / "))


@on_uvloop
async def test_an_upload_waits_for_the_window_of_the_endpoint() -> None:
    go = asyncio.Event()

    async def slow(call: Call) -> None:
        await go.wait()
        received = 0
        while (piece := await call.received.get()) is not None:
            assert isinstance(piece, bytes)
            received += len(piece)
            call.connection.codec.consume(call.number, len(piece))
            call.connection.flush()
        call.respond(200, b"%d" % received)

    async with scene(with_http2()) as s, http2_origin(slow) as origin:
        origin.consumes = False
        install(s, origin)
        client = await s.client()
        size = 20_000_000
        sending = asyncio.ensure_future(client.send(post(b"x" * size)))
        await wait_until(lambda: s.plane.paused_clients, 5, "the client is not read")
        assert not sending.done()
        (downstream,) = s.plane.clients
        exchange = downstream.exchange
        assert exchange is not None
        assert exchange.bytes_in < 1_000_000
        go.set()
        assert (await client.response())[2] == b"%d" % size
        await sending


@pytest.mark.parametrize("end", ["data", "trailers", "reset", "client"])
@on_uvloop
async def test_a_slow_client_uses_up_no_window_of_the_connection(end: str) -> None:
    """What it has not taken when its stream ends counts no longer."""
    size, together = 120_000, 60
    go = asyncio.Event()

    async def script(call: Call) -> None:
        call.head(200)
        await go.wait()
        call.data(b"x" * size, complete=end == "data")
        if end == "trailers":
            call.end((b"x-sum", b"4"))
        elif end == "reset":
            await wait_until(lambda: not call.connection.codec.unsent(call.number), 5)
            call.reset(ErrorCode.INTERNAL_ERROR)

    async with scene(with_http2()) as s, http2_origin(script) as origin:
        install(s, origin)
        (state,) = s.plane.services["shop"].endpoints.values()
        for _ in range(codec.CONNECTION_WINDOW // (size * together) + 1):
            go.clear()
            clients = [await s.ask(get()) for _ in range(together)]
            for client in clients:
                assert b" 200 " in await client.head()
            (connection,) = connections_of(state)
            for stream in connection._streams.values():
                # As an exchange does whose client takes no more bytes.
                stream.pause()
            go.set()
            for client in clients:
                await client.exactly(size)
                if end == "client":
                    client.close()
            await wait_until(lambda: not state.in_flight, 5, "the streams have ended")
        assert len(origin.connections) == 1


@on_uvloop
async def test_trailers_reach_clients_of_both_versions() -> None:
    async def script(call: Call) -> None:
        await call.read()
        call.head(200)
        call.data(b"part")
        await asyncio.sleep(0)
        call.end((b"x-sum", b"4"), (b"host", b"a"))

    async with (
        scene(with_http2(create_http2_client=create_client)) as s,
        http2_origin(script) as origin,
    ):
        install(s, origin)
        client = await s.ask(get())
        assert b"Transfer-Encoding: chunked" in await client.head()
        assert await client.until(b"\r\n\r\n") == b"4\r\npart\r\n0\r\nx-sum: 4\r\n\r\n"
        async with http2_client(s) as other:
            answer = await other.get(b"/")
            assert (answer.body, answer.trailers) == (b"part", [(b"x-sum", b"4")])


@pytest.mark.parametrize("more", [0, 1])
@on_uvloop
async def test_interim_responses_pass_up_to_a_limit(more: int) -> None:
    async def script(call: Call) -> None:
        for _ in range(INTERIM_RESPONSES + more):
            call.connection.codec.send_interim_response(
                call.number, [(b":status", b"103"), (b"link", b"</a>")]
            )
        call.respond(200, b"ok")

    async with scene(with_http2()) as s, http2_origin(script) as origin:
        install(s, origin, retries=Retries(attempts=0))
        for _ in range(2):
            client = await s.ask(get())
            for _ in range(INTERIM_RESPONSES):
                assert (await client.head()).startswith(b"HTTP/1.1 103 ")
            assert (await client.response())[0] == (502 if more else 200)
        assert len(origin.connections) == 1


@on_uvloop
async def test_more_streams_than_the_endpoint_allows_open_another_connection() -> None:
    go = asyncio.Event()

    async def wait(call: Call) -> None:
        await go.wait()
        call.respond(200, b"ok")

    async with scene(with_http2()) as s, http2_origin(wait, most_streams=4) as origin:
        install(s, origin)
        first = await s.ask(get())
        await wait_until(lambda: origin.calls, 5)
        clients = [first, *[await s.ask(get()) for _ in range(9)]]
        await wait_until(lambda: len(origin.calls) == 10, 5)
        (state,) = s.plane.services["shop"].endpoints.values()
        assert state.in_flight == 10, "balancing counts streams"
        assert state.connections == len(origin.connections) == 3
        go.set()
        for client in clients:
            assert (await client.response())[0] == 200


@on_uvloop
async def test_a_limit_of_connections_does_not_limit_streams() -> None:
    go = asyncio.Event()

    async def wait(call: Call) -> None:
        await go.wait()
        call.respond(200, b"ok")

    async with scene(with_http2()) as s, http2_origin(wait, most_streams=8) as origin:
        install(s, origin, limits=Limits(endpoint_connections=1))
        first = await s.ask(get())
        await wait_until(lambda: origin.calls, 5)
        clients = [first, *[await s.ask(get()) for _ in range(11)]]
        await wait_until(lambda: len(origin.calls) == 8, 5, "as many as one connection takes")
        assert len(origin.connections) == 1
        go.set()
        for client in clients:
            assert (await client.response())[0] == 200
        assert len(origin.connections) == 1


@pytest.mark.parametrize("limits", [Limits(), Limits(endpoint_connections=1)])
@on_uvloop
async def test_a_burst_at_a_new_endpoint_meets_its_limit_of_streams(limits: Limits) -> None:
    """The limit is not known before the first connection is open."""

    async def brief(call: Call) -> None:
        await call.read()
        call.respond(200, b"ok")

    async with (
        scene(with_http2(create_http2_client=create_client)) as s,
        http2_origin(brief, most_streams=4) as origin,
    ):
        origin.distance = 0.1
        install(s, origin, limits=limits)
        async with http2_client(s) as client:
            # All arrive while the connection to the endpoint is opened.
            for number in [await client.request(b"POST", body=b"a") for _ in range(60)]:
                answer = await client.answer(number)
                assert (answer.status, answer.body) == (200, b"ok")
        assert len(origin.calls) == 60
        assert s.plane.services["shop"].counters.retries == 0, "none was refused and sent again"
        if limits.endpoint_connections:
            assert len(origin.connections) == 1


@on_uvloop
async def test_streams_that_stay_open_get_further_connections() -> None:
    go = asyncio.Event()

    async def wait(call: Call) -> None:
        await go.wait()
        call.respond(200, b"ok")

    async with scene(with_http2()) as s, http2_origin(wait, most_streams=4) as origin:
        install(s, origin)
        clients = [await s.client() for _ in range(30)]
        await asyncio.gather(*(client.send(get()) for client in clients))
        await wait_until(lambda: len(origin.calls) == 30, 5, "all are sent at once")
        assert len(origin.connections) == 8
        go.set()
        for client in clients:
            assert (await client.response())[0] == 200


@on_uvloop
async def test_an_endpoint_without_settings_is_no_connection() -> None:
    """It accepts, and says nothing: each request tries a new connection."""

    async def silent(visit: Visit) -> None:
        await visit.wait_closed()

    async with scene(with_http2()) as s:
        (origin,) = await s.serve(
            silent,
            http_version="h2c",
            timeouts=Timeouts(connect=0.2),
            retries=Retries(attempts=0),
        )
        (state,) = s.plane.services["shop"].endpoints.values()
        for number in range(1, 3):
            client = await s.ask(post(b"a"))
            assert (await client.response())[0] == 504
            await wait_until(lambda: state.connections == state.in_flight == 0, 5, "closed")
            assert len(origin.visits) == number
            assert not state.opening


@on_uvloop
async def test_refused_streams_are_sent_elsewhere_even_a_post() -> None:
    async def refuse(call: Call) -> None:
        call.reset(ErrorCode.REFUSED_STREAM)

    async with (
        scene(with_http2()) as s,
        http2_origin(refuse) as bad,
        http2_origin(echo) as good,
    ):
        install(s, bad, good)
        for _ in range(6):
            client = await s.ask(post(b"once"))
            assert (await client.response())[2] == b"POST / once"
        assert bad.calls
        assert len(good.calls) == 6
        install(s, bad)
        client = await s.ask(post(b"once"))
        assert (await client.response())[0] == 503, "the same endpoint is asked once more"


@on_uvloop
async def test_a_refused_stream_gets_another_connection() -> None:
    """Some endpoints count streams for a moment after their end, and refuse one too many."""
    go = asyncio.Event()

    async def script(call: Call) -> None:
        if call.connection is origin.connections[0] and len(origin.calls) > 1:
            call.reset(ErrorCode.REFUSED_STREAM)
            return
        await go.wait()
        call.respond(200, b"ok")

    async with scene(with_http2()) as s, http2_origin(script) as origin:
        install(s, origin)
        first = await s.ask(get())
        await wait_until(lambda: origin.calls, 5)
        second = await s.ask(post(b"a"))
        await wait_until(lambda: len(origin.connections) == 2, 5, "another connection")
        go.set()
        for client in (first, second):
            assert (await client.response())[0] == 200


@on_uvloop
async def test_a_goaway_ends_no_request() -> None:
    async def script(call: Call) -> None:
        connection = call.connection
        if call.fields[b":path"] == b"/last":
            connection.codec.end()
            connection.flush()
        await echo(call)

    async with scene(with_http2()) as s, http2_origin(script) as origin:
        install(s, origin)
        for number in range(10):
            client = await s.ask(post(b"a"))
            assert (await client.response())[0] == 200
            client = await s.ask(get("/last"))
            assert (await client.response())[0] == 200
            assert len(origin.connections) == number + 1
        (state,) = s.plane.services["shop"].endpoints.values()
        await wait_until(lambda: state.connections == 0, 5, "closed")


@on_uvloop
async def test_streams_behind_a_goaway_are_sent_again() -> None:
    """The endpoint says which was the last one that it took."""

    async def script(call: Call) -> None:
        origin = call.connection.origin
        if len(origin.calls) == 2:
            # The second request was not processed, it says.
            call.connection.transport.write(b"\0\0\x08\x07\0\0\0\0\0" + b"\0\0\0\x01" + b"\0\0\0\0")
            return
        if len(origin.calls) == 1:
            await asyncio.Event().wait()
        await echo(call)

    async with scene(with_http2()) as s, http2_origin(script) as origin:
        install(s, origin)
        await s.ask(get("/first"))
        await wait_until(lambda: origin.calls, 5)
        client = await s.ask(post(b"again"))
        assert (await client.response())[2] == b"POST / again"
        assert len(origin.connections) == 2


@pytest.mark.parametrize("answering", [False, True])
@on_uvloop
async def test_a_connection_that_breaks(answering: bool) -> None:
    async def script(call: Call) -> None:
        if answering:
            call.head(200)
            call.data(b"some")
            await asyncio.sleep(0)
        call.connection.transport.abort()

    async with scene(with_http2()) as s, http2_origin(script) as origin:
        install(s, origin, retries=Retries(attempts=0))
        client = await s.ask(get())
        if answering:
            assert b"200" in await client.head()
            assert not (await client.rest()).endswith(b"0\r\n\r\n")
        else:
            assert (await client.response())[0] == 502
        (state,) = s.plane.services["shop"].endpoints.values()
        await wait_until(lambda: state.connections == 0, 5)
        assert state.in_flight == 0


@on_uvloop
async def test_a_client_that_goes_cancels_its_stream_alone() -> None:
    async def script(call: Call) -> None:
        call.head(200)
        call.data(b"some")
        assert await call.received.get() is None
        code = await call.received.get()
        assert code == ErrorCode.CANCEL
        cancelled.set()

    cancelled = asyncio.Event()
    async with scene(with_http2()) as s, http2_origin(script) as origin:
        install(s, origin)
        client, other = await s.ask(get("/a")), await s.ask(get("/b"))
        await client.head()
        await other.head()
        client.close()
        await asyncio.wait_for(cancelled.wait(), 10)
        assert origin.open == 1
        assert len(origin.connections) == 1


@on_uvloop
async def test_over_tls_and_auto(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    tls = UpstreamTls(ca=authority.ca, server_name="orders.test")
    context = server_context(authority.issue("orders.test"))
    for version in ("h2", "auto"):
        async with scene(with_http2()) as s, http2_origin(echo, tls=context) as origin:
            install(s, origin, tls=tls, http_version=version)
            clients = [await s.client() for _ in range(5)]
            await asyncio.gather(*(client.send(get("/x")) for client in clients))
            for client in clients:
                assert (await client.response())[2] == b"GET /x "
            assert len(origin.connections) == 1
            assert origin.calls[0].fields[b":scheme"] == b"https"


@on_uvloop
async def test_auto_with_a_server_of_http1(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    tls = UpstreamTls(ca=authority.ca, server_name="orders.test")
    context = server_context(authority.issue("orders.test"))
    async with scene(with_http2()) as s:
        await s.serve(answers(OK), server_tls=context, tls=tls, http_version="auto")
        clients = [await s.client() for _ in range(5)]
        await asyncio.gather(*(client.send(get("/x")) for client in clients))
        for client in clients:
            assert (await client.response())[0] == 200
        await clients[0].send(get("/y"))
        assert (await clients[0].response())[0] == 200
        (state,) = s.plane.services["shop"].endpoints.values()
        assert state.connections == len(state.idle)
        assert state.opening == state.in_flight == 0


@on_uvloop
async def test_h2_with_a_server_of_http1_says_why(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    tls = UpstreamTls(ca=authority.ca, server_name="orders.test")
    context = server_context(authority.issue("orders.test"))
    lines: list[str] = []
    async with scene(with_http2(on_problem=lines.append)) as s:
        await s.serve(answers(OK), server_tls=context, tls=tls, http_version="h2")
        assert (await (await s.ask(get())).response())[0] == 502
        assert lines == ["shop: no TLS connection to shop-0: it does not speak HTTP/2"]


@on_uvloop
async def test_an_endpoint_that_speaks_no_http2() -> None:
    async with scene(with_http2()) as s:
        await s.serve(
            answers(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"),
            http_version="h2c",
            retries=Retries(attempts=0),
        )
        assert (await (await s.ask(get())).response())[0] == 502
        (state,) = s.plane.services["shop"].endpoints.values()
        await wait_until(lambda: state.connections == 0, 5)


@on_uvloop
async def test_a_refused_connection_and_a_silent_endpoint() -> None:
    async def silent(call: Call) -> None:
        await asyncio.Event().wait()

    async with scene(with_http2()) as s, http2_origin(silent) as origin:
        install(s, origin, timeouts=Timeouts(first_byte=0.1), retries=Retries(attempts=0))
        client = await s.ask(get())
        assert (await client.response())[0] == 504
        await wait_until(lambda: origin.open == 0, 5, "the stream was reset")
        endpoints = (Endpoint("shop-9", "127.0.0.1", 9),)
        s.install(Service("shop", "3", endpoints, http_version="h2c", parking=Parking(timeout=0)))
        assert (await (await s.ask(get())).response())[0] == 502


@on_uvloop
async def test_a_connection_that_went_silent_is_replaced() -> None:
    """A firewall may forget a connection without a reset: both ends believe that it is open."""
    waiting: list[Call] = []

    async def script(call: Call) -> None:
        if call.fields[b":path"] == b"/slow":
            waiting.append(call)
        else:
            await echo(call)

    async with scene(with_http2()) as s, http2_origin(script) as origin:
        install(s, origin, timeouts=Timeouts(first_byte=0.2), retries=Retries(attempts=0))
        (state,) = s.plane.services["shop"].endpoints.values()
        client = await s.ask(get("/a"))
        assert (await client.response())[2] == b"GET /a "
        await client.send(get("/slow"))
        assert (await client.response())[0] == 504
        await wait_until(connections_of(state)[0].has_room, 5, "it answers the PING")
        await client.send(get("/b"))
        assert (await client.response())[0] == 200
        assert len(origin.connections) == 1
        origin.connections[0].transport.pause_reading()
        await client.send(get("/c"))
        assert (await client.response())[0] == 504
        for _ in range(3):
            await client.send(get("/d"))
            assert (await client.response())[2] == b"GET /d "
        assert len(origin.connections) == state.connections == 2
        origin.connections[0].transport.resume_reading()
        await wait_until(connections_of(state)[0].has_room, 5, "it is heard again")


@on_uvloop
async def test_a_connection_that_stays_silent_is_closed() -> None:
    async with scene(with_http2()) as s, http2_origin(echo) as origin:
        install(s, origin, timeouts=Timeouts(first_byte=0.2), retries=Retries(attempts=0))
        (state,) = s.plane.services["shop"].endpoints.values()
        client = await s.ask(get())
        assert (await client.response())[0] == 200
        origin.connections[0].transport.pause_reading()
        await client.send(get())
        assert (await client.response())[0] == 504
        assert state.connections == 1
        await wait_until(lambda: not state.connections, PING_SECONDS + 1, "closed")


@on_uvloop
async def test_idle_connections_are_closed_and_removed_endpoints_too() -> None:
    async with scene(with_http2()) as s, http2_origin(echo) as origin:
        install(s, origin, timeouts=Timeouts(pool=0.05))
        client = await s.ask(get())
        assert (await client.response())[0] == 200
        (state,) = s.plane.services["shop"].endpoints.values()
        await wait_until(lambda: state.connections == 0, 5, "closed")
        await client.send(get())
        assert (await client.response())[0] == 200
        s.install(Service("shop", "2", (), http_version="h2c"))
        await wait_until(lambda: state.connections == 0, 5, "closed")
