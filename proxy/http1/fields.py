"""Field lines: validate and classify them, with a bounded cache of lines seen before. Pure.

Used by the head parsers `request` and `response`; `proxy.state.head_cache` owns the caches. A
head is split into lines once. Most lines are the same in the next request and need no treatment;
a lookup in a set of such lines finds them at the cost of a hash. The others (Host, a length, a
new line) are classified by name.
"""

import re
from ipaddress import IPv6Address
from typing import Final

from proxy.http1 import limits

TOKEN_BYTES: Final = (
    b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
)
"""`tchar` of RFC 9110, section 5.6.2."""
VALUE_BYTES: Final = b"\t" + bytes(range(0x20, 0x7F)) + bytes(range(0x80, 0x100))
"""`field-content` of RFC 9110, section 5.5: no control bytes but the tab."""
VISIBLE_BYTES: Final = bytes(range(0x21, 0x7F))
"""`VCHAR` of RFC 5234: printable ASCII without the space."""


def translation_table(allowed: bytes) -> bytes:
    """Return a table for `bytes.translate` that changes every byte that is not allowed.

    Bytes that it leaves unchanged are all allowed. This check costs a fifth of deleting the
    allowed bytes and testing whether any are left.
    """
    return bytes(byte if byte in allowed else int(not byte) for byte in range(256))


NOT_TOKEN: Final = translation_table(TOKEN_BYTES)
NOT_VALUE: Final = translation_table(VALUE_BYTES)
NOT_VISIBLE: Final = translation_table(VISIBLE_BYTES)

# Field kinds: the meaning of a field for a proxy.
PLAIN: Final = 0
"""Forwarded unchanged."""
DROP: Final = 1
"""Hop-by-hop: not forwarded."""
# Fields that the proxy reads.
HOST: Final = 2
"""Checked, and kept as the host of the request."""
CONTENT_LENGTH: Final = 3
"""Checked; frames the body."""
TRANSFER_ENCODING: Final = 4
"""Hop-by-hop; frames the body."""
CONNECTION: Final = 5
"""Hop-by-hop; names further fields that are."""
UPGRADE: Final = 6
"""Forwarded only if Connection names it."""
EXPECT: Final = 7
"""Checked; `100-continue` is forwarded."""
FORWARDED: Final = 8
"""About earlier hops: forwarded only from a trusted proxy."""
REQUEST_ID: Final = 9
"""Kept if valid; else replaced."""
MAX_FORWARDS: Final = 10
"""Decremented, for OPTIONS and TRACE."""
KEEP_ALIVE: Final = 11
"""Hop-by-hop; has the timeout of an idle connection."""
EVENT_STREAM: Final = 12
"""Content-Type of an event stream; forwarded unchanged."""
LOOP: Final = 13
"""Names this proxy for each time that it forwarded the request; counted, forwarded unchanged."""

_HOP_BY_HOP: Final = {
    b"connection": CONNECTION,
    b"content-length": CONTENT_LENGTH,
    b"keep-alive": KEEP_ALIVE,
    b"proxy-connection": DROP,
    b"te": DROP,
    b"transfer-encoding": TRANSFER_ENCODING,
    b"upgrade": UPGRADE,
}
REQUEST_KINDS: Final = _HOP_BY_HOP | {
    b"cdn-loop": LOOP,
    b"expect": EXPECT,
    b"forwarded": FORWARDED,
    b"host": HOST,
    b"http2-settings": DROP,
    b"max-forwards": MAX_FORWARDS,
    # CGI programs would read it as the variable HTTP_PROXY (httpoxy, CVE-2016-5385).
    b"proxy": DROP,
    b"proxy-authorization": DROP,
    b"x-forwarded-client-cert": FORWARDED,
    b"x-forwarded-for": FORWARDED,
    b"x-forwarded-host": FORWARDED,
    b"x-forwarded-port": FORWARDED,
    b"x-forwarded-prefix": FORWARDED,
    b"x-forwarded-proto": FORWARDED,
    b"x-forwarded-scheme": FORWARDED,
    b"x-forwarded-server": FORWARDED,
    b"x-forwarded-ssl": FORWARDED,
    b"x-real-ip": FORWARDED,
    b"x-request-id": REQUEST_ID,
}
RESPONSE_KINDS: Final = _HOP_BY_HOP | {
    b"content-type": EVENT_STREAM,
    b"proxy-authenticate": DROP,
    b"proxy-authentication-info": DROP,
}

# Connection must not remove these fields: they belong to this hop or frame the message, and
# removing them on a client's request is a known attack.
PROTECTED: Final = frozenset((*REQUEST_KINDS, b"via", b"traceparent", b"tracestate"))

# Not allowed in trailers (RFC 9110, section 6.5.1): what frames, routes or authenticates a
# message must be in its head.
NOT_IN_TRAILERS: Final = PROTECTED | {
    b"authorization",
    b"cache-control",
    b"content-encoding",
    b"content-range",
    b"content-type",
    b"cookie",
    b"proxy-authenticate",
    b"range",
    b"set-cookie",
    b"trailer",
    b"www-authenticate",
}

