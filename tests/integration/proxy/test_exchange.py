"""One request through the proxy and its answer: heads, persistence, and connections to an
origin."""

import asyncio
import socket
import time
from pathlib import Path

import pytest

from proxy.wire.snapshot import Endpoint, Listener, Route, Service, Target, Timeouts
from tests.support.proxy_scene import (
    OK,
    Client,
    Script,
    Visit,
    answers,
    get,
    on_uvloop,
    scene,
    service,
)
from tests.support.waiting import elapse, wait_until

# --- heads


@on_uvloop
async def test_a_request_is_passed_on_with_the_proxys_fields() -> None:
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
            b"CDN-Loop: meshd",
            b"X-Forwarded-For: 127.0.0.1",
            b"X-Forwarded-Proto: http",
            b"X-Forwarded-Host: shop.test",
            b"Forwarded: for=127.0.0.1;host=shop.test;proto=http",
        ):
            assert b"\r\n" + line + b"\r\n" in seen
        assert seen.count(b"X-Request-Id: ") == 1
        assert b"Via: 1.1 meshd" not in seen


@on_uvloop
async def test_via_is_sent_if_asked_also_to_connected_clients() -> None:
    async with scene() as s:
        origin = await s.origin(answers(OK))
        s.install(service(origin))
        client = await s.client()
        for via in (False, True, False):
            s.install(service(origin), via=via)
            for _ in range(4):  # once in full, then by a template
                seen = len(origin.visits[0].raw) if origin.visits else 0
                await client.send(get("/"))
                await client.response()
                sent = origin.visits[0].raw[seen:]
                assert sent.count(b"Via: 1.1 meshd\r\n") == via
                assert sent.count(b"CDN-Loop: meshd\r\n") == 1
        s.install(service(origin), via=True)
        old = await s.ask(b"GET / HTTP/1.0\r\n\r\n")
        await old.response()
        assert b"Via: 1.0 meshd\r\n" in origin.visits[-1].raw


