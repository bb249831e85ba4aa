"""Failures: origins that refuse, hang, end or send nonsense; which requests are retried; limits and
deadlines of clients."""

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from tests.support.ports import free_port
from tests.support.raw_http import (
    Closed,
    Message,
    Origin,
    Proxy,
    Script,
    Stage,
    Wire,
    answering,
    get,
    hello,
)
from tests.support.waiting import elapse_blocking

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
SHORT = ("--first-byte-timeout", "500ms", "--idle-timeout", "500ms")


# --- refused connections


def test_a_single_origin_that_refuses_is_a_502_at_once() -> None:
    proxy = Proxy([free_port()], "--drain", "0s")
    try:
        for number in range(20):  # ejection never takes the last endpoint
            begin = time.monotonic()
            with proxy.connect() as client:
                client.send(
                    get(b"/", b"Accept: application/json" if number % 2 else b"Accept: */*")
                )
                answer = client.response()
            assert answer.status == 502
            assert answer.body
            assert (b"json" in (answer.get(b"content-type") or b"")) is bool(number % 2)
            assert time.monotonic() - begin < 1.0
    finally:
        proxy.stop()


def test_a_refusing_origin_next_to_a_good_one_causes_no_error() -> None:
    origin = Origin()
    proxy = Proxy([free_port(), origin.port], "--drain", "0s", "--balance", "round-robin")
    try:
        with proxy.connect() as client:
            for method in [b"GET", b"POST"] * 20:
                client.send(get(b"/", b"Content-Length: 0", method=method))
                assert client.response().body == b"hello"
    finally:
        proxy.stop()
        origin.close()


def test_a_recovered_origin_is_used_again() -> None:
    port = free_port()
    proxy = Proxy([port], "--drain", "0s")
    try:
        with proxy.connect() as client:
            for _ in range(10):
                client.send(get())
                assert client.response().status == 502
            with socket.create_server(("127.0.0.1", port)) as listening:
                client.send(get())
                sock, _ = listening.accept()
                with Wire(sock) as wire:
                    wire.request()
                    wire.send(OK)
                    assert client.response().body == b"ok"
    finally:
        proxy.stop()


# --- answers that cannot be passed on


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 2",
        b"nonsense\r\n\r\n",
        b"HTTP/2 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nBad Name: x\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\r\n folded\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\x00b\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 999999 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: %s\r\n" % (b"a" * 2_000_000) + b"\r\n",
    ],
)
def test_an_ambiguous_answer_is_a_502_and_its_connection_is_closed(
    stage: Stage, answer: bytes
) -> None:
    def script(wire: Wire) -> None:
        wire.request()
        wire.send(answer)
        wire.finish()
        wire.quiet(1)

    scene = stage.scene(script)
    with scene.proxy.connect() as client:
        for _ in range(2):
            client.send(get(b"/", b"Content-Length: 0", method=b"POST"))
            got = client.response()
            assert got.status == 502
            assert b"nonsense" not in got.body
    assert scene.origin.connections == 2


