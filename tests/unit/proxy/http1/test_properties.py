"""Properties of the parsers: what must hold whatever bytes come and however they are cut.

The references here are written for clarity and know nothing of the code under test.
"""

import re
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from proxy.http1 import limits
from proxy.http1.chunked import LAST_CHUNK, ChunkedReader, encode_chunk, is_complete
from proxy.http1.fields import (
    NOT_IN_TRAILERS,
    REQUEST_KINDS,
    RESPONSE_KINDS,
    BadMessage,
    FieldLineCache,
)
from proxy.http1.framing import CHUNKED, UNTIL_CLOSE
from proxy.http1.partial import check_partial, check_request_size
from proxy.http1.request import END, RequestHead, parse_request
from proxy.http1.response import parse_response
from proxy.http1.rewrite import build_request_head
from tests.support.heads import parsed_fields

TOKEN = st.text("abcdefghijklmnopqrstuvwxyzABCXYZ0123456789-.!~", min_size=1, max_size=12)
PLAIN_NAMES = TOKEN.map(lambda name: "X-" + name).filter(
    lambda name: name.lower().encode() not in REQUEST_KINDS
)
VALUES = st.text(
    st.characters(min_codepoint=0x21, max_codepoint=0xFF, exclude_characters="\x7f"), max_size=20
)
FIELDS = st.lists(st.tuples(PLAIN_NAMES, VALUES), max_size=6)
TARGETS = st.text("abz/019%._~-?=&:@", max_size=30).map(lambda rest: "/" + rest)
METHODS = st.sampled_from(["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "PURGE", "M-SEARCH"])
# Pieces that parsers stumble over, so that random joins of them come near to real messages.
SHARDS = st.sampled_from(
    [
        b"\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b":", b",", b";", b"/", b"*", b"a", b"\xff",
        b"GET / HTTP/1.1", b"POST /x HTTP/1.0", b"CONNECT a:1 HTTP/1.1", b"OPTIONS * HTTP/1.1",
        b"GET http://a/b HTTP/1.1", b"PRI * HTTP/2.0", b"HTTP/1.1 200 OK", b"HTTP/1.0 304",
        b"HTTP/1.1 101 X", b"\r\nHost: a", b"\r\nContent-Length: 5", b"\r\nContent-Length: 05",
        b"\r\nTransfer-Encoding: chunked", b"\r\nTransfer-Encoding: x, chunked",
        b"\r\nConnection: close, X-A", b"\r\nConnection: upgrade", b"\r\nUpgrade: websocket",
        b"\r\nExpect: 100-continue", b"\r\nX-A: b", b"\r\n folded", b"\r\nKeep-Alive: timeout=5",
        b"\r\nMax-Forwards: 3", b"\r\nContent-Type: text/event-stream", b"\r\nX_Az",
        b"\r\nX-Request-Id: q", b"\r\nX_Forwarded_For: 1",
        b"\r\nX-Forwarded-For: 1", b"5\r\nhello\r\n", b"0\r\n", b"\r\n\r\n", b"1;a=\"b\"\r\n",
    ]
)  # fmt: skip
NOISE = st.one_of(st.binary(max_size=80), st.lists(SHARDS, max_size=14).map(b"".join))


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    """`data` cut at these places."""
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[start:end] for start, end in pairwise(places)]


def decode(fed: list[bytes], *, raw: bool) -> tuple[bytes, bytes] | None:
    """What a reader makes of pieces: output and surplus, None when it refuses; `(out, b"")`
    where it still waits."""
    reader, out, rest = ChunkedReader(raw=raw), b"", b""
    try:
        for piece in fed:
            if reader.done:
                rest += piece
            else:
                out += reader.feed(piece)
    except BadMessage:
        return None
    return out, reader.surplus + rest


CUTS = st.lists(st.integers(0, 1 << 16), max_size=12)


@given(NOISE, CUTS)
@example(b"5\r\nhello\r\n0\r\nX: y\r\n\r\nGET", [1, 2, 4, 9, 12, 14])
def test_cutting_a_chunked_body_changes_nothing(data: bytes, cuts: list[int]) -> None:
    for raw in (True, False):
        assert decode([data], raw=raw) == decode(pieces(data, cuts), raw=raw)


SHARDS_OF_CHUNKS = st.sampled_from(
    [b"5\r\nhello\r\n", b"1\r\n\n\r\n", b"0\r\n", b"\r\n", b"00\r\n", b"A", b";", b"a=b", b"\n",
     b'1;x="\\""\r\nz\r\n', b"2 ;q\r\nok\r\n", b"X: y\r\n", b"Host: z\r\n", b" ", b"-1\r\n"]
)  # fmt: skip
CONTENT = st.lists(st.binary(min_size=1, max_size=40), max_size=8)


@given(CONTENT, FIELDS, st.binary(max_size=20), CUTS)
def test_a_forwarded_chunked_body_reads_the_same(
    content: list[bytes], trailers: list[tuple[str, str]], behind: bytes, cuts: list[int]
) -> None:
    lines = [f"{name}: {value}".encode("latin-1") for name, value in trailers]
    body = b"".join(map(encode_chunk, content)) + b"".join(
        [b"0\r\n", *(x + b"\r\n" for x in lines)]
    )
    body += b"\r\n"
    fed = pieces(body + behind, cuts)
    assert decode(fed, raw=True) == (body, behind)
    assert decode(fed, raw=False) == (b"".join(content), behind)


@given(CONTENT, st.binary(max_size=4))
def test_a_whole_body_in_the_common_form_is_recognized(content: list[bytes], more: bytes) -> None:
    body = b"".join(map(encode_chunk, content)) + LAST_CHUNK
    assert is_complete(body)
    assert is_complete(body + more) == (not more)
    assert not any(is_complete(body[:end]) for end in range(len(body)))


@given(NOISE | st.lists(SHARDS_OF_CHUNKS, max_size=8).map(b"".join))
@example(b"5\r\nhello\r\n0\r\n\r\n")
@example(b"05\r\nhello\r\n0\r\n\r\n")
@example(b"A\r\n0123456789\r\n0\r\n\r\n")
@example(b"1\r\n\n\r\n0\r\nX: y\r\n\r\n")
@example(b"1;a\r\nx\r\n0\r\n\r\n")
def test_a_recognized_whole_body_is_passed_on_unchanged(data: bytes) -> None:
    if is_complete(data):
        assert decode([data], raw=True) == (data, b"")


def reference(data: bytes) -> tuple[bytes, int] | None:
    """Content and length of a whole chunked body without odd trailers; None for anything
    else. One regular expression a line, straight from RFC 9112, section 7.1."""
    token = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
    quoted = rb'"(?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t \x21-\x7e\x80-\xff])*"'
    ext = (
        rb"(?:[ \t]*;[ \t]*" + token + rb"(?:[ \t]*=[ \t]*(?:" + token + rb"|" + quoted + rb"))?)*"
    )
    line = re.compile(rb"([0-9A-Fa-f]{1,15})" + ext + rb"\r\n")
    field = re.compile(token + rb":[\t\x20-\x7e\x80-\xff]*\r\n")
    content, at = b"", 0
    while True:
        found = line.match(data, at)
        if not found:
            return None
        at, size = found.end(), int(found[1], 16)
        if not size:
            break
        content += data[at : at + size]
        if data[at + size : at + size + 2] != b"\r\n":
            return None
        at += size + 2
    while found := field.match(data, at):
        at = found.end()
    return (content, at + 2) if data[at : at + 2] == b"\r\n" else None


@settings(max_examples=400)
@given(st.lists(SHARDS_OF_CHUNKS, max_size=10).map(b"".join))
def test_the_chunked_reader_equals_a_reference(data: bytes) -> None:
    expected = reference(data)
    reader = ChunkedReader(raw=False)
    try:
        out = reader.feed(data)
    except BadMessage:
        assert expected is None
        return
    if expected is None:
        assert not reader.done
    else:
        assert (out, reader.done, reader.surplus) == (expected[0], True, data[expected[1] :])


@given(NOISE, NOISE)
def test_a_forwarded_chunked_body_is_unambiguous(data: bytes, more: bytes) -> None:
    """The canonical form, read by the reference, is the same content and ends at its end."""
    first, second = ChunkedReader(raw=True), ChunkedReader(raw=False)
    try:
        out, content = first.feed(data + more), second.feed(data + more)
    except BadMessage:
        return
    if first.done:
        assert reference(out) == (content, len(out))
        trailers = out.rpartition(b"0\r\n")[2]
        names = {line.partition(b":")[0].lower() for line in trailers.split(b"\r\n") if line}
        assert not {name.replace(b"_", b"-") for name in names} & NOT_IN_TRAILERS


# --- heads


def render(method: str, target: str, fields: list[tuple[str, str]]) -> bytes:
    lines = [f"{method} {target} HTTP/1.1", "Host: a"]
    return "\r\n".join([*lines, *(f"{name}: {value}" for name, value in fields)]).encode("latin-1")


@given(METHODS, TARGETS, FIELDS)
def test_a_plain_request_is_passed_on_byte_for_byte(
    method: str, target: str, fields: list[tuple[str, str]]
) -> None:
    raw = render(method, target, fields)
    head = parse_request(raw, FieldLineCache(REQUEST_KINDS))
    assert (head.method, head.target) == (method.encode(), target.encode())
    assert head.unchanged
    assert build_request_head(head, b"", None, head.target) == raw + b"\r\n"


def parsed(head: RequestHead) -> tuple[object, ...]:
    """What a head says to a reader, apart from the bytes it came as."""
    return (
        head.method, head.target, head.host, head.length, head.expect, head.upgrade,
        sorted(line for line in head.lines if line not in {*head.drop, *head.forwarded}),
    )  # fmt: skip


HOP_LINES = st.lists(
    st.sampled_from(
        [b"Connection: close", b"Connection: X-Gone", b"X-Gone: 1", b"Keep-Alive: 1", b"TE: gzip",
         b"X-Forwarded-For: 1.2.3.4", b"X_Real_IP: 1", b"Proxy-Connection: x", b"X-Kept: 1"]
    ),
    max_size=5,
)  # fmt: skip
FRAMES = st.sampled_from(
    [[], [b"Content-Length: 5"], [b"Content-Length: 007"], [b"Transfer-Encoding: Chunked"]]
)


@given(METHODS, TARGETS, HOP_LINES, FRAMES, st.randoms(use_true_random=False))
def test_a_rendered_request_means_the_same(
    method: str, target: str, hops: list[bytes], frame: list[bytes], dice: object
) -> None:
    lines = [b"Host: a", *hops, *frame]
    dice.shuffle(lines)  # type: ignore[attr-defined]
    raw = b"\r\n".join([f"{method} {target} HTTP/1.1".encode(), *lines])
    head = parse_request(raw, FieldLineCache(REQUEST_KINDS))
    sent = build_request_head(head, b"", None, head.target)
    assert not sent.endswith(END)
    again = parse_request(sent.removesuffix(b"\r\n"), FieldLineCache(REQUEST_KINDS))
    first, second = parsed(head), parsed(again)
    assert first[:6] == second[:6]
    framing = (b"content-length", b"transfer-encoding")
    kept = [line for line in first[6] if line.partition(b":")[0].lower() not in framing]  # type: ignore[attr-defined]
    went = [line for line in second[6] if line.partition(b":")[0].lower() not in framing]  # type: ignore[attr-defined]
    assert kept == went
    names = {line.partition(b":")[0].lower() for line in again.lines}
    assert not names & {b"connection", b"keep-alive", b"te", b"x-forwarded-for", b"x_real_ip"}
    assert (b"x-gone" in names) == (b"X-Gone: 1" in hops and b"Connection: X-Gone" not in hops)


def seasoned(kinds: dict[bytes, int]) -> FieldLineCache:
    """Return a cache that saw too many values of some fields to keep them."""
    memory = FieldLineCache(kinds)
    for number in range(100):
        for name in (b"X-A", b"a", b"Content-Type", b"X-Request-Id"):
            memory.classify(b"%b: %d" % (name, number))
    return memory


SEASONED = seasoned(REQUEST_KINDS)
SEASONED_ANSWERS = seasoned(RESPONSE_KINDS)


def outcome(raw: bytes, memory: FieldLineCache) -> object:
    try:
        return parsed_fields(parse_request(raw, memory))
    except BadMessage as bad:
        return bad.status, bad.reason


@settings(max_examples=400)
@given(NOISE)
@example(b"GET / HTTP/1.1\r\nHost: a\r\nX-Az")
@example(b"GET / HTTP/1.1\r\nHost: a\r\nX-A : b")
def test_a_request_is_accepted_or_refused_whatever_the_cache(raw: bytes) -> None:
    memory = FieldLineCache(REQUEST_KINDS)
    first = outcome(raw, memory)
    assert first == outcome(raw, memory)
    assert first == outcome(raw, SEASONED)


@settings(max_examples=400)
@given(NOISE)
@example(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream")
def test_a_response_is_accepted_or_refused(raw: bytes) -> None:
    try:
        head = parse_response(raw, FieldLineCache(RESPONSE_KINDS))
    except BadMessage:
        return
    assert parsed_fields(head) == parsed_fields(parse_response(raw, SEASONED_ANSWERS))
    assert 100 <= head.status <= 599
    assert head.body_length in (0, CHUNKED, UNTIL_CLOSE) or head.body_length == head.content_length
    assert head.kept_head.startswith(b"HTTP/1.1 %d" % head.status)
    assert head.client_head.endswith(END)
    # The forwarded head parses the same.
    again = parse_response(head.client_head.removesuffix(END), FieldLineCache(RESPONSE_KINDS))
    assert (again.status, again.body_length, again.persistent) == (
        head.status,
        head.body_length,
        True,
    )


@given(st.one_of(NOISE, st.binary(max_size=200)), CUTS)
def test_a_partial_head_is_refused_only_if_the_whole_is(data: bytes, cuts: list[int]) -> None:
    end = data.find(END)
    if end < 0:
        return
    try:
        parse_request(data[:end], FieldLineCache(REQUEST_KINDS))
    except BadMessage:
        return
    for piece in pieces(data[: end + 3], cuts):
        check_partial(data[: len(piece)])
        check_request_size(data[: len(piece)])


@given(st.integers(0, 3 * limits.REQUEST_LINE))
def test_a_head_is_refused_by_its_size_alone(size: int) -> None:
    data = b"GET /" + b"x" * size
    if len(data) <= limits.REQUEST_LINE:
        check_request_size(data)
        return
    with pytest.raises(BadMessage) as refused:
        check_request_size(data)
    assert refused.value.status == 414
