"""Bodies are streamed: early, unbuffered, in both directions, with constant memory, and they end if
either side ends."""

import statistics
import threading
import time

import pytest

from tests.support.raw_http import Closed, Script, Stage, Wire, get
from tests.support.waiting import elapse_blocking, settled_blocking

MIB = 1024 * 1024
BOUND = 5.0
"""Machines are shared: a figure fails at this many times its bound."""


@pytest.mark.parametrize("framing", ["sized", "chunked", "until close"])
def test_the_first_bytes_arrive_before_the_last_are_produced(stage: Stage, framing: str) -> None:
    go = threading.Event()

    def script(wire: Wire) -> None:
        wire.request()
        if framing == "chunked":
            wire.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n")
            assert go.wait(8)
            wire.send(b"4\r\nlast\r\n0\r\n\r\n")
            return
        length = b"Content-Length: 9\r\n" if framing == "sized" else b"Connection: close\r\n"
        wire.send(b"HTTP/1.1 200 OK\r\n" + length + b"\r\nfirst")
        assert go.wait(8)
        wire.send(b"last")

    with stage.scene(script).proxy.connect() as client:
        client.send(get())
        head = client.head()
        assert head.status == 200
        first = client.chunk() if head.get(b"transfer-encoding") else client.exactly(5)
        assert first == b"first"
        go.set()
        if head.get(b"transfer-encoding"):
            assert (client.chunk(), client.chunk()) == (b"last", b"")
        else:
            assert client.exactly(4) == b"last"


def test_a_head_alone_is_passed_on_at_once(stage: Stage) -> None:
    go = threading.Event()

    def script(wire: Wire) -> None:
        wire.request()
        wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n")
        assert go.wait(8)
        wire.send(b"ok")

    with stage.scene(script).proxy.connect() as client:
        client.send(get())
        assert client.head().status == 200
        go.set()
        assert client.exactly(2) == b"ok"


@pytest.mark.parametrize("framing", ["sized", "chunked"])
def test_uploads_are_streamed_to_the_origin(stage: Stage, framing: str) -> None:
    arrived = threading.Event()

    def script(wire: Wire) -> None:
        head = wire.head()
        if head.get(b"transfer-encoding"):
            assert wire.chunk() == b"first"
            arrived.set()
            assert wire.chunk() == b"last"
            assert wire.chunk() == b""
            wire.until(b"\r\n")
        else:
            assert wire.exactly(5) == b"first"
            arrived.set()
            assert wire.exactly(4) == b"last"
        wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    with stage.scene(script).proxy.connect() as client:
        if framing == "sized":
            client.send(get(b"/", b"Content-Length: 9", method=b"POST") + b"first")
            assert arrived.wait(5), "the upload is held back"
            client.send(b"last")
        else:
            client.send(get(b"/", b"Transfer-Encoding: chunked", method=b"POST"))
            client.send(b"5\r\nfirst\r\n")
            assert arrived.wait(5), "the upload is held back"
            client.send(b"4\r\nlast\r\n0\r\n\r\n")
        assert client.response().status == 200


def test_small_chunks_are_not_buffered(stage: Stage) -> None:
    """Each chunk is sent only after the one before has arrived."""
    arrived = threading.Semaphore(0)
    count = 50

    def script(wire: Wire) -> None:
        wire.request()
        wire.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for number in range(count):
            wire.send(b"3\r\n%03d\r\n" % number)
            assert arrived.acquire(timeout=8)
        wire.send(b"0\r\n\r\n")

    with stage.scene(script).proxy.connect() as client:
        client.send(get())
        client.head()
        took = []
        for number in range(count):
            begin = time.monotonic()
            assert client.chunk() == b"%03d" % number
            took.append(time.monotonic() - begin)
            arrived.release()
        # A buffer delays every chunk (Nagle's algorithm by 40 ms), a busy machine some of them.
        quarter, median, _ = statistics.quantiles(took, n=4)
        print(f"{quarter * 1e3:.2f} ms a chunk in the quickest quarter, median {median * 1e3:.2f}")
        assert client.chunk() == b""
        assert quarter < 0.005 * BOUND


@pytest.mark.parametrize("framing", ["sized", "chunked", "until close"])
def test_ten_mebibytes_down(stage: Stage, framing: str) -> None:
    body = bytes(range(256)) * (10 * MIB // 256)

    def script(wire: Wire) -> None:
        wire.request()
        if framing == "sized":
            wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        elif framing == "until close":
            wire.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + body)
        else:
            wire.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            for start in range(0, len(body), 99_991):
                piece = body[start : start + 99_991]
                wire.send(b"%x\r\n" % len(piece) + piece + b"\r\n")
            wire.send(b"0\r\n\r\n")

    assert stage.scene(script).exchange(get()).body == body


