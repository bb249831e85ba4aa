"""Combinations of two rare events: heads cut at a bad place, answers before the request is whole,
clients that half-close late, errors with the accepted content type."""

import contextlib
import json
import threading

import pytest

from tests.support.raw_http import Stage, Wire, answering, get
from tests.support.waiting import elapse_blocking, wait_until_blocking

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
JSON = b"Accept: application/json"


# --- answers


def test_a_cached_head_that_arrives_in_two_parts_keeps_its_body(stage: Stage) -> None:
    """The body is as long as the part of the head that would be skipped if the proxy did not look
    for the end of the head."""
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 40\r\nX: pp"
    body = bytes(range(65, 105))
    assert len(body) == len(head) - 2
    answers = iter([(head + b"\r\n\r\n" + body,), (head + b"\r", b"\n\r\n" + body)])

    def script(wire: Wire) -> None:
        for pieces in answers:
            wire.request()
            for piece in pieces:
                wire.send(piece)
                elapse_blocking(0.1, "the pieces arrive one by one")

    with stage.scene(script).proxy.connect() as client:
        for _ in range(2):
            client.send(get())
            assert client.response().body == body


@pytest.mark.parametrize("framing", ["sized", "chunked", "in two chunks"])
def test_templated_answers_arrive_at_every_cut(stage: Stage, framing: str) -> None:
    """The template is known after two whole answers. The next ones have other lengths and are cut
    at every place."""
    head = b"HTTP/1.1 200 OK\r\nETag: %d\r\n"
    bodies = [b"%d,\r\n\r\n" % number * (1 + number % 3) for number in range(90)]

    def message(number: int) -> bytes:
        body = bodies[number]
        if framing == "sized":
            return head % number + b"Content-Length: %d\r\n\r\n" % len(body) + body
        parts = [body] if framing == "chunked" else [body[:3], body[3:]]
        chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)
        return head % number + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"

    def script(wire: Wire) -> None:
        for number in range(len(bodies)):
            wire.request()
            whole = message(number)
            cut = number - 2 if number > 2 else len(whole)
            wire.send(whole[:cut])
            elapse_blocking(0.01, "the pieces arrive one by one")
            if whole[cut:]:
                wire.send(whole[cut:])

    with stage.scene(script).proxy.connect() as client:
        for number, body in enumerate(bodies):
            client.send(get())
            answer = client.response()
            assert answer.body == body
            assert answer.all(b"etag") == [b"%d" % number]


@pytest.mark.parametrize("size", [100_000, 3_000_000, 10_000_000])
def test_an_early_refusal_arrives_despite_a_reset_during_a_write(stage: Stage, size: int) -> None:
    """The origin ends at once and leaves the upload unread: the proxy notices a failed write first,
    while the answer is still unread."""

    def script(wire: Wire) -> None:
        wire.head()
        wire.send(b"HTTP/1.1 413 No\r\nContent-Length: 4\r\nConnection: close\r\n\r\nlong")

    scene = stage.scene(script)
    for _ in range(5):
        with scene.proxy.connect() as client:
            client.send(get(b"/", b"Content-Length: %d" % size, method=b"POST") + b"x" * size)
            answer = client.response()
            assert (answer.status, answer.body) == (413, b"long")


def test_an_early_answer_is_read_after_a_long_upload(stage: Stage) -> None:
    def script(wire: Wire) -> None:
        wire.head()
        wire.send(b"HTTP/1.1 413 No\r\nContent-Length: 4\r\n\r\nlong")
        wire.rest()

    with stage.scene(script).proxy.connect() as client:
        client.send(get(b"/", b"Content-Length: 1000000", method=b"POST"))
        for _ in range(30):
            client.send(b"x" * 1000)
            elapse_blocking(0.1, "a slow upload")
        assert client.response().body == b"long"
        assert client.ended()


# --- clients that end their side


@pytest.mark.parametrize("framing", ["sized", "chunked", "to-the-end"])
def test_a_client_that_half_closes_during_an_answer_gets_the_rest(
    stage: Stage, framing: str
) -> None:
    heads = {
        "sized": b"HTTP/1.1 200 OK\r\nContent-Length: 60\r\n\r\n",
        "chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        "to-the-end": b"HTTP/1.0 200 OK\r\n\r\n",
    }
    gone_on = threading.Event()

    def script(wire: Wire) -> None:
        wire.request()
        wire.send(heads[framing])
        gone_on.wait(10)
        for number in range(10):
            piece = b"%06d" % number
            wire.send(b"6\r\n" + piece + b"\r\n" if framing == "chunked" else piece)
            elapse_blocking(0.03, "the pieces arrive one by one")
        if framing == "chunked":
            wire.send(b"0\r\n\r\n")

    with stage.scene(script).proxy.connect() as client:
        client.send(get())
        head = client.head()
        elapse_blocking(0.05, "the proxy waits for the body")
        gone_on.set()
        client.finish()
        if head.get(b"transfer-encoding"):
            client.chunked(head)
        else:
            head.body = client.exactly(60)
        assert head.body == b"".join(b"%06d" % number for number in range(10))


