"""Requests and answers of every form: versions, interim answers, missing bodies, order,
persistence, upgrades."""

import asyncio
import threading

import pytest
import websockets
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve

from tests.support.raw_http import Message, Origin, Proxy, Script, Stage, Wire, answering, get
from tests.support.waiting import elapse_blocking, settled_blocking, wait_until_blocking

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


# --- interim answers


def test_100_continue_comes_from_the_origin(stage: Stage) -> None:
    def script(wire: Wire) -> None:
        head = wire.head()
        assert head.get(b"expect") == b"100-continue"
        assert wire.quiet(0.2), "the body came before it was asked for"
        wire.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        assert wire.exactly(4) == b"body"
        wire.send(OK)

    with stage.scene(script).proxy.connect() as client:
        client.send(get(b"/", b"Content-Length: 4", b"Expect: 100-continue", method=b"POST"))
        assert client.head().status == 100
        client.send(b"body")
        assert client.response().status == 200


def test_a_refusal_instead_of_100_continue(stage: Stage) -> None:
    """The body never arrived, so the next bytes could belong to it: the connection ends or the
    next request is read as one."""

    def script(wire: Wire) -> None:
        wire.head()
        wire.send(b"HTTP/1.1 417 Expectation Failed\r\nContent-Length: 2\r\n\r\nno")
        wire.quiet(1)

    with stage.scene(script).proxy.connect() as client:
        client.send(get(b"/", b"Content-Length: 4", b"Expect: 100-continue", method=b"POST"))
        answer = client.response()
        assert (answer.status, answer.body) == (417, b"no")
        assert client.ended()


