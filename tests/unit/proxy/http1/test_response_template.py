"""An answer's head known by its template is exactly what parsing would have made of it, or is not
known."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from proxy.http1.fields import RESPONSE_KINDS, BadMessage, FieldLineCache
from proxy.http1.response import ResponseHead, parse_response
from proxy.http1.response_template import MAX_LEARNED, MAX_TEMPLATES, ResponseTemplates
from proxy.http1.template import MAX_HEAD, MAX_VARIABLE_LINES
from tests.support.heads import parsed_fields

OK = b"HTTP/1.1 200 OK"


def head(*lines: bytes, start: bytes = OK) -> bytes:
    return b"\r\n".join((start, *lines))


def parsed(raw: bytes) -> ResponseHead:
    return parse_response(raw, FieldLineCache(RESPONSE_KINDS))


def known(answers: ResponseTemplates, raw: bytes) -> ResponseHead | None:
    return answers.match(raw)


def taught(*heads: bytes) -> ResponseTemplates:
    answers = ResponseTemplates()
    for raw in heads:
        if known(answers, raw) is None:
            answers.add(raw, parsed(raw))
    return answers


def menu(number: int, *more: bytes, length: bytes = b"12") -> bytes:
    fixed = (b"Server: s", b'ETag: "%d"' % number, b"Content-Type: application/json")
    return head(*fixed, b"Content-Length: " + length, *more)


@pytest.mark.parametrize(
    "heads",
    [
        [menu(1), menu(2), menu(3)],
        [menu(1, length=b"5"), menu(1, length=b"6"), menu(1, length=b"7890")],
        [menu(1, length=b"5"), menu(2, length=b"6"), menu(3, length=b"0")],
        [menu(1, b"Date: a"), menu(1, b"Date: b"), menu(1, b"Date: ")],
        [menu(n, b"Connection: keep-alive", b"Keep-Alive: timeout=5") for n in (1, 2, 3)],
        [menu(n, b"Connection: X-Own", b"X-Own: 1", b"X: 2") for n in (1, 2, 3)],
        [head(b"X: %d" % n, b"Transfer-Encoding: chunked") for n in (1, 2, 3)],
        [head(b"X: %d" % n, b"Content-Type: text/event-stream") for n in (1, 2, 3)],
        [head(b"X: %d" % n) for n in (1, 2, 3)],
        [head(b"ETag: %d" % n, start=b"HTTP/1.1 304 Not Modified") for n in (1, 2, 3)],
        [head(b"X: %d" % n, b"Content-Length: 5", start=b"HTTP/1.1 503 No") for n in (1, 2, 3)],
        [head(b"Set-Cookie: a", b"Set-Cookie: b%d" % n, b"Set-Cookie: c") for n in (1, 2, 3)],
    ],
)
def test_a_template_reads_what_parsing_reads(heads: list[bytes]) -> None:
    *before, last = heads
    found = known(taught(*before), last)
    assert found is not None
    assert parsed_fields(found) == parsed_fields(parsed(last))


@pytest.mark.parametrize(
    "raw",
    [
        menu(3)[:-1],
        menu(3) + b"\r\n",
        menu(3) + b"\r\nX: 1",
        menu(3).replace(b"200", b"201"),
        menu(3).replace(b"HTTP/1.1", b"HTTP/1.0"),
        menu(3).replace(b"json", b"text"),
        menu(3).replace(b'"3"', b'"\x003"'),
        menu(3).replace(b'"3"', b'"\r3"'),
        menu(3).replace(b'"3"', b'"\n3"'),
        menu(3).replace(b'"3"', b'"3"\r\nTransfer-Encoding: chunked'),
        menu(3).replace(b'"3"', b'"3"\r\n folded'),
        menu(3).replace(b"ETag:", b"ETag :"),
        menu(3).replace(b'"3"', b'"' + b"3" * MAX_HEAD + b'"'),
        b"\r\n" + menu(3),
        b"",
    ],
)
def test_a_template_does_not_match_other_differences(raw: bytes) -> None:
    answers = taught(menu(1), menu(2))
    assert known(answers, menu(3)) is not None
    assert known(answers, raw) is None


@pytest.mark.parametrize(
    "length",
    [b"", b" ", b"07", b"00", b"+7", b"-7", b"7,7", b"7 7", b"0x7", b"7;", b"1_0", b"\xb2",
     b"7\r\nContent-Length: 7", b"7\r\nTransfer-Encoding: chunked", b"9" * 20],
)  # fmt: skip
def test_a_template_never_guesses_a_length(length: bytes) -> None:
    answers = taught(menu(1, length=b"3"), menu(2, length=b"4"))
    assert known(answers, menu(3, length=b"7")) is not None
    assert known(answers, menu(3, length=length)) is None


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (b"Connection: close", b"Connection: keep-alive"),
        (b"Keep-Alive: timeout=5", b"Keep-Alive: timeout=50"),
        (b"Content-Type: text/html", b"Content-Type: text/event-stream"),
        (b"Content-Length: 3", b"Content-Length: 03"),
        (b"X_Tag: 1", b"X_Tag: 2"),
        (b"Proxy-Authenticate: a", b"Proxy-Authenticate: b"),
    ],
)
def test_a_template_has_no_gap_for_fields_with_a_meaning(one: bytes, other: bytes) -> None:
    for pair in ((one, other), (other, one)):
        answers = taught(*(head(b"X: 1", line) for line in pair))
        assert all(not template.variable_lines for template in answers._templates)


def test_fields_that_connection_names_are_not_gaps() -> None:
    heads = [head(b"Connection: x-own", b"X-Own: %d" % n) for n in (1, 2, 3)]
    assert known(taught(*heads[:2]), heads[2]) is None


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
def test_an_impossible_length_is_not_a_gap(status: bytes) -> None:
    heads = [head(b"Content-Length: %d" % n, start=b"HTTP/1.1 " + status) for n in (0, 1, 2)]
    assert known(taught(*heads[:2]), heads[2]) is None
    assert known(taught(*heads[1:]), heads[0]) is None


def test_two_forms_of_length_zero_are_not_a_gap() -> None:
    not_modified = b"HTTP/1.1 304 Not Modified"
    answers = taught(
        head(b"Content-Length: 0", start=not_modified),
        head(b"Content-Length:  0", start=not_modified),
    )
    raw = head(b"Content-Length: 50", start=not_modified)
    assert parsed(raw).body_length == 0
    assert known(answers, raw) is None


def test_several_answer_templates_coexist() -> None:
    kinds = [
        [menu(n) for n in range(4)],
        [head(b"ETag: %d" % n, start=b"HTTP/1.1 304 Not Modified") for n in range(4)],
        [menu(n, b"Vary: *") for n in range(4)],
        [head(b"A: %d" % n, b"B: 1") for n in range(4)],
    ]
    assert len(kinds) == MAX_TEMPLATES
    answers = taught(*(kind[n] for n in (0, 1) for kind in kinds))
    once = [head(*(b"L%d: 1" % n for n in range(count))) for count in range(10, 20)]
    for raw in once:
        answers.add(raw, parsed(raw))
    there = [kind[3] for kind in kinds if known(answers, kind[3]) is not None]
    assert len(there) >= MAX_TEMPLATES - 1, "heads seen once have pushed out templates"


def test_new_templates_per_second_are_bounded() -> None:
    answers = taught(
        *(head(*(b"N%d: 1" % n for n in range(count))) for count in range(MAX_LEARNED))
    )
    heads = [menu(1), menu(2)]
    for raw in heads:
        answers.add(raw, parsed(raw))
    assert known(answers, menu(3)) is None
    answers.refresh()
    for raw in heads:
        answers.add(raw, parsed(raw))
    assert known(answers, menu(3)) is not None


def test_too_many_differences_make_no_template() -> None:
    def wide(number: int) -> bytes:
        return head(*(b"N%d: %d" % (n, number) for n in range(MAX_VARIABLE_LINES + 1)))

    assert known(taught(wide(1), wide(2)), wide(3)) is None


LINES = st.sampled_from(
    [
        b"X: %b", b"ETag:%b", b"Content-Length: %b", b"Content-Length:%b ", b"Connection: %b",
        b"Connection: x, %b", b"Content-Type: %b", b"Keep-Alive: timeout=%b", b"X_A: %b",
        b"Upgrade: %b", b"Transfer-Encoding: %b", b"x: %b", b"%b",
    ]
)  # fmt: skip
VALUES = st.sampled_from(
    [b"", b"1", b"2", b"7", b"07", b"0", b"x", b"etag", b"close", b"chunked", b"keep-alive",
     b"text/event-stream", b"a\tb", b"\xff", b"\0", b"a\rb", b"a: b", b"websocket"]
)  # fmt: skip
STARTS = st.sampled_from(
    [OK, b"HTTP/1.1 204 No", b"HTTP/1.1 304 No", b"HTTP/1.1 404 ", b"HTTP/1.0 200 OK",
     b"HTTP/1.1 103 Early", b"HTTP/1.1 426 Up", b"HTTP/1.1 101 Up", b"HTTP/1.1 500 No"]
)  # fmt: skip


@settings(max_examples=500, deadline=None)  # a busy machine is not a failure
@given(STARTS, st.lists(LINES, max_size=5), st.data())
@example(OK, [b"X: %b", b"Content-Length: %b"], None)
def test_every_match_equals_the_parsed_head(
    start: bytes, lines: list[bytes], data: st.DataObject | None
) -> None:
    answers, times = ResponseTemplates(), 0
    for turn in range(6):
        if data is None:
            values = [b"%d" % turn] * len(lines)
        else:
            values = data.draw(st.lists(VALUES, min_size=len(lines), max_size=len(lines)))
        raw = head(*(line % value for line, value in zip(lines, values, strict=True)), start=start)
        found = known(answers, raw)
        try:
            wanted = parsed(raw)
        except BadMessage:
            assert found is None
            continue
        if found is None:
            answers.add(raw, wanted)
        else:
            times += 1
            assert parsed_fields(found) == parsed_fields(wanted)
    if data is None:
        assert times == 4
