"""The table of cases for requests: of two readings neither is taken. Each request that passes is
read by the parser of HTTP/1.1 as the one that was sent."""

import pytest

from proxy.http1.fields import REQUEST_KINDS, BadMessage, FieldLineCache
from proxy.http1.framing import CHUNKED
from proxy.http1.request import RequestHead, parse_request
from proxy.http2.request import (
    MAX_MISSES,
    RequestTranslator,
    translate_request,
    translate_trailers,
)

Fields = list[tuple[bytes, bytes]]
GET: Fields = [
    (b":method", b"GET"),
    (b":scheme", b"https"),
    (b":authority", b"shop.test"),
    (b":path", b"/a?b=1"),
]
CONNECT: Fields = [
    (b":method", b"CONNECT"),
    (b":protocol", b"websocket"),
    (b":scheme", b"https"),
    (b":path", b"/chat"),
    (b":authority", b"shop.test"),
    (b"sec-websocket-version", b"13"),
]


def translate(fields: Fields, *, complete: bool = True) -> bytes:
    return translate_request(fields, complete, lambda: b"KEY")


def parse(fields: Fields, *, complete: bool = True) -> RequestHead:
    raw = translate(fields, complete=complete)
    return parse_request(raw, FieldLineCache(REQUEST_KINDS))


def with_pseudo(**changed: bytes | None) -> Fields:
    """GET with other pseudo-header fields; None leaves one out."""
    fields = {**dict(GET), **{b":" + name.encode(): value for name, value in changed.items()}}
    return [(name, value) for name, value in fields.items() if value is not None]


def test_a_request_has_one_form() -> None:
    fields = [*GET, (b"accept", b"*/*"), (b"x-a", b"1"), (b"x-empty", b"")]
    raw = b"GET /a?b=1 HTTP/1.1\r\nhost: shop.test\r\naccept: */*\r\nx-a: 1\r\nx-empty: "
    assert translate(fields) == raw


