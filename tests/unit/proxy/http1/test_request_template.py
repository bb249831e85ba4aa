"""A head known by its template is exactly what parsing would have made of it, or is not known."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proxy.http1.fields import REQUEST_KINDS, BadMessage, FieldLineCache
from proxy.http1.request import RequestHead, parse_request
from proxy.http1.request_template import (
    MAX_TEMPLATES,
    RequestTemplates,
    add_template,
    match_templates,
)
from proxy.http1.rewrite import build_request_head
from proxy.http1.template import MAX_HEAD

END = b"\r\n\r\n"
FIELDS = (b"Host: shop.example", b"User-Agent: t/1", b"Cookie: a=%d", b"Accept: */*", b"X-Tag: %d")


def head(*lines: bytes, start: bytes = b"GET /menu?n=1 HTTP/1.1") -> bytes:
    return b"\r\n".join((start, *lines)) + END


def parsed(data: bytes) -> RequestHead:
    return parse_request(data[:-4], FieldLineCache(REQUEST_KINDS))


def numbered(number: int) -> bytes:
    lines = [line % number if b"%d" in line else line for line in FIELDS]
    return head(*lines, start=b"GET /menu/%d HTTP/1.1" % number)


class Taught:
    """Shapes, learned from these."""

    def __init__(self, *heads: bytes) -> None:
        self.templates: RequestTemplates = ()
        for data in heads:
            self.templates = add_template(self.templates, parsed(data))

    def read(self, data: bytes) -> RequestHead | None:
        """Read what a connection received, as `Downstream` does."""
        raw = data.removesuffix(END)
        if raw == data:
            raw = data.partition(END)[0]
        return match_templates(self.templates, raw) if raw != data else None


def test_a_template_reads_what_parsing_reads() -> None:
    template = Taught(numbered(1), numbered(2))
    data = numbered(3)
    found, wanted = template.read(data), parsed(data)
    assert found is not None
    for name in (
        "method",
        "target",
        "host",
        "length",
        "persistent",
        "raw",
        "lines",
        "upstream_head",
    ):
        assert getattr(found, name) == getattr(wanted, name), name
    assert found.field(b"cookie") == b"a=3"
    assert found.field(b"x-none") is None


def test_hop_by_hop_lines_are_not_forwarded() -> None:
    def sent(number: int) -> bytes:
        return head(
            b"Host: h",
            b"Connection: keep-alive",
            b"X-Tag: %d" % number,
            b"X-Forwarded-For: 10.0.0.9",
            b"Proxy: http://evil.example:1",
            b"Accept: */*",
        )

    found = Taught(sent(1), sent(2)).read(sent(3))
    assert found is not None
    assert b"evil" not in found.upstream_head
    wanted = parsed(sent(3))
    assert found.upstream_head + b"\r\n" == build_request_head(wanted, b"", None, wanted.target)
    assert b"Forwarded" not in found.upstream_head
    assert b"X-Tag: 3" in found.upstream_head


@pytest.mark.parametrize(
    "data",
    [
        numbered(3)[:-1],
        numbered(3).replace(b"a=3", b"a=\x00"),
        numbered(3).replace(b"a=3", b"a=\r3"),
        numbered(3).replace(b"a=3", b"a=3\r\nTransfer-Encoding: chunked"),
        numbered(3).replace(b"a=3", b"a=3\n\nContent-Length: 5"),
        numbered(3).replace(b"X-Tag: 3", b"X-Tag : 3"),
        numbered(3).replace(b"X-Tag: 3", b"X-Tag: 3\r\n folded"),
        numbered(3).replace(b"/menu/3", b"/menu/\x80"),
        numbered(3).replace(b"/menu/3", b"/menu/3#f"),
        numbered(3).replace(b"/menu/3", b"/menu/3 x"),
        numbered(3).replace(b"/menu/3", b"*"),
        numbered(3).replace(b"/menu/3", b"http://other/3"),
        numbered(3).replace(b"GET", b"CONNECT"),
        numbered(3).replace(b"GET", b"TRACE"),
        numbered(3).replace(b"GET", b"OPTIONS"),
        numbered(3).replace(b"GET", b"G\tT"),
        numbered(3).replace(b"HTTP/1.1", b"HTTP/1.0"),
        numbered(3).replace(b"shop.example", b"other.example"),
        numbered(3).replace(b"a=3", b"a=" + b"3" * MAX_HEAD),
        b"\r\n" + numbered(3),
        b"",
        b" ",
        b"GET /",
    ],
)
def test_a_template_does_not_match_other_differences(data: bytes) -> None:
    assert Taught(numbered(1), numbered(2)).read(data) is None


def test_the_beginning_of_a_further_request_is_left_to_the_caller() -> None:
    template = Taught(numbered(1), numbered(2))
    found = template.read(numbered(3) + b"G")
    assert found is not None
    assert (found.raw, found.length) == (numbered(3)[:-4], 0)
    assert template.read(numbered(3) + numbered(4)) is None, "two heads are never one"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (b"Content-Length: 0", b"Content-Length: 00"),
        (b"Host: a", b"Host: b"),
        (b"Proxy: a", b"Proxy: b"),
        (b"Connection: close", b"Connection: keep-alive"),
        (b"X_Tag: 1", b"X_Tag: 2"),
        (b"X-Request-Id: a b", b"X-Request-Id: b c"),
        (b"Expect: 100-continue", b"Expect: 100-Continue"),
    ],
)
def test_a_template_has_no_gap_for_fields_with_a_meaning(one: bytes, other: bytes) -> None:
    base = (b"Host: h",) if b"Host" not in one else ()
    taught = Taught(*(head(*base, line) for line in (one, other)))
    assert not any(template.variable_lines for template in taught.templates)


@pytest.mark.parametrize(
    "data",
    [
        head(b"Host: h", b"Connection: close"),
        head(b"Host: h", b"Connection: x-tag", b"X-Tag: 1"),
        head(b"Host: h", b"Connection: Upgrade", b"Upgrade: websocket"),
        head(b"Host: h", b"Content-Length: 03", start=b"POST / HTTP/1.1"),
        head(b"Host: h", b"Content-Length: 3", b"Expect: 100-continue", start=b"POST / HTTP/1.1"),
        head(b"Host: h", b"Transfer-Encoding: chunked", start=b"POST / HTTP/1.1"),
        head(b"Host: h", b"Max-Forwards: 1", start=b"OPTIONS / HTTP/1.1"),
        head(b"Host: h", b"X-Request-Id: a", b"X-Request-Id: a"),
        head(b"Host: h", b"Connection: keep-alive", start=b"GET / HTTP/1.0"),
        head(b"Host: h", start=b"GET http://h/ HTTP/1.1"),
        head(b"Host: h", b"X-Long: " + b"x" * MAX_HEAD),
    ],
)
def test_unusual_heads_make_no_template(data: bytes) -> None:
    assert not Taught(data).templates


def posted(length: bytes, *lines: bytes) -> bytes:
    fixed = (b"Host: h", b"Content-Type: text/plain", b"Content-Length:" + length)
    return head(*fixed, *lines, start=b"POST /orders HTTP/1.1")


def test_reads_a_head_before_a_body() -> None:
    template = Taught(posted(b" 3"))
    data = posted(b" 12") + b"{ }" * 2
    found, wanted = template.read(data), parsed(posted(b" 12"))
    assert found is not None
    assert data[len(found.raw) + 4 :] == b"{ }" * 2
    for name in ("method", "target", "host", "length", "raw", "lines", "upstream_head"):
        got = getattr(found, name)
        assert got == (wanted.raw if name == "upstream_head" else getattr(wanted, name)), name


@pytest.mark.parametrize(
    "length",
    [
        b"",
        b" ",
        b" 0",
        b" 07",
        b" +7",
        b" -7",
        b" 7,7",
        b" 7 7",
        b" 0x7",
        b" 7\r\nContent-Length: 7",
        b" 7\r\nTransfer-Encoding: chunked",
        b" 7\x00",
        b" 7;",
        b" 1_0",
        b" " + b"9" * 20,
    ],
)
def test_a_template_never_guesses_a_length(length: bytes) -> None:
    template = Taught(posted(b" 3"), posted(b" 4"))
    assert template.read(posted(b" 7") + b"1234567") is not None
    assert template.read(posted(length) + b"1234567") is None


def test_a_body_is_never_ignored() -> None:
    with_body, without = Taught(posted(b" 3")), Taught(numbered(1), numbered(2))
    assert with_body.read(numbered(3)) is None
    assert without.read(posted(b" 3") + b"abc") is None
    for first in (b" 0", b" 3"):
        both = Taught(posted(first), posted(b" 3"), posted(b" 0"))
        for length, body in ((b" 3", b"abc"), (b" 0", b"")):
            data = posted(length)
            found = both.read(data + body)
            assert found is not None
            assert found.length == parsed(data).length
        found = both.read(posted(b" 0") + b"abc")
        assert found is not None
        assert found.length == 0, "the caller takes the rest as another request"


def kind(number: int, name: bytes) -> bytes:
    return numbered(number).replace(b"X-Tag", name)


def test_several_request_templates_coexist() -> None:
    names = [b"If-%d" % n for n in range(MAX_TEMPLATES)]
    taught = Taught(*(kind(n, name) for n in (1, 2) for name in names))
    for name in names:
        found, wanted = taught.read(kind(3, name)), parsed(kind(3, name))
        assert found is not None
        assert found.upstream_head == wanted.upstream_head
    assert len(taught.templates) == MAX_TEMPLATES
    more = add_template(taught.templates, parsed(kind(1, b"If-more")))
    assert len(more) == MAX_TEMPLATES
    assert match_templates(more, kind(4, names[-1])[:-4]) is not None, "the newest is kept longest"


def test_a_connection_holds_no_more_than_one_long_head_takes() -> None:
    def long(name: bytes, size: int) -> bytes:
        return head(b"Host: h", name + b": " + b"x" * size)

    half = MAX_HEAD // 2
    assert len(Taught(long(b"A", half - 100), long(b"B", half - 100)).templates) == 2
    (kept,) = Taught(long(b"A", half), long(b"B", half)).templates
    assert b"\r\nB: " in kept.first
    assert Taught(long(b"A", half), long(b"B", MAX_HEAD - 60)).templates


def test_reads_the_id_of_each_request() -> None:
    template = Taught(*(posted(b" 3", b"X-Request-Id: id-%d" % n, b"A: b") for n in (1, 2)))
    found = template.read(posted(b" 3", b"X-Request-Id:\tid-3 ", b"A: b"))
    assert found is not None
    assert (found.has_id, found.request_id) == (True, b"id-3")
    assert b"X-Request-Id:\tid-3 " in found.upstream_head
    for bad in (b"", b" ", b"i d", b"\x80", b"x" * 201):
        assert template.read(posted(b" 3", b"X-Request-Id: " + bad, b"A: b")) is None


def test_the_second_of_two_ids_is_not_forwarded() -> None:
    two = [posted(b" 3", b"X-Request-Id: a%d" % n, b"x-request-id: b") for n in (1, 2, 3)]
    found = Taught(*two[:2]).read(two[2])
    assert found is not None
    assert found.request_id == b"a3"
    assert b"x-request-id" not in found.upstream_head
    assert Taught(*two[:2]).read(posted(b" 3", b"X-Request-Id: a", b"x-request-id: c")) is None


def test_a_template_returns_every_field_as_parsing_does() -> None:
    def sent(number: int) -> bytes:
        twice = (b"Cookie: a=1", b"COOKIE: b=%d" % number, b"Accept: x", b"accept: y")
        return numbered(number).replace(b"X-Tag", b"\r\n".join((*twice, b"X-Tag")))

    found = Taught(sent(1), sent(2)).read(sent(3))
    assert found is not None
    for name in (b"host", b"user-agent", b"accept", b"cookie", b"x-tag", b"x-none", b""):
        assert found.field(name) == parsed(sent(3)).field(name), name


VALUES = st.binary(max_size=12)


@given(VALUES, VALUES, st.sampled_from([b"/a", b"/a#", b"*", b"/%zz", b"//", b"/a b", b"/\xff"]))
def test_every_match_equals_the_parsed_head(cookie: bytes, tag: bytes, target: bytes) -> None:
    template = Taught(numbered(1), numbered(2))
    lines = (*FIELDS[:2], b"Cookie:" + cookie, FIELDS[3], b"X-Tag:" + tag)
    data = head(*lines, start=b"GET " + target + b" HTTP/1.1")
    found = template.read(data)
    if found is None:
        return
    wanted = parsed(data)  # raises where parsing refuses what the template took
    assert (found.target, found.host, found.upstream_head) == (
        wanted.target,
        wanted.host,
        wanted.upstream_head,
    )
    assert (found.length, found.persistent) == (wanted.length, wanted.persistent)


@given(VALUES)
def test_a_refused_head_makes_no_template(value: bytes) -> None:
    data = head(*FIELDS[:2], b"Cookie:" + value, FIELDS[3], b"X-Tag: 1")
    try:
        parsed(data)
    except BadMessage:
        assert Taught(numbered(1), numbered(2)).read(data) is None


@given(VALUES | st.from_regex(rb" [0-9]{1,3}[ \t]?", fullmatch=True), VALUES)
@example(b"1", b"!\r\n")
def test_a_measured_head_equals_the_parsed_one(length: bytes, id: bytes) -> None:
    template = Taught(*(posted(b" %d" % n, b"X-Request-Id: %d" % n) for n in (1, 2)))
    data = posted(length, b"X-Request-Id:" + id)
    found = template.read(data)
    if found is None:
        return
    # A value may end the head; a body follows then.
    wanted = parsed(data[: data.find(END) + len(END)])
    assert (found.length, found.has_id) == (wanted.length, wanted.has_id)
    assert (found.request_id, found.drop) == (wanted.request_id, wanted.drop)