@pytest.mark.parametrize("framing", ["sized", "chunked"])
def test_ten_mebibytes_up(stage: Stage, framing: str) -> None:
    body = bytes(range(256)) * (10 * MIB // 256)
    got: list[bytes] = []

    def script(wire: Wire) -> None:
        got.append(wire.request().body)
        wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    with stage.scene(script).proxy.connect() as client:
        if framing == "sized":
            client.send(get(b"/", b"Content-Length: %d" % len(body), method=b"PUT") + body)
        else:
            client.send(get(b"/", b"Transfer-Encoding: chunked", method=b"PUT"))
            for start in range(0, len(body), 70_001):
                piece = body[start : start + 70_001]
                client.send(b"%x\r\n" % len(piece) + piece + b"\r\n")
            client.send(b"0\r\n\r\n")
        assert client.response().status == 200
    assert got == [body]


def endless(sent: list[int], length: int) -> Script:
    """Return a script that sends as fast as it can, and notes how much."""

    def script(wire: Wire) -> None:
        wire.request()
        wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % length)
        piece = b"x" * 65536
        wire.sock.settimeout(30)
        while sent[0] < length:
            wire.send(piece)
            sent[0] += len(piece)

    return script


def test_a_slow_reader_throttles_the_origin(stage: Stage) -> None:
    sent = [0]
    scene = stage.scene(endless(sent, 1024 * MIB))
    before = scene.proxy.memory()
    with scene.proxy.connect(small_window=True) as client:
        client.send(get())
        client.head()
        settled_blocking(lambda: sent[0], 0.3)
        grown = scene.proxy.memory() - before
        print(f"the origin got rid of {sent[0] / MIB:.1f} MiB, memory grew {grown / 1024:.0f} KiB")
        assert sent[0] < 40 * MIB, "kernel buffers hold some, but not this much"
        assert grown < 4 * MIB
        client.exactly(30 * MIB)
        assert scene.proxy.memory() - before < 4 * MIB


def test_a_slow_origin_throttles_the_client(stage: Stage) -> None:
    go = threading.Event()

    def script(wire: Wire) -> None:
        wire.head()
        assert go.wait(20)
        wire.exactly(64 * MIB)
        wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    scene = stage.scene(script)
    before = scene.proxy.memory()
    with scene.proxy.connect() as client:
        client.send(get(b"/", b"Content-Length: %d" % (64 * MIB), method=b"POST"))
        sent = [0]

        def push() -> None:
            client.sock.settimeout(30)
            while sent[0] < 64 * MIB:
                client.send(b"x" * 65536)
                sent[0] += 65536

        pusher = threading.Thread(target=push, daemon=True)
        pusher.start()
        settled_blocking(lambda: sent[0], 0.3)
        grown = scene.proxy.memory() - before
        print(f"the client got rid of {sent[0] / MIB:.1f} MiB, memory grew {grown / 1024:.0f} KiB")
        assert sent[0] < 40 * MIB
        assert grown < 4 * MIB
        go.set()
        pusher.join(20)
        assert client.response().status == 200


@pytest.mark.parametrize("size", [70_000, 150_000, 220_000])
def test_an_origin_connection_is_reused_after_a_slow_client(stage: Stage, size: int) -> None:
    """The last piece of an answer exceeds the client's buffer. The origin's connection is complete,
    returns to the pool, and must be read from again."""
    body = b"x" * size

    def script(wire: Wire) -> None:
        while True:
            wire.request()
            wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + body)

    with stage.scene(script).proxy.connect(small_window=True) as client:
        client.send(get() * 60)
        elapse_blocking(0.5, "the client reads late")
        for _ in range(60):
            assert client.response().body == body


@pytest.mark.parametrize("how", ["closes", "resets"])
@pytest.mark.parametrize("phase", ["waiting", "answering", "uploading"])
def test_a_client_that_leaves_cancels_at_once(stage: Stage, how: str, phase: str) -> None:
    reached, cancelled = threading.Event(), threading.Event()

    def script(wire: Wire) -> None:
        wire.head()
        if phase == "answering":
            wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nsome")
        reached.set()
        try:
            while wire.sock.recv(65536):
                pass
        except ConnectionError:
            pass
        cancelled.set()

    client = stage.scene(script).proxy.connect()
    lines = (b"Content-Length: 100",) if phase == "uploading" else ()
    client.send(get(b"/", *lines, method=b"POST" if lines else b"GET"))
    assert reached.wait(5)
    if phase == "answering":
        client.head()
    client.close() if how == "closes" else client.reset()
    assert cancelled.wait(2), "the origin still works for a client that left"


