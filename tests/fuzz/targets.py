"""Fuzz targets: each takes any bytes and fails where the proxy could be deceived.

Used by `run.py`, which generates bytes, and by the test that replays the corpus. The first byte of
an input is the place where the rest is cut in two.
"""

import re
from collections.abc import Callable
from typing import Final

from proxy.http1 import request_template
from proxy.http1.chunked import ChunkedReader, is_complete
from proxy.http1.fields import (
    REQUEST_KINDS,
    RESPONSE_KINDS,
    TOKEN_BYTES,
    BadMessage,
    FieldLineCache,
)
from proxy.http1.framing import CHUNKED, UNTIL_CLOSE
from proxy.http1.partial import check_partial, check_request_size
from proxy.http1.request import END, parse_request
from proxy.http1.response import parse_response
from proxy.http1.response_template import ResponseTemplates
from proxy.http1.rewrite import build_request_head
from proxy.transport import proxy_header as headers
from tests.support.heads import parsed_fields

_CONTROL: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_requests: Final = FieldLineCache(REQUEST_KINDS)
_responses: Final = FieldLineCache(RESPONSE_KINDS)
_shapes: request_template.RequestTemplates = ()
_answers: Final = ResponseTemplates()


def head(data: bytes) -> None:
    """A request is accepted with every cache or with none, and its forwarded form parses the
    same."""
    global _shapes
    raw = data.partition(END)[0]
    # With an end of line more, the empty line comes earlier than where it is put here.
    known = None if raw.endswith(b"\r\n") else request_template.match_templates(_shapes, raw)
    try:
        first = parse_request(raw, FieldLineCache(REQUEST_KINDS))
    except BadMessage as bad:
        _refused_by(lambda: parse_request(raw, _requests), bad.status)
        assert known is None, "a shape takes what is refused"
        return
    if known is None:
        _shapes = request_template.add_template(_shapes, first)
    else:
        assert (known.target, known.host, known.length) == (first.target, first.host, first.length)
        assert (known.drop, known.request_id) == (first.drop + first.forwarded, first.request_id)
    assert vars(first) == vars(parse_request(raw, _requests)), "memory changes the reading"
    check_partial(raw)
    check_request_size(raw)
    assert all(line and not _CONTROL.search(line) for line in first.lines)
    sent = build_request_head(first, b"", None, first.target)
    host = b"" if first.host is not None else b"Host: a\r\n"
    again = parse_request((sent + host).removesuffix(b"\r\n"), FieldLineCache(REQUEST_KINDS))
    assert (again.method, again.target, again.length) == (first.method, first.target, first.length)
    assert again.host == (first.host if first.host is not None else b"a")
    assert not again.http10
    names = [line.partition(b":")[0].lower() for line in again.lines]
    assert names.count(b"content-length") + names.count(b"transfer-encoding") <= 1
    assert b"connection" not in names or first.upgrade
    assert not any(name.translate(None, TOKEN_BYTES) for name in names)


def chunked(data: bytes) -> None:
    """A chunked body reads the same at every cut, and its forwarded form has the same content."""
    cut, body = (data[0] if data else 0), data[1:]
    whole = _walk([body], raw=True)
    assert whole == _walk([body[:cut], body[cut:]], raw=True), "a cut changes the reading"
    assert whole == _walk([body[at : at + 1] for at in range(len(body))], raw=True)
    content = _walk([body], raw=False)
    assert (whole is None) == (content is None)
    assert not is_complete(body) or whole == (body, b"", True), "taken for whole"
    if whole is None or content is None or not whole[2]:
        return
    again = _walk([whole[0]], raw=False)
    assert again == (content[0], b"", True), "what goes on has another reading"
    assert _walk([whole[0]], raw=True) == (whole[0], b"", True), "what goes on is not canonical"


def response(data: bytes) -> None:
    """A response is accepted with every cache or with none, and is framed exactly once."""
    raw, found, rest = data.partition(END)
    known = _answers.match(raw)
    try:
        first = parse_response(raw, FieldLineCache(RESPONSE_KINDS))
    except BadMessage as bad:
        _refused_by(lambda: parse_response(raw, _responses), bad.status)
        assert known is None, "a shape takes what is refused"
        return
    if known is None:
        _answers.refresh()
        _answers.add(raw, first)
    else:
        assert parsed_fields(known) == parsed_fields(first), "a shape reads something else"
    same = parse_response(raw, _responses)
    assert first.client_head == same.client_head
    assert first.body_length == same.body_length
    assert first.persistent == same.persistent
    assert first.body_length in (CHUNKED, UNTIL_CLOSE) or first.body_length >= 0
    again = parse_response(first.client_head.removesuffix(END), FieldLineCache(RESPONSE_KINDS))
    assert (again.status, again.body_length) == (first.status, first.body_length)
    assert not _CONTROL.search(first.client_head.replace(b"\r\n", b""))
    if found and first.body_length == CHUNKED:
        chunked(b"\x05" + rest)


def proxy_header(data: bytes) -> None:
    """A PROXY header is read the same at every cut, and never beyond its end."""
    cut, rest = (data[0] if data else 0), data[1:]
    whole = _read_header([rest])
    assert whole == _read_header([rest[:cut], rest[cut:]]), "a cut changes the reading"
    assert whole == _read_header([rest[at : at + 1] for at in range(len(rest))])
    if whole is None or whole[0] == b"":
        return
    header, found = whole
    assert rest.startswith(header)
    for version in ("v1", "v2") if found.host else ():
        built = headers.build_header(version, found)
        assert headers.parse_header(built) == found, "what is written has another reading"


def _read_header(pieces: list[bytes]) -> tuple[bytes, headers.ProxiedAddress] | None:
    """Return the header and what it says; None if it is refused, empty if it is not complete."""
    header = b""
    try:
        for piece in pieces:
            while piece and not headers.is_complete(header):
                count = headers.count_own(header, piece)
                header, piece = header + piece[:count], piece[count:]
        return (
            (header, headers.parse_header(header))
            if headers.is_complete(header)
            else (b"", headers.NO_ADDRESS)
        )
    except headers.BadProxyHeader:
        return None


def _refused_by(parse: Callable[[], object], status: int) -> None:
    said = 0
    try:
        parse()
    except BadMessage as bad:
        said = bad.status
    assert said == status, "memory changes the refusal"


def _walk(pieces: list[bytes], *, raw: bool) -> tuple[bytes, bytes, bool] | None:
    """Return output, surplus, and whether the end was reached; None if it is rejected."""
    reader, out, rest = ChunkedReader(raw=raw), b"", b""
    try:
        for piece in pieces:
            if reader.done:
                rest += piece
            else:
                out += reader.feed(piece)
    except BadMessage:
        return None
    return out, reader.surplus + rest, reader.done


TARGETS: Final[dict[str, Callable[[bytes], None]]] = {
    "head": head,
    "chunked": chunked,
    "response": response,
    "proxy_header": proxy_header,
}
