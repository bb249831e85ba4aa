"""Heads of requests: from the bytes before the empty line to what a proxy has to know of them.

A head stays the bytes that it came as. What is noted beside them is which lines may not go on
and the few values that decide something.
"""

import re
from collections.abc import Sequence
from itertools import filterfalse
from typing import TYPE_CHECKING, Final

from proxy.http1 import fields, limits
from proxy.http1.fields import BadMessage, FieldLineCache, check_host, split_list
from proxy.http1.framing import (
    CHUNKED,
    check_transfer_encoding,
    is_same_authority,
    parse_content_length,
)
from proxy.http1.partial import bad_request_line

if TYPE_CHECKING:
    from proxy.http1.request_template import RequestTemplate

END: Final = b"\r\n\r\n"
VIA: Final = b"Via: 1.1 meshd\r\n"
VIA_1_0: Final = b"Via: 1.0 meshd\r\n"
_KNOWN_METHODS: Final = frozenset(
    (b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"PATCH", b"TRACE")
)
_ABSOLUTE: Final = re.compile(rb"([A-Za-z]+)://([^/?#]*)(.*)")
_LONGEST_METHOD: Final = 64
_ID: Final = re.compile(rb"[\x21-\x7e]{1,200}")


def via_line(*, http10: bool) -> bytes:
    """The line that says through whom a message went, and in which version it came."""
    return VIA_1_0 if http10 else VIA


class RequestHead:
    """A request's head that has one reading.

    `raw` is the head without the empty line; `lines` are its field lines, cut only when asked
    for where the head was known by its `Shape`. `upstream_head` is the head as it goes on, up to
    the
    lines that this hop adds; it is empty where that has to be worked out. `target` is in
    origin form (or `*`), exactly as it came. `length` is the body's, CHUNKED for a chunked one.
    `template` is what the head was known by, if it was.
    `request_id` is the one that it came with, where `has_id` says so.
    `drop` holds the field lines that go no further; `request_line_unchanged` says that the request
    line can go
    on as it is, `unchanged` that all of the head can. `forwarded` are the lines that tell of
    earlier hops, kept or dropped by trust.
    """

    host: bytes | None = None
    http10 = False
    length = 0
    persistent = True
    expect = False
    has_id = False
    request_id = b""
    max_forwards = -1
    drop: tuple[bytes, ...] = ()
    forwarded: tuple[bytes, ...] = ()
    options: tuple[bytes, ...] = ()
    upgrade: tuple[bytes, ...] = ()
    request_line_unchanged = True
    unchanged = True
    upstream_head = b""
    template: "RequestTemplate | None" = None
    _lowered = b""

    def __init__(self, raw: bytes, method: bytes, target: bytes, lines: list[bytes] | None) -> None:
        self.raw = raw
        self.method = method
        self.target = target
        self._lines = lines

    @property
    def lines(self) -> list[bytes]:
        """The field lines."""
        lines = self._lines
        if lines is None:
            lines = self._lines = self.raw.split(b"\r\n")[1:]
        return lines

    def field(self, name: bytes) -> bytes | None:
        """A field's value by its lower-case name; of several, all as one list."""
        shape = self.template
        if shape is not None and name not in shape.variable_fields:
            return shape.fields.get(name)
        lowered = self._lowered
        if not lowered:
            lowered = self._lowered = self.raw.lower()
        mark = b"\r\n" + name + b":"
        at = lowered.find(mark)
        if at < 0:
            return None
        begin = at + len(mark)
        if lowered.find(mark, begin) >= 0:
            return find_field(self.lines, name)
        end = lowered.find(b"\r\n", begin)
        return self.raw[begin : end if end >= 0 else len(lowered)].strip(b" \t")


def find_field(lines: Sequence[bytes], name: bytes) -> bytes | None:
    """A field's value by its lower-case name, of several all as one list; None without one."""
    cut = len(name)
    mark = name + b":"
    values = [line[cut + 1 :].strip(b" \t") for line in lines if line[: cut + 1].lower() == mark]
    if not values:
        return None
    return values[0] if len(values) == 1 else (b"; " if name == b"cookie" else b", ").join(values)


def is_valid_id(value: bytes) -> bool:
    """Whether a request id is one that can go on: it ends up in logs."""
    return _ID.fullmatch(value) is not None


def parse_request(raw: bytes, memory: FieldLineCache) -> RequestHead:
    """Reads a head (all before the empty line). Raises BadMessage with what to answer."""
    lines = raw.split(b"\r\n")
    start = lines.pop(0)
    parts = start.split(b" ")
    if len(parts) != 3:
        raise bad_request_line(start)
    method, target, version = parts
    if version != b"HTTP/1.1" or method not in _KNOWN_METHODS:
        _check_start(start, method, version)
    if len(target) > limits.REQUEST_LINE:
        raise BadMessage(414, "a target that is too long")
    if target.translate(fields.NOT_VISIBLE) != target:
        raise BadMessage(400, "a byte in the target that must be percent-encoded")
    if len(lines) > limits.REQUEST_FIELDS:
        raise BadMessage(431, "too many header fields")
    head = RequestHead(raw, method, target, lines)
    special = memory.special
    lengths: list[bytes] = []
    encodings: list[bytes] = []
    for line in filterfalse(memory.plain.__contains__, lines):
        kind, value = special.get(line) or memory.classify(line)
        if not kind:
            continue
        if kind == fields.HOST:
            if head.host is not None:
                raise BadMessage(400, "more than one Host")
            head.host = value
        elif kind == fields.CONTENT_LENGTH:
            lengths.append(value)
            if value[:1] == b"0" and value != b"0":
                head.drop += (line,)
                head.unchanged = False
        else:
            head.unchanged = False
            _note(head, kind, value, line, encodings)
    if version == b"HTTP/1.0":
        head.http10 = True
        head.request_line_unchanged = head.unchanged = False
        head.persistent = b"keep-alive" in head.options
    if head.options:
        _apply_connection(head)
    if lengths or encodings:
        _frame(head, lengths, encodings)
    if target[:1] != b"/" or b"#" in target:
        _other_target_forms(head)
    elif head.host is None and not head.http10:
        raise BadMessage(400, "no Host")
    if head.unchanged:
        head.upstream_head = raw
    else:
        _settle(head)
    return head


