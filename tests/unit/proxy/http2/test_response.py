"""Response heads of HTTP/1.1 as fields of HTTP/2."""

from proxy.http2 import response
from proxy.http2.response import MAX_LINES, ResponseFields

HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type:  text/plain \r\nX-Empty:\r\nConnection: x-a\r\n"
    b"Keep-Alive: timeout=5\r\nTransfer-Encoding: chunked\r\nUpgrade: a\r\nSet-Cookie: a=1\r\n"
    b"Set-Cookie: b: 2\r\n\r\n"
)


def test_names_are_lowered_values_stripped_and_connection_fields_left_out() -> None:
    fields = ResponseFields()
    for _ in range(2):
        assert fields.translate(HEAD) == [
            (b":status", b"200"),
            (b"content-type", b"text/plain"),
            (b"x-empty", b""),
            (b"set-cookie", b"a=1"),
            (b"set-cookie", b"b: 2"),
        ]


def test_a_head_without_its_empty_line_has_the_same_fields() -> None:
    fields = ResponseFields()
    assert fields.translate(HEAD.removesuffix(b"\r\n\r\n")) == fields.translate(HEAD)


def test_the_cache_is_bounded() -> None:
    fields = ResponseFields()
    for number in range(2 * MAX_LINES):
        line = b"x-%d: %d" % (number, number)
        assert fields.translate(b"HTTP/1.1 204 No\r\n" + line)[1][0] == b"x-%d" % number
    assert len(fields._fields) <= MAX_LINES


def test_a_chunked_head_is_recognized() -> None:
    assert response.is_chunked(HEAD)
    assert not response.is_chunked(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n")


def test_a_switch_of_protocols_is_an_open_tunnel() -> None:
    head = (
        b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: x\r\nSec-WebSocket-Protocol: chat\r\n\r\n"
    )
    fields = ResponseFields().translate(head)
    assert fields[0] == (b":status", response.SWITCHED)
    assert response.accept_tunnel(fields) == [
        (b":status", b"200"),
        (b"sec-websocket-protocol", b"chat"),
    ]


def test_trailers_lose_what_must_be_in_a_head() -> None:
    lines = b"X-Sum: 7\r\nContent-Length: 3\r\nGrpc-Status: 0\r\n"
    assert response.translate_trailers(lines) == [(b"x-sum", b"7"), (b"grpc-status", b"0")]
