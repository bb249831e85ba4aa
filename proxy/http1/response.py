"""Response heads: parse and validate the bytes before the empty line (RFC 9112, section 4). Pure.

Called by `proxy.state.head_cache` for heads that are not cached and match no template.
"""

import re
from itertools import filterfalse
from typing import Final

from proxy.http1 import fields, limits
from proxy.http1.fields import BadMessage, FieldLineCache, split_field, split_list
from proxy.http1.framing import (
    UNTIL_CLOSE,
    check_transfer_encoding,
    parse_content_length,
    response_body_length,
)
from proxy.http1.request import via_line

_STATUS_LINE: Final = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9][0-9])(?: [\t\x20-\x7e\x80-\xff]*)?")
_KEEP_ALIVE_TIMEOUT: Final = re.compile(rb"(?:^|[,; ])timeout=([0-9]{1,6})", re.IGNORECASE)
"""Seconds in a Keep-Alive field (RFC 2068, section 19.7.1.1)."""


class ResponseHead:
    """A response head that has exactly one reading. Not changed after parsing; it may be cached.

    - `status`: status code
    - `chunked`: whether the body is chunked
    - `content_length`: value of Content-Length; None without one
    - `body_length`: body length unless the request was HEAD (see `response_body_length`)
    - `persistent`: whether the origin keeps the connection open
    - `keep_alive_timeout`: how long it keeps it open when idle, in seconds; 0.0 if not given
    - `is_event_stream`: whether the content is `text/event-stream`
    - `upgrade`: lower-case protocols of an Upgrade field
    - `fast_path_ok`: whether it needs no further decision
    - `client_head`: the head to forward to an HTTP/1.1 client that keeps the connection open
    - `added_size`: bytes at the end of `client_head` that this hop added
    """

    __slots__ = (
        "added_size",
        "body_length",
        "chunked",
        "client_head",
        "content_length",
        "fast_path_ok",
        "http10",
        "is_event_stream",
        "keep_alive_timeout",
        "persistent",
        "status",
        "upgrade",
    )

    def __init__(self, status: int, *, http10: bool) -> None:
        self.status = status
        self.http10 = http10
        self.body_length = 0
        self.client_head = b""
        self.added_size = 0
        self.chunked = False
        self.content_length: int | None = None
        self.persistent = not http10
        self.is_event_stream = False
        self.keep_alive_timeout = 0.0
        self.upgrade: tuple[bytes, ...] = ()
        self.fast_path_ok = False

    @property
    def kept_head(self) -> bytes:
        """The forwarded part of the origin's head, without the lines that this hop adds."""
        return self.client_head[: -self.added_size]


def parse_response(raw: bytes, cache: FieldLineCache) -> ResponseHead:
    """Parse a head: everything before the empty line. Raises BadMessage."""
    if len(raw) > limits.RESPONSE_HEAD:
        raise BadMessage(502, "a response head that is too long")
    lines = raw.split(b"\r\n")
    start = lines.pop(0)
    found = _STATUS_LINE.fullmatch(start)
    if not found:
        raise BadMessage(502, "a malformed status line")
    if len(lines) > limits.RESPONSE_FIELDS:
        raise BadMessage(502, "too many header fields in a response")
    head = ResponseHead(int(found[2]), http10=found[1] == b"0")
    drop: list[bytes] = []
    lengths: list[bytes] = []
    encodings: list[bytes] = []
    options: list[bytes] = []
    for line in filterfalse(cache.plain.__contains__, lines):
        kind, value = cache.special.get(line) or cache.classify(line)
        if kind == fields.CONTENT_LENGTH:
            lengths.append(value)
        elif kind == fields.EVENT_STREAM:
            head.is_event_stream = True
        elif kind:
            drop.append(line)
            if kind == fields.TRANSFER_ENCODING:
                encodings.append(value)
            elif kind == fields.CONNECTION:
                options += split_list(value)
            elif kind == fields.UPGRADE:
                head.upgrade += tuple(split_list(value))
            elif kind == fields.KEEP_ALIVE:
                timeout = _KEEP_ALIVE_TIMEOUT.search(value)
                head.keep_alive_timeout = float(timeout[1]) if timeout else 0.0
    _frame_response(head, lengths, encodings)
    if options:
        head.persistent = b"close" not in options and (not head.http10 or b"keep-alive" in options)
        drop += _lines_named_by(options, lines)
    if lengths and (head.status == 204 or head.status < 200):
        drop += [line for line in lines if line[:15].lower() == b"content-length:"]
    head.body_length = response_body_length(
        status=head.status, chunked=head.chunked, length=head.content_length
    )
    if drop:
        lines = [line for line in lines if line not in drop]
    required = [name for name in head.upgrade if not name.startswith((b"h2", b"http"))]
    if head.status == 426 and required:
        # The client needs the required protocols (RFC 9110, section 15.5.22); tunnels carry them.
        lines += [b"Connection: Upgrade", b"Upgrade: " + b", ".join(required)]
    if head.http10:
        start = b"HTTP/1.1" + start[8:]
    framing = (
        b"Transfer-Encoding: chunked\r\n" if head.chunked and head.status not in (204, 304) else b""
    )
    added = framing + via_line(http10=head.http10) + b"\r\n"
    head.client_head = b"\r\n".join([start, *lines, added])
    head.added_size = len(added)
    head.fast_path_ok = (
        200 <= head.status < 500
        and head.persistent
        and head.body_length != UNTIL_CLOSE
        and not head.is_event_stream
    )
    return head


def _frame_response(head: ResponseHead, lengths: list[bytes], encodings: list[bytes]) -> None:
    """Set Content-Length and `chunked`. Raises BadMessage."""
    if len(lengths) > 1:
        raise BadMessage(502, "more than one Content-Length in a response")
    if lengths:
        head.content_length = parse_content_length(lengths[0])
    if encodings:
        check_transfer_encoding(encodings, http10=head.http10, sized=bool(lengths))
        head.chunked = True
    if head.status == 204 and (head.chunked or head.content_length):
        head.persistent = False


def _lines_named_by(options: list[bytes], lines: list[bytes]) -> list[bytes]:
    """Return the field lines that the connection options name: they are hop-by-hop."""
    names = set(options) - fields.PROTECTED - {b"close", b"keep-alive"}
    if not names:
        return []
    return [line for line in lines if split_field(line)[0] in names]
