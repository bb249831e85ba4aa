"""Requests of HTTP/1.1 as fields of HTTP/2, and responses the other way round."""

import pytest

from proxy.http1.fields import BadMessage
from proxy.http2 import to_endpoint
from proxy.http2.to_endpoint import UNSIZED


def test_a_request_keeps_its_meaning() -> None:
    head = (
        b"POST /a?b=%20c HTTP/1.1\r\nHost: shop.test:81\r\nX-Thing:  Some Value \r\n"
        b"Cookie: a=1; b=2\r\nContent-Length: 5\r\nConnection: Upgrade\r\nTE: gzip\r\n"
        b"Keep-Alive: timeout=5\r\nProxy-Connection: close"
    )
    found = to_endpoint.translate_request(head, b"https", b"10.0.0.1:80")
    assert found.fields == [
        (b":method", b"POST"),
        (b":scheme", b"https"),
        (b":authority", b"shop.test:81"),
        (b":path", b"/a?b=%20c"),
        (b"x-thing", b"Some Value"),
        (b"cookie", b"a=1; b=2"),
        (b"content-length", b"5"),
    ]
    assert found.length == 5


def test_chunks_and_missing_hosts() -> None:
    head = b"PUT /a HTTP/1.1\r\nTransfer-Encoding: chunked"
    found = to_endpoint.translate_request(head, b"http", b"10.0.0.1:80")
    assert found.length == UNSIZED
    assert (b":authority", b"10.0.0.1:80") in found.fields
    assert len(found.fields) == 4


def test_calls_of_grpc_say_that_trailers_are_understood() -> None:
    head = b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Type: application/grpc+proto"
    assert (b"te", b"trailers") in to_endpoint.translate_request(head, b"http", b"a").fields


@pytest.mark.parametrize(
    ("length", "bodyless", "framing"),
    [
        (None, False, b"\r\nTransfer-Encoding: chunked"),
        (5, False, b"\r\nContent-Length: 5"),
        (0, False, b"\r\nContent-Length: 0"),
        (0, True, b""),
        (None, True, b""),
    ],
)
def test_responses_are_framed(length: int | None, bodyless: bool, framing: bytes) -> None:
    fields = [(b":status", b"200"), (b"x-a", b"1")]
    raw = to_endpoint.translate_response(fields, length, bodyless=bodyless)
    assert raw == b"HTTP/1.1 200 \r\nx-a: 1" + framing


def test_a_length_is_kept_and_some_statuses_have_none() -> None:
    sized = [(b":status", b"200"), (b"content-length", b"9")]
    assert to_endpoint.translate_response(sized, None, bodyless=False).endswith(
        b" \r\ncontent-length: 9"
    )
    for status in (b"204", b"304", b"103"):
        raw = to_endpoint.translate_response([(b":status", status)], 0, bodyless=False)
        assert raw == b"HTTP/1.1 " + status + b" "


@pytest.mark.parametrize(
    "field",
    [
        (b"connection", b"close"),
        (b"transfer-encoding", b"chunked"),
        (b"upgrade", b"h2c"),
        (b"x", b"a\r\nb: c"),
        (b"x", b"a\n"),
    ],
)
def test_responses_that_could_be_read_in_two_ways(field: tuple[bytes, bytes]) -> None:
    with pytest.raises(BadMessage):
        to_endpoint.translate_response([(b":status", b"200"), field], None, bodyless=False)


def test_trailers_of_both_directions() -> None:
    fields = [(b"x-sum", b"5"), (b"content-length", b"1"), (b"host", b"a")]
    lines = to_endpoint.translate_trailers(fields)
    assert lines == b"x-sum: 5\r\n"
    assert to_endpoint.split_trailers(b"X-Sum: 5\r\n") == [(b"x-sum", b"5")]
    with pytest.raises(BadMessage):
        to_endpoint.translate_trailers([(b"x", b"a\r\nb")])