ACCEPTED: dict[str, tuple[Fields, bool, bytes]] = {
    "host instead of the authority": (
        [*with_pseudo(authority=None), (b"host", b"shop.test")],
        True,
        b"host: shop.test",
    ),
    "host equal to the authority": ([*GET, (b"host", b"shop.test")], True, b"host: shop.test"),
    "host in other letters": ([*GET, (b"host", b"SHOP.test")], True, b"host: shop.test"),
    "host with the default port": ([*GET, (b"host", b"shop.test:443")], True, b"host: shop.test"),
    "a port": (with_pseudo(authority=b"shop.test:8443"), True, b"host: shop.test:8443"),
    "cookie crumbs": (
        [*GET, (b"cookie", b"a=1"), (b"x-a", b"1"), (b"cookie", b"b=2; c=3"), (b"cookie", b"d")],
        True,
        b"x-a: 1\r\ncookie: a=1; b=2; c=3; d",
    ),
    "an asterisk": (with_pseudo(method=b"OPTIONS", path=b"*"), True, b"OPTIONS * HTTP/1.1"),
    "a colon in a value": ([*GET, (b"x-a", b"b: c")], True, b"x-a: b: c"),
    "obsolete text in a value": ([*GET, (b"x-a", b"\xfc")], True, b"x-a: \xfc"),
    "a tab in a value": ([*GET, (b"x-a", b"a\tb")], True, b"x-a: a\tb"),
    "te trailers": ([*GET, (b"te", b"trailers")], True, b"te: trailers"),
    "a body without a length": (with_pseudo(method=b"POST"), False, b"transfer-encoding: chunked"),
    "a body with a length": (
        [*with_pseudo(method=b"POST"), (b"content-length", b"3")],
        False,
        b"content-length: 3",
    ),
    "no body and a length of zero": ([*GET, (b"content-length", b"0")], True, b"content-length: 0"),
    "an unknown method": (with_pseudo(method=b"BREW"), True, b"BREW /a?b=1 HTTP/1.1"),
    "http over TLS": (with_pseudo(scheme=b"http"), True, b"GET /a?b=1 HTTP/1.1"),
    "a double slash": (with_pseudo(path=b"//other.test/"), True, b"GET //other.test/ HTTP/1.1"),
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_a_valid_request_is_translated(name: str) -> None:
    fields, complete, expected = ACCEPTED[name]
    raw = translate(fields, complete=complete)
    assert expected in raw
    head = parse(fields, complete=complete)
    assert head.host == dict(fields).get(b":authority", b"shop.test")
    assert head.target == dict(fields)[b":path"]
    if not complete:
        length = dict(fields).get(b"content-length")
        assert head.length == (CHUNKED if length is None else int(length))
    else:
        assert head.length == 0


REFUSED: dict[str, tuple[Fields, bool, int]] = {
    # names
    "a capital letter": ([*GET, (b"X-a", b"1")], True, 400),
    "an empty name": ([*GET, (b"", b"1")], True, 400),
    "a name with a space": ([*GET, (b"x a", b"1")], True, 400),
    "a name that ends in a space": ([*GET, (b"x-a ", b"1")], True, 400),
    "a name with a colon": ([*GET, (b"x-a:b", b"1")], True, 400),
    "a name with a line end": ([*GET, (b"x-a\r\nx-b", b"1")], True, 400),
    "a name with a NUL": ([*GET, (b"x-a\0", b"1")], True, 400),
    "a name outside of ASCII": ([*GET, (b"x-\xfc", b"1")], True, 400),
    "a name that hides a field": ([*GET, (b"transfer-encoding ", b"chunked")], True, 400),
    # values
    "a value with CRLF": ([*GET, (b"x-a", b"1\r\nx-b: 2")], True, 400),
    "a value with a whole request": (
        [*GET, (b"x-a", b"1\r\n\r\nGET /admin HTTP/1.1\r\nHost: shop.test")],
        True,
        400,
    ),
    "a value with LF": ([*GET, (b"x-a", b"1\nx-b: 2")], True, 400),
    "a value with CR": ([*GET, (b"x-a", b"1\rx-b: 2")], True, 400),
    "a value with a NUL": ([*GET, (b"x-a", b"1\0")], True, 400),
    "a value with DEL": ([*GET, (b"x-a", b"1\x7f")], True, 400),
    "a value with a space before it": ([*GET, (b"x-a", b" 1")], True, 400),
    "a value with a tab behind it": ([*GET, (b"x-a", b"1\t")], True, 400),
    "a value of a usual field with CRLF": ([*GET, (b"accept", b"1\r\nx-b: 2")], True, 400),
    "a cookie with CRLF": ([*GET, (b"cookie", b"a\r\nx-b: 2")], True, 400),
    "a cookie with LF": ([*GET, (b"cookie", b"a\nx-b: 2")], True, 400),
    # pseudo-header fields
    "no method": (with_pseudo(method=None), True, 400),
    "an empty method": (with_pseudo(method=b""), True, 400),
    "a method with a space": (with_pseudo(method=b"GET /admin"), True, 400),
    "a method with a line end": (
        with_pseudo(method=b"GET / HTTP/1.1\r\nx: y\r\n\r\nGET"),
        True,
        400,
    ),
    "no scheme": (with_pseudo(scheme=None), True, 400),
    "another scheme": (with_pseudo(scheme=b"ftp"), True, 400),
    "a scheme with more in it": (with_pseudo(scheme=b"https://other.test/?"), True, 400),
    "no path": (with_pseudo(path=None), True, 400),
    "an empty path": (with_pseudo(path=b""), True, 400),
    "two methods": ([*GET, (b":method", b"POST")], True, 400),
    "two paths": ([*GET, (b":path", b"/b")], True, 400),
    "two authorities": ([*GET, (b":authority", b"shop.test")], True, 400),
    "a pseudo-header field behind a field": (
        [*with_pseudo(path=None), (b"x-a", b"1"), (b":path", b"/a")],
        True,
        400,
    ),
    "a pseudo-header field behind a cookie": (
        [*with_pseudo(path=None), (b"cookie", b"a"), (b":path", b"/a")],
        True,
        400,
    ),
    "a pseudo-header field behind host": (
        [*with_pseudo(path=None), (b"host", b"shop.test"), (b":path", b"/a")],
        True,
        400,
    ),
    "an unknown pseudo-header field": ([*GET, (b":version", b"2")], True, 400),
    "a pseudo-header field of responses": ([*GET, (b":status", b"200")], True, 400),
    "a protocol without CONNECT": ([*GET, (b":protocol", b"websocket")], True, 400),
    # paths
    "a path with a space": (with_pseudo(path=b"/a b"), True, 400),
    "a path with a version": (
        with_pseudo(path=b"/ HTTP/1.1\r\nhost: other.test\r\nx: "),
        True,
        400,
    ),
    "a path with a tab": (with_pseudo(path=b"/a\tb"), True, 400),
    "a path with a NUL": (with_pseudo(path=b"/a\0"), True, 400),
    "a path outside of ASCII": (with_pseudo(path=b"/\xfc"), True, 400),
    "a path with a fragment": (with_pseudo(path=b"/a#b"), True, 400),
    "a path without a slash": (with_pseudo(path=b"a"), True, 400),
    "a query without a path": (with_pseudo(path=b"?a"), True, 400),
    "an absolute path": (with_pseudo(path=b"http://shop.test/a"), True, 400),
    "an authority as the path": (with_pseudo(path=b"shop.test:443"), True, 400),
    "an asterisk for GET": (with_pseudo(path=b"*"), True, 400),
    # hosts
    "another host": ([*GET, (b"host", b"other.test")], True, 400),
    "another port": ([*GET, (b"host", b"shop.test:8443")], True, 400),
    "the default port of the other scheme": ([*GET, (b"host", b"shop.test:80")], True, 400),
    "two hosts": ([*GET, (b"host", b"shop.test"), (b"host", b"shop.test")], True, 400),
    "two hosts without an authority": (
        [*with_pseudo(authority=None), (b"host", b"a"), (b"host", b"b")],
        True,
        400,
    ),
    "no host": (with_pseudo(authority=None), True, 400),
    "an empty authority": (with_pseudo(authority=b""), True, 400),
    "an empty authority and a host": (
        [*with_pseudo(authority=b""), (b"host", b"shop.test")],
        True,
        400,
    ),
    "an empty host": ([*with_pseudo(authority=None), (b"host", b"")], True, 400),
    "a user in the authority": (with_pseudo(authority=b"me@shop.test"), True, 400),
    "a path in the authority": (with_pseudo(authority=b"shop.test/admin"), True, 400),
    "two authorities in one": (with_pseudo(authority=b"shop.test,other.test"), True, 400),
    "an authority with a space": (with_pseudo(authority=b"shop.test other.test"), True, 400),
    "an authority with CRLF": (with_pseudo(authority=b"shop.test\r\nx-a: 1"), True, 400),
    # framing
    "two lengths": ([*GET, (b"content-length", b"3"), (b"content-length", b"3")], False, 400),
    "a list of lengths": ([*GET, (b"content-length", b"3, 3")], False, 400),
    "a signed length": ([*GET, (b"content-length", b"+3")], False, 400),
    "a hexadecimal length": ([*GET, (b"content-length", b"0x3")], False, 400),
    "an empty length": ([*GET, (b"content-length", b"")], False, 400),
    "a length without a body": ([*GET, (b"content-length", b"3")], True, 400),
    "transfer-encoding": ([*GET, (b"transfer-encoding", b"chunked")], False, 400),
    "transfer-encoding identity": ([*GET, (b"transfer-encoding", b"identity")], True, 400),
    "transfer-encoding and a length": (
        [*GET, (b"content-length", b"3"), (b"transfer-encoding", b"chunked")],
        False,
        400,
    ),
    "a body in a TRACE request": (with_pseudo(method=b"TRACE"), False, 400),
    # fields of connections
    "connection": ([*GET, (b"connection", b"close")], True, 400),
    "connection that names a field": ([*GET, (b"connection", b"x-a"), (b"x-a", b"1")], True, 400),
    "keep-alive": ([*GET, (b"keep-alive", b"timeout=5")], True, 400),
    "proxy-connection": ([*GET, (b"proxy-connection", b"close")], True, 400),
    "upgrade": ([*GET, (b"upgrade", b"websocket")], True, 400),
    "te gzip": ([*GET, (b"te", b"gzip")], True, 400),
    "te trailers and more": ([*GET, (b"te", b"trailers, gzip")], True, 400),
    # CONNECT
    "CONNECT": ([(b":method", b"CONNECT"), (b":authority", b"other.test:22")], False, 405),
    "CONNECT with a path": (with_pseudo(method=b"CONNECT"), False, 405),
    "CONNECT in small letters": (
        [(b":method", b"connect"), (b":authority", b"other.test:22")],
        False,
        400,
    ),
    "extended CONNECT for another protocol": (
        [(name, b"connect-udp" if name == b":protocol" else value) for name, value in CONNECT],
        False,
        501,
    ),
    "extended CONNECT without a path": (
        [field for field in CONNECT if field[0] != b":path"],
        False,
        400,
    ),
    "extended CONNECT without a scheme": (
        [field for field in CONNECT if field[0] != b":scheme"],
        False,
        400,
    ),
    "extended CONNECT without an authority": (
        [field for field in CONNECT if field[0] != b":authority"],
        False,
        400,
    ),
    "extended CONNECT that has ended": (CONNECT, True, 400),
    "extended CONNECT with a length": ([*CONNECT, (b"content-length", b"3")], False, 400),
    # others
    "an unknown expectation": ([*GET, (b"expect", b"the worst")], True, 417),
    "a long path": (with_pseudo(path=b"/" + b"a" * 20_000), True, 414),
    "a long field": ([*GET, (b"x-a", b"a" * 40_000)], True, 431),
    "many fields": ([*GET, *((b"x-%d" % number, b"1") for number in range(300))], True, 431),
}


@pytest.mark.parametrize("name", REFUSED)
def test_an_ambiguous_request_is_refused(name: str) -> None:
    fields, complete, status = REFUSED[name]
    with pytest.raises(BadMessage) as refused:
        parse(fields, complete=complete)
    assert refused.value.status == status


def test_fields_that_end_at_this_hop_are_dropped_as_in_http1() -> None:
    fields = [
        *GET,
        (b"te", b"trailers"),
        (b"proxy-authorization", b"x"),
        (b"http2-settings", b"x"),
        (b"proxy", b"x"),
        (b"transfer_encoding", b"chunked"),
        (b"content_length", b"3"),
    ]
    head = parse(fields)
    dropped = {line.partition(b":")[0] for line in head.drop}
    assert dropped == {name for name, _ in fields if not name.startswith(b":")}


def test_an_extended_connect_becomes_a_websocket_handshake() -> None:
    fields = [*CONNECT, (b"sec-websocket-key", b"MINE"), (b"sec-websocket-protocol", b"chat")]
    raw = translate(fields, complete=False)
    assert raw.split(b"\r\n") == [
        b"GET /chat HTTP/1.1",
        b"host: shop.test",
        b"sec-websocket-version: 13",
        b"sec-websocket-protocol: chat",
        b"connection: Upgrade",
        b"upgrade: websocket",
        b"sec-websocket-key: KEY",
    ]
    assert parse(fields, complete=False).upgrade == (b"websocket",)


def test_trailers_are_lines_behind_the_body() -> None:
    fields = [
        (b"x-sum", b"7"),
        (b"content-length", b"3"),
        (b"host", b"a"),
        (b"content_length", b"3"),
    ]
    assert translate_trailers(fields) == b"x-sum: 7\r\n"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (b":path", b"/"),
        (b"X-Sum", b"7"),
        (b"x-sum", b"7\r\nx-b: 1"),
        (b"x-sum", b" 7"),
        (b"accept", b"7\n"),
        (b"connection", b"close"),
        (b"transfer-encoding", b"chunked"),
    ],
)
def test_a_malformed_trailer_is_refused(name: bytes, value: bytes) -> None:
    with pytest.raises(BadMessage):
        translate_trailers([(name, value)])


