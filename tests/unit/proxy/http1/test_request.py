"""Request heads as byte tables: what has one reading, and what is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.http1.fields import MAX_CACHED_LINES, REQUEST_KINDS, BadMessage, FieldLineCache
from proxy.http1.framing import CHUNKED
from proxy.http1.partial import check_partial, check_request_size
from proxy.http1.request import RequestHead, parse_request
from proxy.http1.rewrite import host_line
from tests.support.heads import parsed_fields


def parse(text: bytes) -> RequestHead:
    """Reads a head twice, the second time with every line remembered: both must agree."""
    memory = FieldLineCache(REQUEST_KINDS)
    first = parse_request(text, memory)
    second = parse_request(text, memory)
    assert parsed_fields(first) == parsed_fields(second)
    return first


def head(*lines: bytes, start: bytes = b"POST / HTTP/1.1", host: bytes = b"Host: a") -> bytes:
    return b"\r\n".join([start, *([host] if host else []), *lines])


REFUSED = [
    # the request line
    (b"GET  / HTTP/1.1\r\nHost: a", 400),
    (b" GET / HTTP/1.1\r\nHost: a", 400),
    (b"GET / HTTP/1.1 \r\nHost: a", 400),
    (b"GET /\r\nHost: a", 400),
    (b"GET\t/\tHTTP/1.1\r\nHost: a", 400),
    (b"GET / http/1.1\r\nHost: a", 400),
    (b"GET / HTTP/1.10\r\nHost: a", 400),
    (b"GET / HTTP/01.1\r\nHost: a", 400),
    (b"GET / HTTP/2.0\r\nHost: a", 505),
    (b"PRI * HTTP/2.0", 505),
    (b"G@T / HTTP/1.1\r\nHost: a", 400),
    (b"A" * 100 + b" / HTTP/1.1\r\nHost: a", 501),
    (b"CONNECT a:80 HTTP/1.1\r\nHost: a:80", 405),
    (b"CONNECT / HTTP/1.1\r\nHost: a", 405),
    (b"GET /" + b"x" * 20000 + b" HTTP/1.1\r\nHost: a", 414),
    (b"GET /\x00 HTTP/1.1\r\nHost: a", 400),
    (b"GET /\x7f HTTP/1.1\r\nHost: a", 400),
    (b"GET /\xc3\xa9 HTTP/1.1\r\nHost: a", 400),
    (b"GET /a#b HTTP/1.1\r\nHost: a", 400),
    (b"GET a HTTP/1.1\r\nHost: a", 400),
    (b"GET * HTTP/1.1\r\nHost: a", 400),
    (b"GET a:80 HTTP/1.1\r\nHost: a", 400),
    (b"GET http://b/ HTTP/1.1\r\nHost: a", 400),
    (b"GET http://a:81/ HTTP/1.1\r\nHost: a", 400),
    (b"GET http://u@a/ HTTP/1.1\r\nHost: a", 400),
    (b"GET ftp://a/ HTTP/1.1\r\nHost: a", 400),
    (b"GET http:/// HTTP/1.1\r\nHost: a", 400),
    (b"GET http://a/ HTTP/1.1", 400),
    # Host
    (b"GET / HTTP/1.1", 400),
    (head(b"Host: a"), 400),
    (head(b"host: b"), 400),
    (head(host=b"Host: a b"), 400),
    (head(host=b"Host: a,b"), 400),
    (head(host=b"Host: a/b"), 400),
    (head(host=b"Host: u@a"), 400),
    (head(host=b"Host: a:80:80"), 400),
    (head(host=b"Host: a:x"), 400),
    (head(host=b"Host: [::1"), 400),
    (head(host=b"Host: [:::1]"), 400),
    (head(host=b"Host: [1.2.3.4]"), 400),
    (head(host=b"Host: a%zz"), 400),
    # field lines
    (head(b"X : a"), 400),
    (head(b"X\t: a"), 400),
    (head(b": a"), 400),
    (head(b"X"), 400),
    (head(b"X A: b"), 400),
    (head(b"X\xa0: b"), 400),
    (head(b"X(: b"), 400),
    (head(b"X: a", b" b"), 400),
    (head(b"X: a", b"\tb"), 400),
    (head(b"X: a\x00"), 400),
    (head(b"X: a\rb"), 400),
    (head(b"X: a\nb"), 400),
    (head(b"X: a\x0bb"), 400),
    (head(b"X: a\x1bb"), 400),
    (head(b"X: a\x7fb"), 400),
    (head(b"X: " + b"a" * 40000), 431),
    (head(*[b"X: a"] * 500), 431),
    # the body's length
    (head(b"Content-Length: +5"), 400),
    (head(b"Content-Length: -5"), 400),
    (head(b"Content-Length: 5,5"), 400),
    (head(b"Content-Length: 5 5"), 400),
    (head(b"Content-Length: 0x5"), 400),
    (head(b"Content-Length: 5_0"), 400),
    (head(b"Content-Length:"), 400),
    (head(b"Content-Length: \xd9\xa5"), 400),
    (head(b"Content-Length: \xb2"), 400),
    (head(b"Content-Length: 99999999999999999999"), 400),
    (head(b"Content-Length: 9999999999999999999"), 413),
    (head(b"Content-Length: 5", b"Content-Length: 5"), 400),
    (head(b"Content-Length: 5", b"content-length: 6"), 400),
    (head(b"Content-Length: 5", b"Transfer-Encoding: chunked"), 400),
    (head(b"Transfer-Encoding: chunked", b"Content-Length: 0"), 400),
    (head(b"Transfer-Encoding: identity"), 400),
    (head(b"Transfer-Encoding: chunked, chunked"), 400),
    (head(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"), 400),
    (head(b"Transfer-Encoding: chunked", b"Transfer-Encoding: gzip"), 400),
    (head(b"Transfer-Encoding: chunked, identity"), 400),
    (head(b"Transfer-Encoding: xchunked"), 400),
    (head(b"Transfer-Encoding: chunked;q=1"), 400),
    (head(b'Transfer-Encoding: "chunked"'), 400),
    (head(b"Transfer-Encoding:"), 400),
    (head(b"Transfer-Encoding: gzip, chunked"), 501),
    (head(b"Transfer-Encoding: chunked", start=b"POST / HTTP/1.0"), 400),
    # others
    (head(b"Expect: pigeons"), 417),
    (head(b"Max-Forwards: x", start=b"TRACE / HTTP/1.1"), 400),
    (head(b"Content-Length: 1", start=b"TRACE / HTTP/1.1"), 400),
]


@pytest.mark.parametrize(("text", "status"), REFUSED)
def test_ambiguous_input_is_refused(text: bytes, status: int) -> None:
    with pytest.raises(BadMessage) as refused:
        parse(text)
    assert refused.value.status == status
    assert refused.value.reason


TAKEN = [
    (b"GET / HTTP/1.1\r\nHost: a", {"method": b"GET", "target": b"/", "host": b"a", "length": 0}),
    (
        b"GET //a/../b?c=d;e HTTP/1.1\r\nHost: a",
        {"target": b"//a/../b?c=d;e", "request_line_unchanged": True},
    ),
    (
        b"GET http://a:80/x HTTP/1.1\r\nHost: A",
        {"target": b"/x", "request_line_unchanged": False, "host": b"A"},
    ),
    (b"GET http://a HTTP/1.1\r\nHost: a", {"target": b"/"}),
    (b"GET http://a?q HTTP/1.1\r\nHost: a", {"target": b"/?q"}),
    (b"GET http://a/x HTTP/1.0", {"host": b"a", "target": b"/x"}),
    (b"OPTIONS * HTTP/1.1\r\nHost: a", {"target": b"*"}),
    (b"OPTIONS http://a HTTP/1.1\r\nHost: a", {"target": b"*"}),
    (b"BREW / HTTP/1.1\r\nHost: a", {"method": b"BREW"}),
    (b"GET / HTTP/1.0", {"http10": True, "persistent": False, "host": None}),
    (b"GET / HTTP/1.0\r\nConnection: Keep-Alive", {"persistent": True}),
    (head(host=b"Host:"), {"host": b""}),
    (head(host=b"Host: [::1]:80"), {"host": b"[::1]:80"}),
    (head(host=b"HOST:\ta_b.c:1 "), {"host": b"a_b.c:1"}),
    (head(b"Content-Length: 5"), {"length": 5, "drop": ()}),
    (head(b"Content-Length: 005"), {"length": 5, "drop": (b"Content-Length: 005",)}),
    (head(b"Content-Length:\t 5 "), {"length": 5}),
    (head(b"Transfer-Encoding: Chunked"), {"length": CHUNKED}),
    (head(b"Connection: close"), {"persistent": False, "drop": (b"Connection: close",)}),
    (
        head(b"Connection: X-A, keep-alive", b"x-a: 1", b"X-AB: 2"),
        {
            "drop": (
                b"Connection: X-A, keep-alive",
                b"x-a: 1",
            ),
            "persistent": True,
        },
    ),
    (head(b"Connection: host, content-length", b"Content-Length: 1"), {"length": 1}),
    (head(b"Upgrade: websocket"), {"upgrade": ()}),
    (head(b"Upgrade: websocket", b"Connection: upgrade"), {"upgrade": (b"websocket",)}),
    (head(b"Upgrade: h2c, x", b"Connection: upgrade"), {"upgrade": (b"x",)}),
    (head(b"Expect: 100-Continue", b"Content-Length: 1"), {"expect": True}),
    (head(b"Expect: 100-continue"), {"expect": False}),
    (head(b"Content_Length: 7"), {"length": 0, "drop": (b"Content_Length: 7",)}),
    (head(b"X-Forwarded-For: 1"), {"forwarded": (b"X-Forwarded-For: 1",)}),
    (head(b"X-Request-Id: abc"), {"has_id": True, "drop": ()}),
    (head(b"X-Request-Id: a b"), {"has_id": False, "drop": (b"X-Request-Id: a b",)}),
    (head(b"X: caf\xe9", b"Y:", b"Z: a\tb"), {"drop": ()}),
]


@pytest.mark.parametrize(("text", "wanted"), TAKEN)
def test_unambiguous_input_is_read(text: bytes, wanted: dict[str, object]) -> None:
    found = parse(text)
    assert {name: getattr(found, name) for name in wanted} == wanted


@pytest.mark.parametrize(
    ("text", "good"),
    [
        (b"", True),
        (b"GE", True),
        (b"GET / HTTP/1.1\r", True),
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r", True),
        (b"GET / HTTP/1.1\n", False),
        (b"GET / HTTP/1.1\r\nHost: a\n", False),
        (b"GET / HTTP/1.1\rHost", False),
        (b"GET /\x00", False),
        (b"x" * 20000, False),
        (b"GET / HTTP/1.1\r\n" + b"x" * 70000, False),
    ],
)
def test_an_unfinished_head_is_refused_as_soon_as_it_is_hopeless(text: bytes, good: bool) -> None:
    def check() -> None:
        check_partial(text)
        check_request_size(text)

    if good:
        check()
        return
    with pytest.raises(BadMessage):
        check()


@given(st.binary(max_size=200))
def test_any_bytes_are_accepted_or_refused(junk: bytes) -> None:
    memory = FieldLineCache(REQUEST_KINDS)
    for text in (junk, b"GET / HTTP/1.1\r\nHost: a\r\n" + junk):
        try:
            found = parse_request(text, memory)
        except BadMessage:
            continue
        assert b"\n" not in found.raw.replace(b"\r\n", b"")
        assert found.length >= CHUNKED


def test_the_field_cache_is_bounded_and_drops_varying_values() -> None:
    memory = FieldLineCache(REQUEST_KINDS)
    for number in range(10_000):
        parse_request(head(b"X-Id: %d" % number, b"Accept: text/html"), memory)
        parse_request(head(b"X-%d: 1" % number, host=b"Host: h%d" % number), memory)
    assert len(memory.plain) + len(memory.special) <= 4096
    assert sum(line.startswith(b"X-Id") for line in memory.plain) <= 64


def test_the_field_cache_stays_small_for_any_input() -> None:
    memory = FieldLineCache(REQUEST_KINDS)
    for number in range(70):
        memory.classify(b"x-aaaaaaaaaaaaaaa: %d" % number)
    for number in range(1 << 14):
        name = b"".join(b"A" if number >> bit & 1 else b"a" for bit in range(15))
        memory.classify(b"x-%b: 1" % name)
    assert len(memory._uncached) <= MAX_CACHED_LINES
    assert len(memory.plain) + len(memory.special) <= MAX_CACHED_LINES


@pytest.mark.parametrize(
    ("host", "line"),
    [("127.0.0.1", b"127.0.0.1:80"), ("api", b"api:80"), ("::1", b"[::1]:80")],
)
def test_a_host_generated_for_an_endpoint_is_valid(host: str, line: bytes) -> None:
    made = host_line(host, 80)
    assert made == b"Host: " + line + b"\r\n"
    assert parse(b"GET / HTTP/1.1\r\n" + made.strip()).host == line
