"""Request heads: parse and validate the bytes before the empty line (RFC 9112, section 3). Pure.

Called by `proxy.request.downstream` for heads that no template matches; `rewrite` builds the
upstream head from the result. A head is kept as received. The parser adds which lines are not
forwarded, and the few values that the proxy acts on.
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
"""End of a head: the last field's CRLF and the empty line."""
VIA: Final = b"Via: 1.1 meshd\r\n"
VIA_1_0: Final = b"Via: 1.0 meshd\r\n"
LOOP_NAME: Final = b"meshd"
LOOP_LINE: Final = b"CDN-Loop: meshd\r\n"
"""Marks a request as forwarded by this proxy. Servers leave their behaviour as it is, unlike with
Via: nginx does not compress responses to requests that have one."""
_KNOWN_METHODS: Final = frozenset(
    (b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"PATCH", b"TRACE")
)
_ABSOLUTE: Final = re.compile(rb"([A-Za-z]+)://([^/?#]*)(.*)")
_MAX_METHOD: Final = 64
"""Bytes. The longest registered method has 17."""
_HASH: Final = 35
"""The number sign. To look for a number costs a tenth of a look for bytes, in which Python first
raises an exception to learn that they are not a number."""
_ID: Final = re.compile(rb"[\x21-\x7e]{1,200}")
"""Printable ASCII; 200 bytes leave room for a few UUIDs."""


def via_line(*, http10: bool) -> bytes:
    """Return the Via line of this proxy, with the version that the message arrived in."""
    return VIA_1_0 if http10 else VIA


class RequestHead:
    """A request head that has exactly one reading.

    - `raw`: the head as received, without the empty line
    - `method`, `target`: as received; an absolute target is reduced to origin form (or `*`)
    - `lines`: the field lines
    - `host`: value of Host; None without one (HTTP/1.0)
    - `length`: body length in bytes; CHUNKED for a chunked body
    - `http10`, `http2`: whether it came in another version than HTTP/1.1
    - `takes_chunks`: whether the client understands a chunked response
    - `persistent`: whether the client keeps the connection open
    - `expect`: whether the client waits for 100 Continue
    - `has_id`, `request_id`: whether it carries a valid X-Request-Id, and its value
    - `max_forwards`: value of Max-Forwards; -1 without one
    - `drop`: field lines that are not forwarded
    - `forwarded`: field lines about earlier hops, kept or dropped depending on trust
    - `hops`: how often it has passed this proxy, or another one of this kind
    - `options`: lower-case connection options
    - `upgrade`: protocols that the client offers to switch to
    - `request_line_unchanged`: whether the request line can be forwarded as received
    - `unchanged`: whether the whole head can be forwarded as received
    - `upstream_head`: the head to forward, up to the lines that this hop adds; empty if it must
      be built
    - `template`: the template that it matched; None if it was parsed
    """

    host: bytes | None = None
    http10 = False
    http2 = False
    takes_chunks = True
    length = 0
    persistent = True
    expect = False
    has_id = False
    request_id = b""
    max_forwards = -1
    drop: tuple[bytes, ...] = ()
    forwarded: tuple[bytes, ...] = ()
    hops = 0
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
        """The field lines, split on first use if the head matched a template."""
        lines = self._lines
        if lines is None:
            lines = self._lines = self.raw.split(b"\r\n")[1:]
        return lines

    def field(self, name: bytes) -> bytes | None:
        """Return a field's value by lower-case name; several are joined to a list."""
        template = self.template
        if template is not None and name not in template.variable_fields:
            return template.fields.get(name)
        lowered = self._lowered
        if not lowered:
            lowered = self._lowered = self.raw.lower()
        prefix = b"\r\n" + name + b":"
        at = lowered.find(prefix)
        if at < 0:
            return None
        begin = at + len(prefix)
        if lowered.find(prefix, begin) >= 0:
            return find_field(self.lines, name)
        end = lowered.find(b"\r\n", begin)
        return self.raw[begin : end if end >= 0 else len(lowered)].strip(b" \t")


def find_field(lines: Sequence[bytes], name: bytes) -> bytes | None:
    """Return a field's value by lower-case name; several are joined to a list; None if absent."""
    prefix = name + b":"
    size = len(prefix)
    values = [line[size:].strip(b" \t") for line in lines if line[:size].lower() == prefix]
    if not values:
        return None
    return values[0] if len(values) == 1 else (b"; " if name == b"cookie" else b", ").join(values)


def is_valid_id(value: bytes) -> bool:
    """Return whether a request id may be forwarded and logged."""
    return _ID.fullmatch(value) is not None