@pytest.mark.parametrize("how", ["closes", "resets"])
@pytest.mark.parametrize("framing", ["sized", "chunked", "mid chunk", "http/1.0 client"])
def test_a_broken_answer_stays_broken(stage: Stage, framing: str, how: str) -> None:
    def script(wire: Wire) -> None:
        wire.request()
        if framing == "sized" or "client" in framing:
            wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        elif framing == "chunked":
            wire.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n")
        else:
            wire.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n40\r\nhalf")
        elapse_blocking(0.05, "the proxy passes the first part on")
        wire.close() if how == "closes" else wire.reset()

    request = b"GET / HTTP/1.0\r\nHost: t\r\n\r\n" if "client" in framing else get()
    with stage.scene(script).proxy.connect() as client:
        client.send(request)
        with pytest.raises((Closed, ConnectionError)):
            client.response()


def test_a_broken_chunked_answer_does_not_end_cleanly_for_http_1_0(stage: Stage) -> None:
    def script(wire: Wire) -> None:
        wire.request()
        wire.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n")
        elapse_blocking(0.05, "the proxy passes the first part on")
        wire.close()

    with stage.scene(script).proxy.connect() as client:
        client.send(b"GET / HTTP/1.0\r\nHost: t\r\n\r\n")
        with pytest.raises(ConnectionError):
            client.response()


def test_an_answer_before_the_upload_is_complete(stage: Stage) -> None:
    """A refusal arrives while the client still sends, and nothing hangs."""

    def script(wire: Wire) -> None:
        wire.head()
        wire.send(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nbig")
        elapse_blocking(0.5, "the upload continues, and the origin does not read it")

    with stage.scene(script).proxy.connect() as client:
        client.send(get(b"/", b"Content-Length: 1000000", method=b"POST") + b"x" * 1000)
        answer = client.response()
        assert (answer.status, answer.body) == (413, b"big")


def test_many_requests_leave_memory_flat(stage: Stage) -> None:
    from tests.support.raw_http import hello

    scene = stage.scene(hello)
    with scene.proxy.connect() as client:

        def rounds(count: int) -> None:
            for number in range(count):
                client.send(get(b"/%d" % number, b"X-Tag: %d" % number))
                assert client.response().body == b"hello"

        rounds(1000)
        before = scene.proxy.memory()
        rounds(4000)
        assert scene.proxy.memory() - before < 1.5 * MIB


def test_event_streams_are_not_cut_by_being_quiet(stage: Stage) -> None:
    def script(wire: Wire) -> None:
        wire.request()
        wire.send(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n9\r\ndata: 1\n\n\r\n"
        )
        elapse_blocking(1.5, "a stream is quiet for longer than its timeout")
        wire.send(b"9\r\ndata: 2\n\n\r\n0\r\n\r\n")

    with stage.scene(script).proxy.connect() as client:
        client.send(get())
        assert client.head().status == 200
        assert [client.chunk(), client.chunk()] == [b"data: 1\n\n", b"data: 2\n\n"]


def test_bodies_stream_in_both_directions_at_once(stage: Stage) -> None:
    """The origin answers while it still reads, as gRPC-web and proxies do."""

    def script(wire: Wire) -> None:
        wire.head()
        wire.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while piece := wire.chunk():
            wire.send(b"%x\r\n" % len(piece) + piece + b"\r\n")
        wire.until(b"\r\n")
        wire.send(b"0\r\n\r\n")

    with stage.scene(script).proxy.connect() as client:
        client.send(get(b"/", b"Transfer-Encoding: chunked", method=b"POST"))
        for word in (b"one", b"two", b"three"):
            client.send(b"%x\r\n" % len(word) + word + b"\r\n")
            if word == b"one":
                head = client.head()
                assert head.status == 200
            assert client.chunk() == word
        client.send(b"0\r\n\r\n")
        assert client.chunk() == b""
        assert client.until(b"\r\n") == b"\r\n"
        # The connection may end here, if it was said before.
        assert client.quiet() or head.get(b"connection") == b"close"