def result(fields: Fields, translator: RequestTranslator | None, *, complete: bool) -> object:
    """The outcome of a translation, with or without a memory."""
    try:
        if translator is None:
            return translate(fields, complete=complete)
        return translator.translate(tuple(fields), complete, lambda: b"KEY")
    except BadMessage as bad:
        return bad.status, bad.reason


@pytest.mark.parametrize("first", [[*GET, (b"x-a", b"1")], list(reversed(GET)), CONNECT])
def test_a_memory_changes_no_outcome(first: Fields) -> None:
    """After each valid request, any other one is translated as without it."""
    changed = [
        *(
            [*first[:at], (name, other), *first[at + 1 :]]
            for at, (name, _) in enumerate(first)
            for other in (b"/b", b"/#", b"/a b", b"b", b"*", b"", b"/\r\nx: y", b"OPTIONS", b"http")
        ),
        *(first[:at] + first[at + 1 :] for at in range(len(first))),
        *(first[: at + 1] + first[at:] for at in range(len(first))),
        [*first, (b"content-length", b"3")],
        [*first, (b"host", b"other.test")],
        [*first, (b"cookie", b"a=b"), (b"cookie", b"c=d")],
    ]
    for fields in changed:
        for complete in (True, False):
            translator = RequestTranslator()
            for each, ended in (
                (first, True),
                (fields, complete),
                (first, complete),
                (fields, True),
            ):
                expected = result(each, None, complete=ended)
                assert result(each, translator, complete=ended) == expected


def test_a_connection_whose_requests_all_differ_is_not_compared_for_ever() -> None:
    translator = RequestTranslator()
    for number in range(2 * MAX_MISSES):
        fields = (*GET, (b"x-number", b"%d" % number))
        assert translator.translate(fields, True, bytes) == translate(list(fields))
    assert translator.translate((*GET, (b"x-number", b"0")), True, bytes) == translate(
        [*GET, (b"x-number", b"0")]
    )