@pytest.mark.parametrize("size", [7_000, 30_000, 120_000])
def test_large_response_heads_are_passed_on(stage: Stage, size: int) -> None:
    line = b"Set-Cookie: c=%s\r\n" % (b"x" * 3900)
    lines = line * (size // len(line) + 1)
    scene = stage.scene(answering(b"HTTP/1.1 200 OK\r\n" + lines + b"Content-Length: 2\r\n\r\nok"))
    answer = scene.exchange(get())
    assert len(answer.all(b"set-cookie")) == size // len(line) + 1
    assert answer.body == b"ok"


def test_an_invalid_chunk_in_an_answer_breaks_it(stage: Stage) -> None:
    passed_on = threading.Event()

    def script(wire: Wire) -> None:
        wire.request()
        wire.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n")
        assert passed_on.wait(30)
        wire.send(b"zz\r\n")
        wire.quiet(1)

    with stage.scene(script).proxy.connect() as client:
        client.send(get())
        client.head()
        assert client.chunk() == b"ok"
        passed_on.set()
        assert client.ended(2)


# --- deadlines of origins


def test_a_missing_first_byte_is_a_504(stage: Stage) -> None:
    def script(wire: Wire) -> None:
        wire.request()
        wire.quiet(5)

    scene = stage.scene(script, *SHORT)
    begin = time.monotonic()
    answer = scene.exchange(get(b"/", b"Content-Length: 0", method=b"POST"))
    assert answer.status == 504
    assert 0.4 < time.monotonic() - begin < 2.5


def test_a_half_answered_head_is_a_504_too(stage: Stage) -> None:
    def script(wire: Wire) -> None:
        wire.request()
        wire.send(b"HTTP/1.1 200 OK\r\nX-")
        wire.quiet(5)

    scene = stage.scene(script, *SHORT)
    assert scene.exchange(get(b"/", b"Content-Length: 0", method=b"POST")).status == 504


def test_an_origin_that_stalls_in_its_body_breaks_the_answer(stage: Stage) -> None:
    def script(wire: Wire) -> None:
        wire.request()
        wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")
        wire.quiet(5)

    with stage.scene(script, *SHORT).proxy.connect() as client:
        client.send(get())
        assert client.head().status == 200
        assert client.exactly(4) == b"half"
        assert client.ended(3)


def test_the_whole_request_has_a_deadline(stage: Stage) -> None:
    def script(wire: Wire) -> None:
        wire.request()
        wire.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(100):
            wire.send(b"1\r\nx\r\n")
            elapse_blocking(0.05, "a slow answer")

    scene = stage.scene(script, "--request-timeout", "600ms")
    begin = time.monotonic()
    with scene.proxy.connect() as client:
        client.send(get())
        message = client.head()
        with pytest.raises((Closed, ConnectionError)):
            client.chunked(message)
    assert time.monotonic() - begin < 3.0


def test_an_origin_that_does_not_accept_is_a_504() -> None:
    """Its backlog is full: the connection is neither accepted nor refused."""
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        port = full.getsockname()[1]
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
        proxy = Proxy([port], "--drain", "0s", "--connect-timeout", "400ms", "--retries", "0")
        try:
            begin = time.monotonic()
            with proxy.connect() as client:
                client.send(get())
                assert client.response().status == 504
            assert time.monotonic() - begin < 2.5
        finally:
            proxy.stop()
            for filler in fillers:
                filler.close()


# --- tried again, or not


class Pair:
    """Two origins behind one proxy; round robin asks `first` or the other one first."""

    def __init__(self, *flags: str) -> None:
        self.origins = (Origin(), Origin())
        ports = [origin.port for origin in self.origins]
        self.proxy = Proxy(ports, "--drain", "0s", "--balance", "round-robin", *flags)

    def play(self, first: object, second: object) -> None:
        for origin, script in zip(self.origins, (first, second), strict=True):
            origin.play(script)  # type: ignore[arg-type]

    def close(self) -> None:
        self.proxy.stop()
        for origin in self.origins:
            origin.close()


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    running = Pair()
    yield running
    running.close()


def hang_up(seen: list[Message]) -> object:
    def script(wire: Wire) -> None:
        seen.append(wire.request())

    return script


@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"PUT", b"DELETE", b"OPTIONS"])
def test_an_idempotent_request_is_retried_on_another_origin(pair: Pair, method: bytes) -> None:
    seen: list[Message] = []
    pair.play(hang_up(seen), answering(OK))
    for _ in range(4):
        with pair.proxy.connect() as client:
            client.send(get(b"/", b"Content-Length: 0", method=method))
            assert client.response(to_head=method == b"HEAD").status == 200


@pytest.mark.parametrize("method", [b"POST", b"PATCH"])
def test_a_post_is_not_delivered_twice(pair: Pair, method: bytes) -> None:
    seen: list[Message] = []
    pair.play(hang_up(seen), hang_up(seen))
    for number in range(6):
        with pair.proxy.connect() as client:
            client.send(get(b"/%d" % number, b"Content-Length: 4", method=method) + b"body")
            assert client.response().status == 502
    assert [message.start.split()[1] for message in seen] == [b"/%d" % n for n in range(6)]


def test_a_put_is_replayed_with_its_body(pair: Pair) -> None:
    seen: list[Message] = []
    pair.play(hang_up(seen), answering(OK, seen=seen))
    with pair.proxy.connect() as client:
        for _ in range(2):
            client.send(get(b"/", b"Content-Length: 4", method=b"PUT") + b"body")
            assert client.response().status == 200
    assert {message.body for message in seen} == {b"body"}


def test_a_body_too_large_to_keep_is_not_replayed(pair: Pair) -> None:
    seen: list[Message] = []
    pair.play(hang_up(seen), hang_up(seen))
    body = b"x" * 300_000
    with pair.proxy.connect() as client:
        client.send(get(b"/", b"Content-Length: %d" % len(body), method=b"PUT") + body)
        assert client.response().status == 502
    assert len(seen) == 1


def test_a_503_is_retried_and_the_last_is_passed_on() -> None:
    pair = Pair()
    try:
        busy_and_then(pair)
    finally:
        pair.close()


def busy_and_then(pair: Pair) -> None:
    busy = b"HTTP/1.1 503 Busy\r\nContent-Length: 4\r\nRetry-After: 9\r\n\r\nbusy"
    pair.play(answering(busy), answering(OK))
    with pair.proxy.connect() as client:
        statuses = set()
        for _ in range(2):
            client.send(get(b"/", b"Content-Length: 0", method=b"POST"))
            statuses.add(client.response().status)
        assert statuses == {200, 503}
        for _ in range(4):
            client.send(get())
            assert client.response().status == 200
    pair.play(answering(busy), answering(busy))
    with pair.proxy.connect() as client:
        client.send(get())
        answer = client.response()
        assert (answer.status, answer.body) == (503, b"busy")
        assert answer.get(b"retry-after") == b"9"


def test_no_more_attempts_than_allowed(stage: Stage) -> None:
    """A single origin that hangs up never gets the same request twice."""
    seen: list[Message] = []

    def script(wire: Wire) -> None:
        seen.append(wire.request())

    assert stage.scene(script).exchange(get()).status == 502
    assert len(seen) == 1


