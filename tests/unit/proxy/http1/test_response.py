"""Response heads as byte tables."""

import pytest

from proxy.http1 import limits
from proxy.http1.fields import RESPONSE_KINDS, BadMessage, FieldLineCache
from proxy.http1.framing import CHUNKED, UNTIL_CLOSE, response_body_length
from proxy.http1.response import ResponseHead, parse_response
from tests.support.heads import parsed_fields


def parse(text: bytes) -> ResponseHead:
    memory = FieldLineCache(RESPONSE_KINDS)
    first, second = parse_response(text, memory), parse_response(text, memory)
    assert parsed_fields(first) == parsed_fields(second)
    return first


@pytest.mark.parametrize(
    "text",
    [
        b"HTTP/1.1 20 OK",
        b"HTTP/1.1 2000 OK",
        b"HTTP/1.1 abc OK",
        b"HTTP/1.1 600 OK",
        b"HTTP/1.1  200 OK",
        b"HTTP/1.1\t200 OK",
        b"HTTP/2 200",
        b"HTTP/1.1 200 O\x00K",
        b"HTTP/1.1 200 OK\r\nX : a",
        b"HTTP/1.1 200 OK\r\nX: a\r\n b",
        b"HTTP/1.1 200 OK\r\nX: a\rb",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1, 1",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked",
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked",
    ],
)
def test_ambiguous_input_is_refused(text: bytes) -> None:
    with pytest.raises(BadMessage):
        parse(text)


@pytest.mark.parametrize(("size", "good"), [(0, True), (1, False)])
def test_a_head_has_at_most_the_documented_size(size: int, good: bool) -> None:
    start, line = b"HTTP/1.1 200 OK", b"\r\nX-Long: " + b"x" * 1000
    text = start + line * (limits.RESPONSE_HEAD // len(line))
    rest = limits.RESPONSE_HEAD - len(text) + size
    if rest < 10:
        text, rest = text[: -len(line)], rest + len(line)
    text += b"\r\nX-Y: " + b"y" * (rest - 7)
    assert len(text) == limits.RESPONSE_HEAD + size
    if good:
        assert parse(text).status == 200
    else:
        with pytest.raises(BadMessage, match="too long"):
            parse(text)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (b"HTTP/1.1 200 OK", {"status": 200, "content_length": None, "persistent": True}),
        (b"HTTP/1.1 200", {"status": 200}),
        (b"HTTP/1.1 404 ", {"status": 404}),
        (b"HTTP/1.0 200 OK", {"persistent": False, "kept_head": b"HTTP/1.1 200 OK\r\n"}),
        (b"HTTP/1.0 200 OK\r\nConnection: keep-alive", {"persistent": True}),
        (b"HTTP/1.1 200 OK\r\nConnection: close", {"persistent": False}),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 007", {"content_length": 7}),
        (b"HTTP/1.1 200 OK\r\nKeep-Alive: timeout=5, max=9", {"keep_alive_timeout": 5.0}),
        (b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; x", {"is_event_stream": True}),
        (b"HTTP/1.1 200 OK\r\nContent-Type: text/html", {"is_event_stream": False}),
        (
            b"HTTP/1.1 200 OK\r\nConnection: x\r\nX: 1\r\nY: 2",
            {"kept_head": b"HTTP/1.1 200 OK\r\nY: 2\r\n"},
        ),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked",
            {
                "chunked": True,
                "client_head": (
                    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nVia: 1.1 meshd\r\n\r\n"
                ),
            },
        ),
        (
            b"HTTP/1.1 204 No\r\nContent-Length: 0",
            {"kept_head": b"HTTP/1.1 204 No\r\n", "persistent": True},
        ),
        (b"HTTP/1.1 204 No\r\nContent-Length: 5", {"persistent": False}),
        (
            b"HTTP/1.1 101 S\r\nUpgrade: WebSocket\r\nConnection: upgrade",
            {"upgrade": (b"websocket",)},
        ),
    ],
)
def test_unambiguous_input_is_read(text: bytes, wanted: dict[str, object]) -> None:
    found = parse(text)
    assert {name: getattr(found, name) for name in wanted} == wanted


@pytest.mark.parametrize(
    ("status", "chunked", "length", "wanted"),
    [
        (200, False, 5, 5),
        (200, True, None, CHUNKED),
        (200, False, None, UNTIL_CLOSE),
        (204, True, None, 0),
        (304, False, 9, 0),
        (103, False, None, 0),
    ],
)
def test_bytes_after_a_head(status: int, chunked: bool, length: int | None, wanted: int) -> None:
    assert response_body_length(status=status, chunked=chunked, length=length) == wanted