def _note(head: RequestHead, kind: int, value: bytes, line: bytes, encodings: list[bytes]) -> None:
    """Takes in a field that concerns this hop."""
    if kind == fields.FORWARDED:
        head.forwarded += (line,)
        return
    if kind == fields.REQUEST_ID:
        if head.has_id or not is_valid_id(value):
            head.drop += (line,)
        else:
            head.has_id = True
            head.request_id = value
        return
    if kind == fields.TRANSFER_ENCODING:
        encodings.append(value)
    elif kind == fields.CONNECTION:
        head.options += tuple(split_list(value))
    elif kind == fields.UPGRADE:
        names = (item.strip(b" \t") for item in value.split(b","))
        head.upgrade += tuple(name for name in names if name)
    elif kind == fields.EXPECT:
        if value.lower() != b"100-continue":
            raise BadMessage(417, "an unknown expectation")
        head.expect = True
    elif kind == fields.MAX_FORWARDS:
        if head.method not in (b"OPTIONS", b"TRACE"):
            return
        if not value.isdigit() or len(value) > 9:
            raise BadMessage(400, "a malformed Max-Forwards")
        head.max_forwards = int(value)
    head.drop += (line,)


def _apply_connection(head: RequestHead) -> None:
    """Persistence, and the fields that Connection names: they are for this hop alone."""
    options = head.options
    if b"close" in options:
        head.persistent = False
    named = {option for option in options if option not in fields.PROTECTED}
    named -= {b"close", b"keep-alive"}
    if named:
        head.drop += tuple(line for line in head.lines if line.partition(b":")[0].lower() in named)


def _frame(head: RequestHead, lengths: list[bytes], encodings: list[bytes]) -> None:
    if len(lengths) > 1:
        raise BadMessage(400, "more than one Content-Length")
    if encodings:
        check_transfer_encoding(encodings, http10=head.http10, sized=bool(lengths))
        head.length = CHUNKED
    else:
        head.length = parse_content_length(lengths[0])
    if head.method == b"TRACE" and head.length:
        raise BadMessage(400, "a body in a TRACE request")


def _settle(head: RequestHead) -> None:
    """Upgrades, expectations and what only some methods know."""
    if b"upgrade" not in head.options or head.http10:
        head.upgrade = ()
    # HTTP/2 in the clear would carry requests past every rule that is applied here.
    head.upgrade = tuple(
        name for name in head.upgrade if not name.lower().startswith((b"h2", b"http"))
    )
    if head.http10 or not head.length:
        head.expect = False


def _other_target_forms(head: RequestHead) -> None:
    """Absolute, authority and asterisk form (RFC 9112, section 3.2)."""
    target = head.target
    if head.method == b"CONNECT":
        raise BadMessage(405, "CONNECT is not served here")
    if head.host is None and not head.http10:
        raise BadMessage(400, "no Host")
    if target == b"*":
        if head.method != b"OPTIONS":
            raise BadMessage(400, "a target in asterisk form")
        return
    found = _ABSOLUTE.fullmatch(target)
    if b"#" in target or not found:
        raise BadMessage(400, "a malformed target")
    scheme, authority, rest = found[1].lower(), found[2], found[3]
    if scheme not in (b"http", b"https") or not authority:
        raise BadMessage(400, "a target with an unknown scheme or no host")
    check_host(authority)
    if head.host is None:
        head.host = authority
        head.lines.append(b"Host: " + authority)
        head.raw += b"\r\nHost: " + authority
    elif not is_same_authority(scheme, authority, head.host):
        raise BadMessage(400, "a target that contradicts Host")
    if not rest and head.method == b"OPTIONS":
        rest = b"*"
    head.unchanged = False
    head.target = rest if rest[:1] in (b"/", b"*") else b"/" + rest
    head.request_line_unchanged = False


def _check_start(start: bytes, method: bytes, version: bytes) -> None:
    """The parts of a request line that are not the usual ones. Raises BadMessage."""
    if version not in (b"HTTP/1.1", b"HTTP/1.0"):
        if re.fullmatch(rb"HTTP/[0-9]\.[0-9]", version):
            raise BadMessage(505, "a version of HTTP that is not served here")
        raise bad_request_line(start)
    if method not in _KNOWN_METHODS:
        if not method or method.translate(fields.NOT_TOKEN) != method:
            raise BadMessage(400, "a malformed method")
        if len(method) > _LONGEST_METHOD:
            raise BadMessage(501, "a method that is too long")
        if method == b"CONNECT":
            raise BadMessage(405, "CONNECT is not served here")