@on_uvloop
async def test_a_loop_is_answered_by_508() -> None:
    """The proxy is its own origin, once directly and once behind a client that joins fields."""
    async with scene() as s:
        (origin,) = await s.serve(answers(OK))
        for before, status in ((31, 200), (32, 200), (33, 508)):
            client = await s.ask(get("/", "CDN-Loop: other, " + ", ".join(["meshd;n=1"] * before)))
            assert (await client.response())[0] == status
        s.install(Service("shop", "loop", (Endpoint("self", "127.0.0.1", s.port),)))
        client = await s.ask(get("/"))
        assert (await client.response())[0] == 508
        assert len(origin.visits) <= 2


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
async def test_hop_by_hop_and_untrusted_fields_are_removed(line: str) -> None:
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
async def test_a_request_id_is_kept_or_generated() -> None:
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
async def test_hop_by_hop_response_fields_are_removed() -> None:
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
async def test_an_origin_connection_is_reused_only_if_it_is_clean(
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
        (report,) = s.plane.report(0.0, 1.0).services
        assert (report.streams, report.stream_seconds > 0.0) == (1, True)
        client.writer.write_eof()
        assert await client.rest() == b""
        await wait_until(lambda: not s.plane.active())
        (report,) = s.plane.report(1.0, 2.0).services
        assert report.streams == 0


@on_uvloop
async def test_a_refused_upgrade_is_an_ordinary_answer() -> None:
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
        await wait_until(lambda: b"/slow" in origin.visits[-1].raw and len(s.plane.clients) == 4)
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
        await wait_until(lambda: not s.plane.active())


@on_uvloop
async def test_draining_closes_connections_without_a_request_soon() -> None:
    async with scene() as s:
        await s.serve(answers(OK))
        silent = await s.client()
        await wait_until(lambda: s.plane.clients)
        s.plane.start_drain()
        assert await silent.rest() == b""
        await wait_until(lambda: not s.plane.active())


TUNNEL_HEAD = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %b\r\n\r\n"


def tunnel_to(visits: list[bytes], protocol: bytes = b"websocket", first: bytes = b"") -> Script:
    """Return a script that switches protocols, sends `first`, echoes, and keeps what it read."""

    async def script(visit: Visit) -> None:
        await visit.head()
        await visit.send(TUNNEL_HEAD % protocol + first)
        while data := await visit.reader.read(1000):
            visits.append(data)
            await visit.send(data)

    return script


@on_uvloop
async def test_a_drain_ends_requests_and_keeps_tunnels_until_their_time() -> None:
    read: list[bytes] = []

    async def hang(visit: Visit) -> None:
        await visit.head()
        await visit.wait_closed()

    async with scene() as s:
        shop = service(await s.origin(tunnel_to(read)), drain_tunnels=2.0)
        slow = service(await s.origin(hang), name="slow")
        s.install(
            shop,
            slow,
            routes=(
                Route(id="1", targets=(Target("shop"),)),
                Route(id="2", targets=(Target("slow"),), path="/slow"),
            ),
        )
        waiting = await s.ask(get("/slow"))
        client = await s.ask(get("/", "Connection: Upgrade", "Upgrade: websocket"))
        await client.head()
        s.plane.start_drain(0.2)
        assert await waiting.rest() == b""
        await client.send(b"\x82\x02hi")
        assert await client.exactly(4) == b"\x82\x02hi"
        assert s.plane.active() == 1
        # The close frame; the client's answer still reaches the origin.
        assert await client.exactly(4) == b"\x88\x02\x03\xe9"
        await client.send(b"\x88\x82maskXY")
        await wait_until(lambda: read[-1:] == [b"\x88\x82maskXY"])
        client.close()
        await wait_until(lambda: not s.plane.active())
        (report, *_) = s.plane.report(0.0, 1.0).services
        assert report.failures == {}


@on_uvloop
async def test_a_close_frame_waits_for_the_end_of_the_frame_before() -> None:
    more = asyncio.Event()

    async def script(visit: Visit) -> None:
        await visit.head()
        await visit.send(TUNNEL_HEAD % b"websocket" + b"\x82\x04ab")
        await more.wait()
        await visit.send(b"cd")
        await visit.send(b"\x82\x01x")
        await visit.wait_closed()

    async with scene() as s:
        await s.serve(script, drain_tunnels=0.0)
        client = await s.ask(get("/", "Connection: Upgrade", "Upgrade: websocket"))
        await client.head()
        assert await client.exactly(4) == b"\x82\x04ab"
        s.plane.start_drain(30.0)
        await elapse(0.3, "the drain has looked at it")
        more.set()
        rest = await client.rest()
        assert rest[:2] == b"cd"
        assert rest.removeprefix(b"cd").removeprefix(b"\x82\x01x") == b"\x88\x02\x03\xe9"
        await wait_until(lambda: not s.plane.active(), 5)


@on_uvloop
async def test_other_tunnels_are_closed_and_a_shutdown_shortens_the_time() -> None:
    async with scene() as s:
        await s.serve(tunnel_to([], b"raw", b"welcome"))
        client = await s.ask(get("/", "Connection: Upgrade", "Upgrade: raw"))
        await client.head()
        s.plane.start_drain(30.0)
        await elapse(0.3, "the drain has looked at it")
        assert s.plane.active() == 1
        s.plane.limit_tunnels(0.1)
        assert await client.rest() == b"welcome"
        await wait_until(lambda: not s.plane.active())


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
async def test_all_addresses_of_a_host_are_tried() -> None:
    async with scene() as s:
        (origin,) = await s.serve(answers(OK))
        # No process listens on the first address; the second one accepts.
        where = Endpoint("e", "127.0.0.9", origin.port, alternatives=("127.0.0.1",))
        s.install(Service("shop", "2", (where,)))
        for _ in range(3):
            client = await s.ask(get())
            assert (await client.response())[2] == b"ok"
        endpoint = s.plane.services["shop"].endpoints["e"]
        assert endpoint.hosts() == ("127.0.0.1", "127.0.0.9")
        # None accepts: one error, and nothing is left open.
        gone = Endpoint("g", "127.0.0.9", origin.port, alternatives=("127.0.0.8",))
        s.install(Service("shop", "3", (gone,)))
        client = await s.ask(get())
        assert (await client.response())[0] == 502
        assert s.plane.services["shop"].endpoints["g"].connections == 0


@on_uvloop
async def test_an_address_that_does_not_answer_delays_the_next_by_a_quarter_second() -> None:
    async with scene() as s:
        (origin,) = await s.serve(answers(OK))
        with socket.socket() as deaf:
            deaf.bind(("127.0.0.9", origin.port))
            deaf.listen(0)
            filling = [socket.socket() for _ in range(3)]
            for sock in filling:
                sock.setblocking(False)
                sock.connect_ex(deaf.getsockname())
            where = Endpoint("e", "127.0.0.9", origin.port, alternatives=("127.0.0.1",))
            s.install(Service("shop", "2", (where,), timeouts=Timeouts(connect=5.0)))
            begun = time.monotonic()
            client = await s.ask(get())
            assert (await client.response())[2] == b"ok"
            assert 0.2 < time.monotonic() - begun < 2.0
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
        await wait_until(lambda: not s.plane.active())