@pytest.mark.parametrize(
    ("version", "statuses"), [(b"HTTP/1.1", [103, 103, 200]), (b"HTTP/1.0", [200])]
)
def test_early_hints(stage: Stage, version: bytes, statuses: list[int]) -> None:
    def script(wire: Wire) -> None:
        wire.request()
        wire.send(b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n")
        elapse_blocking(0.1, "the hints arrive one by one")
        wire.send(b"HTTP/1.1 103 Early Hints\r\nLink: </b.css>; rel=preload\r\n\r\n" + OK)

    with stage.scene(script).proxy.connect() as client:
        client.send(b"GET / %b\r\nHost: t\r\n\r\n" % version)
        heads = [client.head() for _ in statuses]
        assert [head.status for head in heads] == statuses
        if len(heads) == 3:
            assert heads[0].get(b"link") == b"</a.css>; rel=preload"
        assert client.exactly(2) == b"ok"


def test_an_unexpected_100_is_not_the_final_answer(stage: Stage) -> None:
    def script(wire: Wire) -> None:
        wire.request()
        wire.send(b"HTTP/1.1 100 Continue\r\n\r\n" + OK)

    assert stage.scene(script).exchange(get()).body == b"ok"


# --- answers without a body


@pytest.mark.parametrize(
    ("method", "answer"),
    [
        (b"HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"),
        (b"HEAD", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
        (b"HEAD", b"HTTP/1.1 404 Not Found\r\nContent-Length: 9\r\n\r\n"),
        (b"GET", b"HTTP/1.1 204 No Content\r\n\r\n"),
        (b"GET", b'HTTP/1.1 304 Not Modified\r\nContent-Length: 1000\r\nETag: "a"\r\n\r\n'),
        (b"DELETE", b"HTTP/1.1 204 No Content\r\n\r\n"),
    ],
)
def test_answers_without_a_body(stage: Stage, method: bytes, answer: bytes) -> None:
    scene = stage.scene(answering(answer))
    with scene.proxy.connect() as client:
        for _ in range(3):
            client.send(get(method=method))
            head = client.head()
            assert head.status == int(answer.split(b" ")[1])
            if b"Content-Length: 1000" in answer and method == b"HEAD":
                assert head.get(b"content-length") == b"1000"
        assert client.quiet()
    assert scene.origin.connections == 1, "the origin's connection is fit for reuse"


@pytest.mark.parametrize("method", [b"POST", b"PUT", b"PATCH"])
def test_an_empty_upload_has_content_length_0(stage: Stage, method: bytes) -> None:
    seen: list[Message] = []
    scene = stage.scene(answering(OK, seen=seen))
    assert scene.exchange(get(b"/", b"Content-Length: 0", method=method)).status == 200
    assert seen[0].get(b"content-length") == b"0"
    assert seen[0].get(b"transfer-encoding") is None


# --- HTTP/1.0


def test_an_http_1_0_client_gets_no_chunks(stage: Stage) -> None:
    chunks = (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    )
    with stage.scene(answering(chunks)).proxy.connect() as client:
        client.send(b"GET / HTTP/1.0\r\nHost: t\r\n\r\n")
        head = client.head()
        assert head.get(b"transfer-encoding") is None
        assert client.rest() == b"abcde"


def test_an_http_1_0_client_without_host(stage: Stage) -> None:
    seen: list[Message] = []
    answer = stage.scene(answering(OK, seen=seen)).exchange(b"GET / HTTP/1.0\r\n\r\n")
    assert (answer.status, answer.body) == (200, b"ok")
    assert seen[0].get(b"x-forwarded-host") is None
    assert seen[0].get(b"forwarded") == b"for=127.0.0.1;proto=http"


def test_an_http_1_0_client_with_keep_alive(stage: Stage) -> None:
    with stage.scene(answering(OK)).proxy.connect() as client:
        for _ in range(2):
            client.send(b"GET / HTTP/1.0\r\nHost: t\r\nConnection: keep-alive\r\n\r\n")
            answer = client.response()
            if (answer.get(b"connection") or b"").lower() != b"keep-alive":
                assert client.ended()
                return


def test_an_http_1_0_origin(stage: Stage) -> None:
    """Its answer ends with the connection; the client gets a framed answer and keeps its
    connection."""

    def script(wire: Wire) -> None:
        wire.request()
        wire.send(b"HTTP/1.0 200 OK\r\n\r\nuntil the end")

    with stage.scene(script).proxy.connect() as client:
        for _ in range(2):
            client.send(get())
            answer = client.response()
            assert answer.body == b"until the end"
            assert answer.start.startswith(b"HTTP/1.1 ")


def test_an_http_1_0_origin_is_reused_only_with_keep_alive(stage: Stage) -> None:
    scene = stage.scene(answering(b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok"))
    for _ in range(2):
        assert scene.exchange(get()).body == b"ok"
    assert scene.origin.connections == 2


# --- order and persistence


def test_pipelined_requests_are_answered_in_order(stage: Stage) -> None:
    def script(wire: Wire) -> None:
        while True:
            path = wire.request().start.split(b" ")[1]
            if path == b"/0":
                elapse_blocking(0.2, "the first answer is the slowest")
            wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(path) + path)

    with stage.scene(script).proxy.connect() as client:
        client.send(b"".join(get(b"/%d" % number) for number in range(20)))
        assert [client.response().body for _ in range(20)] == [b"/%d" % n for n in range(20)]


def test_pipelined_bodies(stage: Stage) -> None:
    def script(wire: Wire) -> None:
        while True:
            body = wire.request().body
            wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    chunked = get(b"/", b"Transfer-Encoding: chunked", method=b"POST") + b"2\r\ncd\r\n0\r\n\r\n"
    with stage.scene(script).proxy.connect() as client:
        client.send(get(b"/", b"Content-Length: 2", method=b"POST") + b"ab" + chunked + get())
        assert [client.response().body for _ in range(3)] == [b"ab", b"cd", b""]


def test_a_request_byte_by_byte(stage: Stage) -> None:
    with stage.scene(answering(OK)).proxy.connect() as client:
        whole = get(b"/", b"Content-Length: 3", method=b"POST") + b"abc"
        for number in range(len(whole)):
            client.send(whole[number : number + 1])
        assert client.response().body == b"ok"


def test_an_answer_byte_by_byte(stage: Stage) -> None:
    def script(wire: Wire) -> None:
        wire.request()
        whole = (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;a=b\r\nok\r\n0\r\nT: x\r\n\r\n"
        )
        for number in range(len(whole)):
            wire.send(whole[number : number + 1])

    with stage.scene(script).proxy.connect() as client:
        client.send(get())
        assert client.response().body == b"ok"


def test_connection_close_is_honored(stage: Stage) -> None:
    with stage.scene(answering(OK)).proxy.connect() as client:
        client.send(get(b"/", b"Connection: close"))
        answer = client.response()
        assert answer.get(b"connection") == b"close"
        assert client.ended(1)


def test_an_origins_close_does_not_close_the_client(stage: Stage) -> None:
    def script(wire: Wire) -> None:
        wire.request()
        wire.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok")

    scene = stage.scene(script)
    with scene.proxy.connect() as client:
        for _ in range(3):
            client.send(get())
            answer = client.response()
            assert answer.body == b"ok"
            assert answer.get(b"connection") is None
    assert scene.origin.connections == 3


def test_idle_origin_connections_are_reused(stage: Stage) -> None:
    scene = stage.scene(answering(OK))
    for _ in range(10):
        assert scene.exchange(get()).body == b"ok"
    assert scene.origin.connections == 1


def test_surplus_bytes_after_an_answer_are_never_an_answer(stage: Stage) -> None:
    def script(wire: Wire) -> None:
        wire.request()
        wire.send(OK + b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison")
        wire.quiet(2)

    scene = stage.scene(script)
    with scene.proxy.connect() as client:
        for _ in range(3):
            client.send(get())
            assert client.response().body == b"ok"
    assert scene.origin.connections == 3


@pytest.mark.parametrize("after", [0.0, 0.1])
@pytest.mark.parametrize(
    ("answer", "start"),
    [
        ([OK], b"HTTP/1.1 200 OK"),
        ([b"HTTP/1.1 103 Early Hints\r\n\r\n", OK], b"HTTP/1.1 103 Early Hints"),
        ([OK[:-1], OK[-1:]], b"HTTP/1.1 200 OK"),
        ([b"nonsense\r\n\r\n"], b"HTTP/1.1 502 Bad Gateway"),
    ],
)
def test_a_half_closed_client_gets_its_answer(
    stage: Stage, answer: list[bytes], start: bytes, after: float
) -> None:
    def script(wire: Wire) -> None:
        wire.request()
        elapse_blocking(0.3, "the client ends its side before, at or after the answer")
        for piece in answer:
            wire.send(piece)
            elapse_blocking(0.05, "the pieces arrive one by one")

    with stage.scene(script).proxy.connect() as client:
        client.send(get())
        elapse_blocking(after, "the client ends its side before, at or after the answer")
        client.finish()
        assert client.head().start == start
        if start.endswith(b"200 OK"):
            assert client.exactly(2) == b"ok"
            assert client.ended(2)
        else:
            assert client.rest().endswith(b"ok" if len(answer) > 1 else b"not valid\n")


def test_a_client_half_closes_after_its_last_request(stage: Stage) -> None:
    """Similar requests take the fast path."""

    def script(wire: Wire) -> None:
        for number in range(6):
            wire.request()
            if number == 5:
                elapse_blocking(0.2, "the client ends its side before the answer")
            wire.send(OK)

    with stage.scene(script).proxy.connect() as client:
        for number in range(5):
            client.send(get(b"/%d" % number))
            assert client.response().body == b"ok"
        client.send(get(b"/last"))
        client.finish()
        assert client.head().start == b"HTTP/1.1 200 OK"
        assert client.rest() == b"ok"


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
@pytest.mark.parametrize("begun", [False, True])
def test_a_client_that_leaves_at_once_is_not_waited_for(
    stage: Stage, version: bytes, begun: bool
) -> None:
    """Its close looks like that of a half-closed client."""
    heard, ended = threading.Event(), threading.Event()

    def script(wire: Wire) -> None:
        wire.head()
        if begun:
            wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n")
        heard.set()
        assert wire.ended()
        ended.set()

    client = stage.scene(script).proxy.connect()
    client.send(b"GET / HTTP/%b\r\nHost: t\r\n\r\n" % version)
    assert heard.wait(5)
    if begun:
        client.head()
    client.close()
    assert ended.wait(2)


def test_a_half_closed_client_gets_all_its_pipelined_answers(stage: Stage) -> None:
    def script(wire: Wire) -> None:
        while True:
            wire.request()
            elapse_blocking(0.15, "the client ends its side before the answers")
            wire.send(OK)

    with stage.scene(script).proxy.connect() as client:
        client.send(get() * 3)
        client.finish()
        assert [client.response().body for _ in range(3)] == [b"ok"] * 3
        assert client.ended(2)


def test_empty_lines_before_a_request_are_ignored(stage: Stage) -> None:
    assert stage.scene(answering(OK)).exchange(b"\r\n" + get()).body == b"ok"


# --- trailers


def test_trailers_both_ways(stage: Stage) -> None:
    seen: list[Message] = []
    answer = (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n"
        b"2\r\nok\r\n0\r\nX-Sum: 42\r\n\r\n"
    )
    scene = stage.scene(answering(answer, seen=seen))
    request = get(b"/", b"Transfer-Encoding: chunked", b"TE: trailers", method=b"POST")
    got = scene.exchange(request + b"2\r\nhi\r\n0\r\nX-Up: 7\r\n\r\n")
    assert (got.body, got.trailers) == (b"ok", b"X-Sum: 42\r\n")
    assert (seen[0].body, seen[0].trailers) == (b"hi", b"X-Up: 7\r\n")


# --- targets and methods


@pytest.mark.parametrize(
    "target",
    [
        b"/a/../b//c/./d",
        b"/%2e%2e/%2F%00?a=%20&b=//..",
        b"/a?b?c#d".replace(b"#d", b""),
        b"//evil/x",
        b"/;p=1,2:@&=+$!*'()",
        b"/" + b"long/" * 1000,
        b"/?",
    ],
)
def test_targets_are_passed_on_byte_for_byte(stage: Stage, target: bytes) -> None:
    seen: list[Message] = []
    assert stage.scene(answering(OK, seen=seen)).exchange(get(target)).status == 200
    assert seen[0].start == b"GET " + target + b" HTTP/1.1"


def test_an_absolute_target_becomes_a_path_and_a_host(stage: Stage) -> None:
    seen: list[Message] = []
    scene = stage.scene(answering(OK, seen=seen))
    answer = scene.exchange(b"GET http://test/a?b HTTP/1.1\r\nHost: test\r\n\r\n")
    assert answer.status == 200
    assert seen[0].start == b"GET /a?b HTTP/1.1"
    assert seen[0].all(b"host") == [b"test"]


def test_options_of_the_server(stage: Stage) -> None:
    seen: list[Message] = []
    scene = stage.scene(answering(OK, seen=seen))
    assert scene.exchange(get(b"*", method=b"OPTIONS")).status == 200
    assert seen[0].start == b"OPTIONS * HTTP/1.1"


@pytest.mark.parametrize("method", [b"PATCH", b"PROPFIND", b"QUERY", b"M-SEARCH", b"get"])
def test_methods_are_passed_on_as_they_are(stage: Stage, method: bytes) -> None:
    seen: list[Message] = []
    assert stage.scene(answering(OK, seen=seen)).exchange(get(method=method)).status == 200
    assert seen[0].start == method + b" / HTTP/1.1"


def test_connect_is_refused(stage: Stage) -> None:
    scene = stage.scene(answering(OK))
    answer = scene.exchange(b"CONNECT test:443 HTTP/1.1\r\nHost: test:443\r\n\r\n")
    assert 400 <= answer.status < 600
    assert scene.origin.connections == 0


# --- upgrades


def tunnel(reply: bytes) -> Script:
    def script(wire: Wire) -> None:
        head = wire.head()
        assert head.get(b"upgrade") == b"echo"
        assert (head.get(b"connection") or b"").lower() == b"upgrade"
        wire.send(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\n" + reply)
        while data := wire.buffer or wire.sock.recv(65536):
            wire.buffer = b""
            wire.send(data.upper())
        wire.send(b"bye")

    return script


def test_a_tunnel_passes_bytes_both_ways_and_half_closes(stage: Stage) -> None:
    scene = stage.scene(tunnel(b"Connection: Upgrade\r\n\r\nearly"))
    with scene.proxy.connect() as client:
        client.send(get(b"/", b"Connection: Upgrade", b"Upgrade: echo") + b"first")
        head = client.head()
        assert (head.status, head.get(b"upgrade")) == (101, b"echo")
        assert (head.get(b"connection") or b"").lower() == b"upgrade"
        assert client.exactly(10) == b"earlyFIRST"
        client.send(b"\x00\x01more")
        assert client.exactly(6) == b"\x00\x01MORE"
        client.finish()
        assert client.rest() == b"bye"


def test_a_declined_upgrade_is_an_ordinary_answer(stage: Stage) -> None:
    scene = stage.scene(answering(OK))
    with scene.proxy.connect() as client:
        for _ in range(2):
            client.send(get(b"/", b"Connection: Upgrade", b"Upgrade: echo"))
            assert client.response().body == b"ok"


def test_a_required_upgrade_is_passed_on(stage: Stage) -> None:
    required = (
        b"HTTP/1.1 426 Upgrade Required\r\nConnection: Upgrade\r\nUpgrade: h2c, echo\r\n"
        b"Content-Length: 0\r\n\r\n"
    )
    answer = stage.scene(answering(required)).exchange(get())
    assert (answer.get(b"upgrade"), answer.get(b"connection")) == (b"echo", b"Upgrade")


def test_an_unrequested_101_is_an_error(stage: Stage) -> None:
    def script(wire: Wire) -> None:
        wire.request()
        wire.send(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n"
        )
        wire.quiet(1)

    assert stage.scene(script).exchange(get()).status == 502


def test_h2c_is_not_tunnelled(stage: Stage) -> None:
    seen: list[Message] = []
    scene = stage.scene(answering(OK, seen=seen))
    answer = scene.exchange(
        get(
            b"/",
            b"Connection: Upgrade, HTTP2-Settings",
            b"Upgrade: h2c",
            b"HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA",
        )
    )
    assert answer.status == 200
    assert seen[0].get(b"upgrade") is None
    assert seen[0].get(b"http2-settings") is None


def test_a_request_that_only_begins_like_http_2_is_refused(stage: Stage) -> None:
    scene = stage.scene(answering(OK))
    with scene.proxy.connect() as client:
        client.send(b"PRI * HTTP/2.0\r\nHost: a\r\n\r\n")
        assert client.head().status in (400, 505)
        client.rest()
    assert scene.origin.connections == 0


async def test_websockets_with_a_real_client_and_server() -> None:
    async def echo(connection: ServerConnection) -> None:
        async for message in connection:
            await connection.send(message)

    async with serve(echo, "127.0.0.1", 0, max_size=None) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        proxy = await asyncio.to_thread(Proxy, [port], "--drain", "0s")
        try:
            url = f"ws://127.0.0.1:{proxy.port}/chat"
            async with connect(url, proxy=None, max_size=None) as client:
                for message in ("hello", b"\x00" * 3_000_000, "bye"):
                    await client.send(message)
                    assert await client.recv() == message
                pong = await client.ping()
                await asyncio.wait_for(pong, 30)
                await client.close(1000, "done")
                with pytest.raises(websockets.ConnectionClosedOK):
                    await client.recv()
        finally:
            await asyncio.to_thread(proxy.stop)


def test_a_tunnel_uses_constant_memory(stage: Stage) -> None:
    sent = [0]

    def script(wire: Wire) -> None:
        wire.head()
        wire.send(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n"
        )
        wire.sock.settimeout(3)
        while sent[0] < 1 << 30:
            wire.send(b"x" * 65536)
            sent[0] += 65536

    scene = stage.scene(script)
    before = scene.proxy.memory()
    with scene.proxy.connect(small_window=True) as client:
        client.send(get(b"/", b"Connection: Upgrade", b"Upgrade: echo"))
        client.head()
        settled_blocking(lambda: sent[0], 0.2)
        assert sent[0] < 40 * 1024 * 1024
        assert scene.proxy.memory() - before < 4 * 1024 * 1024


def test_many_connections_at_once() -> None:
    origin = Origin()
    go = threading.Event()

    def script(wire: Wire) -> None:
        while True:
            path = wire.request().start.split(b" ")[1]
            assert go.wait(8)
            wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(path) + path)

    origin.play(script)
    proxy = Proxy([origin.port], "--drain", "0s")
    clients = [proxy.connect() for _ in range(150)]
    try:
        for number, client in enumerate(clients):
            client.send(get(b"/%d" % number))
        wait_until_blocking(lambda: origin.connections == 150, what="150 connections")
        go.set()
        assert [client.response().body for client in clients] == [b"/%d" % n for n in range(150)]
        assert origin.errors == []
    finally:
        for client in clients:
            client.close()
        proxy.stop()
        origin.close()