def closing_after_the_first(
    seen: list[Message], go: threading.Event, closed: threading.Event
) -> Script:
    """Answer one request, then end the idle connection once `go` is set, and set `closed`."""

    def script(wire: Wire) -> None:
        seen.append(wire.request())
        wire.send(OK)
        assert go.wait(30)
        go.clear()
        wire.close()
        closed.set()

    return script


@pytest.mark.parametrize("method", [b"GET", b"POST"])
def test_a_closed_idle_connection_is_replaced(stage: Stage, method: bytes) -> None:
    seen: list[Message] = []
    go, closed = threading.Event(), threading.Event()
    scene = stage.scene(closing_after_the_first(seen, go, closed))
    with scene.proxy.connect() as client:
        for number in range(10):
            client.send(get(b"/%d" % number, b"Content-Length: 0", method=method))
            assert client.response().body == b"ok"
            go.set()
            assert closed.wait(30)
            closed.clear()
    assert [message.start.split()[1] for message in seen] == [b"/%d" % n for n in range(10)]


def test_a_reused_connection_that_ends_on_a_request(stage: Stage) -> None:
    """The connection was open when the request was written: a GET is repeated, a POST is not."""
    seen: list[Message] = []

    def script(wire: Wire) -> None:
        seen.append(wire.request())
        wire.send(OK)
        seen.append(wire.request())

    scene = stage.scene(script)
    with scene.proxy.connect() as client:
        for method, statuses in ((b"GET", [200, 200]), (b"POST", [200, 502])):
            scene.origin.play(script)
            seen.clear()
            for number, status in enumerate(statuses):
                client.send(get(b"/%d" % number, b"Content-Length: 0", method=method))
                assert client.response().status == status
            paths = [message.start.split()[1] for message in seen]
            assert paths == ([b"/0", b"/1", b"/1"] if method == b"GET" else [b"/0", b"/1"])


# --- clients


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: t\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nHost: t\r\nX: " + b"a" * 200_000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: t\r\n" + b"X: a\r\n" * 5000 + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400),
        (b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\nHost: a\n\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: a\x00\r\n\r\n", 400),
        (b"GET / HTTP/3.0\r\nHost: a\r\n\r\n", 505),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\na", 400),
        (
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
        ),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    ],
)
def test_ambiguous_requests_are_refused_and_reach_no_origin(
    stage: Stage, request_: bytes, status: int
) -> None:
    scene = stage.scene(hello)
    with scene.proxy.connect() as client:
        client.send(request_)
        answer = client.response()
        allowed = {status, 400} if status in (501, 505) else {status}
        assert answer.status in allowed
        assert answer.get(b"connection") == b"close"
        assert client.ended(3)
    assert scene.origin.connections == 0


def test_a_bad_chunk_in_an_upload_ends_it(stage: Stage) -> None:
    finished = threading.Event()

    def script(wire: Wire) -> None:
        wire.head()
        try:
            while wire.chunk():
                pass
            finished.set()
        finally:
            wire.close()

    with stage.scene(script).proxy.connect() as client:
        client.send(get(b"/", b"Transfer-Encoding: chunked", method=b"POST") + b"2\r\nok\r\n")
        elapse_blocking(0.1, "the proxy passes the first chunk on")
        client.send(b"xyz\r\n")
        assert client.response().status == 400
        assert client.ended(3)
    assert not finished.wait(0.2), "the origin took half an upload for a whole one"


def test_a_client_that_never_finishes_its_head_gets_a_408(stage: Stage) -> None:
    """Slow loris: a byte now and then does not extend the deadline."""
    with stage.scene(hello).proxy.connect() as client:
        begin = time.monotonic()
        client.sock.settimeout(40)
        client.send(b"GET / HTTP/1.1\r\nHost: t\r\n")
        done = threading.Event()

        def drip() -> None:
            while not done.wait(1.0):
                try:
                    client.send(b"X-Slow: 1\r\n")
                except OSError:
                    return

        dripping = threading.Thread(target=drip, daemon=True)
        dripping.start()
        answer = client.response()
        done.set()
        dripping.join()
        assert answer.status == 408
        assert time.monotonic() - begin < 30


def test_a_body_that_never_comes_gets_a_408(stage: Stage) -> None:
    def script(wire: Wire) -> None:
        wire.sock.settimeout(60)
        wire.request()

    with stage.scene(script).proxy.connect() as client:
        client.sock.settimeout(60)
        client.send(get(b"/", b"Content-Length: 10", method=b"POST") + b"half")
        assert client.response().status == 408


def test_hundreds_of_refused_clients_do_not_disturb_others(stage: Stage) -> None:
    scene = stage.scene(hello)
    bad = [scene.proxy.connect() for _ in range(200)]
    for client in bad:
        client.send(b"nonsense\r\n\r\n")
    with scene.proxy.connect() as client:
        client.send(get())
        assert client.response().body == b"hello"
    for client in bad:
        client.close()
