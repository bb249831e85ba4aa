"""What only comes about when two things meet: heads cut in an unlucky place, answers before their
requests are whole, clients that end their side late, errors in the form that was asked for."""

import contextlib
import json
import threading
import time

import pytest

from tests.support.raw_http import Stage, Wire, answering, get, within

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
JSON = b"Accept: application/json"


# --- answers


def test_a_known_head_that_is_cut_before_its_last_bytes_has_its_own_body(stage: Stage) -> None:
    """A remembered head, and a body as long as what would be taken for it if the head's end
    were not looked for."""
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 40\r\nX: pp"
    body = bytes(range(65, 105))
    assert len(body) == len(head) - 2
    answers = iter([(head + b"\r\n\r\n" + body,), (head + b"\r", b"\n\r\n" + body)])

    def script(wire: Wire) -> None:
        for pieces in answers:
            wire.request()
            for piece in pieces:
                wire.send(piece)
                time.sleep(0.1)

    with stage.scene(script).proxy.connect() as client:
        for _ in range(2):
            client.send(get())
            assert client.response().body == body


@pytest.mark.parametrize("framing", ["sized", "chunked", "in two chunks"])
def test_answers_of_a_known_shape_arrive_however_they_are_cut(stage: Stage, framing: str) -> None:
    """After two whole ones that it is known by, each of another length, cut at every place."""
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
            time.sleep(0.01)
            if whole[cut:]:
                wire.send(whole[cut:])

    with stage.scene(script).proxy.connect() as client:
        for number, body in enumerate(bodies):
            client.send(get())
            answer = client.response()
            assert answer.body == body
            assert answer.all(b"etag") == [b"%d" % number]


@pytest.mark.parametrize("size", [100_000, 3_000_000, 10_000_000])
def test_an_early_refusal_arrives_though_it_was_reset_amid_a_write(stage: Stage, size: int) -> None:
    """The end comes at once, with the upload unread: the proxy learns of it as a failed write,
    and the answer waits behind it."""

    def script(wire: Wire) -> None:
        wire.head()
        wire.send(b"HTTP/1.1 413 No\r\nContent-Length: 4\r\nConnection: close\r\n\r\nlong")

    scene = stage.scene(script)
    for _ in range(5):
        with scene.proxy.connect() as client:
            client.send(get(b"/", b"Content-Length: %d" % size, method=b"POST") + b"x" * size)
            answer = client.response()
            assert (answer.status, answer.body) == (413, b"long")


def test_who_reads_only_after_a_long_upload_still_gets_the_early_answer(stage: Stage) -> None:
    def script(wire: Wire) -> None:
        wire.head()
        wire.send(b"HTTP/1.1 413 No\r\nContent-Length: 4\r\n\r\nlong")
        wire.rest()

    with stage.scene(script).proxy.connect() as client:
        client.send(get(b"/", b"Content-Length: 1000000", method=b"POST"))
        for _ in range(30):
            client.send(b"x" * 1000)
            time.sleep(0.1)
        assert client.response().body == b"long"
        assert client.ended()


# --- clients that end their side


@pytest.mark.parametrize("framing", ["sized", "chunked", "to-the-end"])
def test_a_client_that_ends_its_side_amid_an_answer_gets_the_rest(
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
            time.sleep(0.03)
        if framing == "chunked":
            wire.send(b"0\r\n\r\n")

    with stage.scene(script).proxy.connect() as client:
        client.send(get())
        head = client.head()
        time.sleep(0.05)
        client.finish()
        gone_on.set()
        if head.get(b"transfer-encoding"):
            client.chunked(head)
        else:
            head.body = client.exactly(60)
        assert head.body == b"".join(b"%06d" % number for number in range(10))


def test_a_slow_reader_that_has_ended_its_side_gets_all_of_it(stage: Stage) -> None:
    size = 3_000_000
    script = answering(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size)
    with stage.scene(script).proxy.connect(small_window=True) as client:
        client.send(get())
        client.head()
        client.finish()
        time.sleep(0.8)
        assert len(client.exactly(size)) == size


def test_a_client_that_is_not_read_from_and_resets_cancels_its_request(stage: Stage) -> None:
    """It has asked for more than is read ahead, so the event loop does not look at it."""
    ended = threading.Event()

    def script(wire: Wire) -> None:
        wire.request()
        with contextlib.suppress(ConnectionError):
            wire.rest()
        ended.set()

    client = stage.scene(script).proxy.connect()
    client.send(get())
    time.sleep(0.1)
    client.send(get(b"/" + b"x" * 1000) * 100)
    time.sleep(0.2)
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
def test_a_refusal_is_in_the_form_that_was_asked_for(stage: Stage, head: bytes) -> None:
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
def test_what_is_refused_stands_in_the_access_log(
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
    assert within(30, lambda: path.exists() and path.read_text().count("\n") == 3)
    named, long, garbage = path.read_text().splitlines()
    assert "/named" in named
    assert len(long) < 3000
    if form == "json":
        lines = [json.loads(line) for line in (named, long, garbage)]
        assert [line["status"] for line in lines] == [400, 414, 400]
        assert [line["failure"] for line in lines] == ["bad-request", "too-long", "bad-request"]
        assert (lines[0]["method"], lines[0]["version"]) == ("GET", "HTTP/1.1")
    else:
        assert '"GET /named HTTP/1.1" 400' in named
        assert "\\x16\\x03\\x01" in garbage