MAX_CACHED_LINES: Final = 4096
"""Lines per cache; with MAX_CACHED_LINE this limits a cache to 4 MiB."""
MAX_CACHED_LINE: Final = 1024
"""Bytes. Longer lines (cookies, tokens) are not cached."""
MAX_VALUES_PER_FIELD: Final = 64
"""Cached values of one field. A field with more is treated as one with a new value each time."""

LineKind = tuple[int, bytes]
"""Kind and value of a field line."""
_PLAIN_LINE: Final[LineKind] = (PLAIN, b"")
_HOST: Final = re.compile(
    rb"(?:[A-Za-z0-9._~!$&'()*+;=-]|%[0-9A-Fa-f]{2})*(?::[0-9]{0,5})?"
    rb"|\[[0-9A-Fa-f:.]+\](?::[0-9]{0,5})?"
)
_EVENT_STREAM: Final = re.compile(rb"text/event-stream[ \t]*(;|$)", re.IGNORECASE)


class BadMessage(Exception):
    """A message that must be refused.

    - `status`: status code of the answer; not used for responses (the client gets 502)
    - `reason`: short text for the answer and the log
    """

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


class FieldLineCache:
    """Cache of lines that were classified before and are well formed.

    - `plain`: lines that are forwarded unchanged
    - `special`: kind and value of the others

    A field with a new value in every message (an id, a date) is not cached beyond
    `MAX_VALUES_PER_FIELD` values, so that it cannot evict lines that recur. `refresh` lets it be
    cached again.
    """

    def __init__(self, kinds: dict[bytes, int]) -> None:
        self.plain: set[bytes] = set()
        self.special: dict[bytes, LineKind] = {}
        self._kinds = kinds
        self._value_counts: dict[bytes, int] = {}
        self._uncached: set[bytes] = set()

    def classify(self, line: bytes) -> LineKind:
        """Return the kind and value of a line. Raises BadMessage if it is not a field line."""
        colon = line.find(b":")
        if colon > 0 and line[:colon] in self._uncached and len(line) <= limits.FIELD_LINE:
            if line.translate(NOT_VALUE) != line:
                raise BadMessage(400, "a control byte in a header field")
            return _PLAIN_LINE
        if len(line) > limits.FIELD_LINE:
            raise BadMessage(431, "a header field is too long")
        name, value = split_field(line)
        kind = self._kinds.get(name, PLAIN)
        if b"_" in name and kind == PLAIN:
            # Gateways that turn fields into variables (CGI, WSGI) read _ and - as the same.
            alias = name.replace(b"_", b"-")
            kind = DROP if alias in self._kinds and alias != b"content-type" else PLAIN
        if kind == EVENT_STREAM and not _EVENT_STREAM.match(value):
            kind = PLAIN
        if kind == HOST:
            check_host(value)
        classified = (kind, value) if kind else _PLAIN_LINE
        if len(line) <= MAX_CACHED_LINE:
            self._store(name, line, classified)
        return classified

    def refresh(self) -> None:
        """Reset the counts of values per field. Call it about once a minute."""
        self._value_counts.clear()
        self._uncached.clear()

    def _store(self, name: bytes, line: bytes, classified: LineKind) -> None:
        count = self._value_counts.get(name, 0)
        if count >= MAX_VALUES_PER_FIELD:
            # Not for fields whose value decides their kind: the next value may have a meaning.
            if classified[0] == PLAIN and name not in self._kinds:
                if len(self._uncached) >= MAX_CACHED_LINES:
                    self._uncached.clear()
                self._uncached.add(line[: line.find(b":")])
            return
        if len(self.plain) + len(self.special) >= MAX_CACHED_LINES:
            self.plain.clear()
            self.special.clear()
        if len(self._value_counts) >= MAX_CACHED_LINES:
            self.refresh()
        self._value_counts[name] = count + 1
        if classified[0] == PLAIN:
            self.plain.add(line)
        else:
            self.special[line] = classified


def split_field(line: bytes) -> tuple[bytes, bytes]:
    """Return the lower-case name and the value of a field line. Raises BadMessage."""
    name, colon, value = line.partition(b":")
    if not colon or not name or name.translate(NOT_TOKEN) != name:
        if line[:1] in (b" ", b"\t"):
            raise BadMessage(400, "a folded header line")
        raise BadMessage(400, "a malformed header field name")
    if value.translate(NOT_VALUE) != value:
        raise BadMessage(400, "a control byte in a header field")
    return name.lower(), value.strip(b" \t")


def check_host(value: bytes) -> None:
    """Raise BadMessage if a Host value is not a host with an optional port."""
    valid = bool(_HOST.fullmatch(value))
    if valid and value[:1] == b"[":
        try:
            IPv6Address(value[1 : value.index(b"]")].decode())
        except ValueError:
            valid = False
    if not valid:
        raise BadMessage(400, "a malformed Host")


def split_list(value: bytes) -> list[bytes]:
    """Return the lower-case items of a comma-separated list, without empty ones."""
    return [item for item in (part.strip(b" \t") for part in value.lower().split(b",")) if item]