def test_a_slow_half_closed_reader_gets_the_whole_answer(stage: Stage) -> None:
    size = 3_000_000
    script = answering(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size)
    with stage.scene(script).proxy.connect(small_window=True) as client:
        client.send(get())
        client.head()
        client.finish()
        elapse_blocking(0.8, "the client reads late")
        assert len(client.exactly(size)) == size


def test_a_reset_cancels_a_request_while_reading_is_paused(stage: Stage) -> None:
    """The client has sent more than the proxy reads ahead, so the event loop does not watch its
    socket."""
    begun, ended = threading.Event(), threading.Event()

    def script(wire: Wire) -> None:
        wire.request()
        begun.set()
        with contextlib.suppress(ConnectionError):
            wire.rest()
        ended.set()

    client = stage.scene(script).proxy.connect()
    client.send(get())
    assert begun.wait(30)
    client.send(get(b"/" + b"x" * 1000) * 100)
    elapse_blocking(0.2, "the proxy has read ahead as much as it does")
    client.reset()
    assert ended.wait(30)


# --- errors


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\nHost: t\r\n%b\r\nBad Name: x",
        b"GET /" + b"x" * 17000 + b" HTTP/1.1\r\nHost: t\r\n%b",
        b"GET / HTTP/1.1\r\nHost: t\r\n%b\r\nX: " + b"x" * 40000,
        b"CONNECT t:80 HTTP/1.1\r\nHost: t:80\r\n%b",
        b"GET / HTTP/3.0\r\nHost: t\r\n%b",
    ],
)
def test_an_error_has_the_accepted_content_type(stage: Stage, head: bytes) -> None:
    scene = stage.scene(answering(OK))
    for accept, content in ((JSON, b"application/json"), (b"Accept: */*", b"text/plain")):
        answer = scene.exchange(head % accept + b"\r\n\r\n")
        assert answer.status >= 400
        assert (answer.get(b"content-type") or b"").startswith(content)
        assert (answer.get(b"allow") is not None) == (answer.status == 405)
    assert scene.origin.connections == 0


@pytest.mark.parametrize("line", [b"Bad Name: x", b"X: " + b"x" * 40000, b"Host: again"])
def test_a_refused_head_request_gets_no_body(stage: Stage, line: bytes) -> None:
    with stage.scene(answering(OK)).proxy.connect() as client:
        client.send(get(b"/", line, method=b"HEAD"))
        assert client.head().status in (400, 431)
        assert client.rest() == b""


def test_http_0_9_does_not_wait_for_an_answer_that_never_comes(stage: Stage) -> None:
    with stage.scene(answering(OK)).proxy.connect() as client:
        client.send(b"GET /\r\n")
        assert client.response().status == 400
        assert client.ended()


@pytest.mark.parametrize("form", ["json", "combined"])
def test_refused_requests_are_in_the_access_log(
    stage: Stage, tmp_path_factory: pytest.TempPathFactory, form: str
) -> None:
    path = tmp_path_factory.mktemp("log") / "access.log"
    flags = ("--access-log", "on", "--access-log-format", form, "--access-log-file", str(path))
    scene = stage.scene(answering(OK), *flags)
    for request in (
        get(b"/named", b"Bad Name: x"),
        b"GET /" + b"x" * 20000 + b" HTTP/1.1\r\nHost: t\r\n\r\n",
        b"\x16\x03\x01\r\n\r\n",
    ):
        assert scene.exchange(request).status >= 400
    wait_until_blocking(
        lambda: path.exists() and path.read_text().count("\n") == 3, what="three lines"
    )
    named, long, garbage = path.read_text().splitlines()
    assert "/named" in named
    assert len(long) < 3000
    if form == "json":
        lines = [json.loads(line) for line in (named, long, garbage)]
        assert [line["status"] for line in lines] == [400, 414, 400]
        assert [line["failure"] for line in lines] == ["bad-request", "too-long", "bad-request"]
        assert (lines[0]["method"], lines[0]["version"]) == ("GET", "HTTP/1.1")
        assert lines[0]["detail"] == "a malformed header field name"
    else:
        assert '"GET /named HTTP/1.1" 400' in named
        assert "\\x16\\x03\\x01" in garbage