def parse_request(raw: bytes, cache: FieldLineCache) -> RequestHead:
    """Parse a head: everything before the empty line.

    Raises BadMessage with the status and reason to answer.
    """
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
    special = cache.special
    lengths: list[bytes] = []
    encodings: list[bytes] = []
    for line in filterfalse(cache.plain.__contains__, lines):
        kind, value = special.get(line) or cache.classify(line)
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
        elif kind == fields.LOOP:
            _count_hops(head, value)
        else:
            head.unchanged = False
            _apply_field(head, kind, value, line, encodings)
    if version == b"HTTP/1.0":
        head.http10 = True
        head.takes_chunks = False
        head.request_line_unchanged = head.unchanged = False
        head.persistent = b"keep-alive" in head.options
    if head.options:
        _apply_connection(head)
    if lengths or encodings:
        _frame(head, lengths, encodings)
    if target[:1] != b"/" or _HASH in target:
        _apply_target_form(head)
    elif head.host is None and not head.http10:
        raise BadMessage(400, "no Host")
    if head.unchanged:
        head.upstream_head = raw
    else:
        _apply_upgrade_and_expect(head)
    return head


def _apply_field(
    head: RequestHead, kind: int, value: bytes, line: bytes, encodings: list[bytes]
) -> None:
    """Apply a field that has a meaning for this hop."""
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


def _count_hops(head: RequestHead, value: bytes) -> None:
    """Count this proxy's entries in a CDN-Loop field (RFC 8586). Raises BadMessage if there are too
    many: the request runs in a loop."""
    head.hops += [item.partition(b";")[0].rstrip() for item in split_list(value)].count(LOOP_NAME)
    if head.hops > limits.HOPS:
        raise BadMessage(508, f"the request has passed this proxy {limits.HOPS} times already")


def _apply_connection(head: RequestHead) -> None:
    """Set persistence, and drop the fields that Connection names: they are hop-by-hop."""
    options = head.options
    if b"close" in options:
        head.persistent = False
    names = {option for option in options if option not in fields.PROTECTED}
    names -= {b"close", b"keep-alive"}
    if names:
        head.drop += tuple(line for line in head.lines if line.partition(b":")[0].lower() in names)


def _frame(head: RequestHead, lengths: list[bytes], encodings: list[bytes]) -> None:
    """Set the body length. Raises BadMessage."""
    if len(lengths) > 1:
        raise BadMessage(400, "more than one Content-Length")
    if encodings:
        check_transfer_encoding(encodings, http10=head.http10, sized=bool(lengths))
        head.length = CHUNKED
    else:
        head.length = parse_content_length(lengths[0])
    if head.method == b"TRACE" and head.length:
        raise BadMessage(400, "a body in a TRACE request")


def _apply_upgrade_and_expect(head: RequestHead) -> None:
    """Apply the rules for Upgrade and Expect that need the whole head."""
    if b"upgrade" not in head.options or head.http10:
        head.upgrade = ()
    # Requests inside an HTTP/2 tunnel would bypass every rule that is applied here.
    head.upgrade = tuple(
        name for name in head.upgrade if not name.lower().startswith((b"h2", b"http"))
    )
    if head.http10 or not head.length:
        head.expect = False


def _apply_target_form(head: RequestHead) -> None:
    """Handle targets in absolute, authority and asterisk form (RFC 9112, section 3.2)."""
    target = head.target
    if head.method == b"CONNECT":
        raise BadMessage(405, "CONNECT is not supported")
    if head.host is None and not head.http10:
        raise BadMessage(400, "no Host")
    if target == b"*":
        if head.method != b"OPTIONS":
            raise BadMessage(400, "a target in asterisk form")
        return
    found = _ABSOLUTE.fullmatch(target)
    if _HASH in target or not found:
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
    """Check a request line with another version than HTTP/1.1 or an unknown method.

    Raises BadMessage.
    """
    if version not in (b"HTTP/1.1", b"HTTP/1.0"):
        if re.fullmatch(rb"HTTP/[0-9]\.[0-9]", version):
            raise BadMessage(505, "an HTTP version that is not supported")
        raise bad_request_line(start)
    if method not in _KNOWN_METHODS:
        if not method or method.translate(fields.NOT_TOKEN) != method:
            raise BadMessage(400, "a malformed method")
        if len(method) > _MAX_METHOD:
            raise BadMessage(501, "a method that is too long")
        if method == b"CONNECT":
            raise BadMessage(405, "CONNECT is not supported")
