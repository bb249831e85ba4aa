"""Header fields as lines: what a line is, and a bounded memory of lines seen before.

A head is split into lines once. Nearly all of them recur from request to request and need
nothing done to them; a set of such lines tells them apart at the price of a hash. What is left
(a Host, a length, a line never seen) is read by its name.
"""

import re
from ipaddress import IPv6Address
from typing import Final

from proxy.http1 import limits

TOKEN_BYTES: Final = (
    b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
)
VALUE_BYTES: Final = b"\t" + bytes(range(0x20, 0x7F)) + bytes(range(0x80, 0x100))
VISIBLE_BYTES: Final = bytes(range(0x21, 0x7F))


def translation_table(allowed: bytes) -> bytes:
    """A table for `bytes.translate` that changes every byte but those allowed: what it leaves
    as it is holds no others. A fifth of the cost of deleting them and seeing what is left."""
    return bytes(byte if byte in allowed else int(not byte) for byte in range(256))


NOT_TOKEN: Final = translation_table(TOKEN_BYTES)
NOT_VALUE: Final = translation_table(VALUE_BYTES)
NOT_VISIBLE: Final = translation_table(VISIBLE_BYTES)

# What a field means to a proxy. PLAIN goes on untouched, DROP goes no further than this hop.
PLAIN: Final = 0
DROP: Final = 1
HOST: Final = 2
CONTENT_LENGTH: Final = 3
TRANSFER_ENCODING: Final = 4
CONNECTION: Final = 5
UPGRADE: Final = 6
EXPECT: Final = 7
FORWARDED: Final = 8
REQUEST_ID: Final = 9
MAX_FORWARDS: Final = 10
KEEP_ALIVE: Final = 11
EVENT_STREAM: Final = 12

_HOP: Final = {
    b"connection": CONNECTION,
    b"content-length": CONTENT_LENGTH,
    b"keep-alive": KEEP_ALIVE,
    b"proxy-connection": DROP,
    b"te": DROP,
    b"transfer-encoding": TRANSFER_ENCODING,
    b"upgrade": UPGRADE,
}
REQUEST_KINDS: Final = _HOP | {
    b"expect": EXPECT,
    b"forwarded": FORWARDED,
    b"host": HOST,
    b"http2-settings": DROP,
    b"max-forwards": MAX_FORWARDS,
    b"proxy-authorization": DROP,
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
RESPONSE_KINDS: Final = _HOP | {
    b"content-type": EVENT_STREAM,
    b"proxy-authenticate": DROP,
    b"proxy-authentication-info": DROP,
}

# Naming these in Connection must not take them from the next hop: they are this hop's own, or
# frame the message, and removing them on request is a known attack.
PROTECTED: Final = frozenset((*REQUEST_KINDS, b"via", b"traceparent", b"tracestate"))

# In trailers: what frames, routes or authenticates a message must stand in its head.
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
MAX_CACHED_LINE: Final = 1024
MAX_VALUES_PER_FIELD: Final = 64

LineKind = tuple[int, bytes]
_PLAIN_LINE: Final[LineKind] = (PLAIN, b"")
_HOST: Final = re.compile(
    rb"(?:[A-Za-z0-9._~!$&'()*+;=-]|%[0-9A-Fa-f]{2})*(?::[0-9]{0,5})?"
    rb"|\[[0-9A-Fa-f:.]+\](?::[0-9]{0,5})?"
)
_EVENT_STREAM: Final = re.compile(rb"text/event-stream[ \t]*(;|$)", re.IGNORECASE)


class BadMessage(Exception):
    """A message that cannot be taken, with the status to answer and the reason in a few words.

    In a response the status does not matter: the origin's fault is 502.
    """

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


class FieldLineCache:
    """Lines that were read before and are known to be well formed.

    `plain` holds those that go on untouched, `special` what the others are. A field whose
    value differs from message to message (an id, a date) stops being remembered after
    `VARIETY` values, so that it cannot push out the ones that recur; `refresh` gives it
    another chance.
    """

    def __init__(self, kinds: dict[bytes, int]) -> None:
        self.plain: set[bytes] = set()
        self.special: dict[bytes, LineKind] = {}
        self._kinds = kinds
        self._variety: dict[bytes, int] = {}
        self._varied: set[bytes] = set()

    def classify(self, line: bytes) -> LineKind:
        """What a line is. Raises BadMessage when it is not a field line."""
        cut = line.find(b":")
        if cut > 0 and line[:cut] in self._varied and len(line) <= limits.FIELD_LINE:
            if line.translate(NOT_VALUE) != line:
                raise BadMessage(400, "a control byte in a header field")
            return _PLAIN_LINE
        if len(line) > limits.FIELD_LINE:
            raise BadMessage(431, "a header field is too long")
        name, value = split_field(line)
        kind = self._kinds.get(name, PLAIN)
        if b"_" in name and kind == PLAIN:
            # Gateways that make variables of fields (CGI, WSGI) take _ and - for the same.
            twin = name.replace(b"_", b"-")
            kind = DROP if twin in self._kinds and twin != b"content-type" else PLAIN
        if kind == EVENT_STREAM and not _EVENT_STREAM.match(value):
            kind = PLAIN
        if kind == HOST:
            check_host(value)
        known = (kind, value) if kind else _PLAIN_LINE
        if len(line) <= MAX_CACHED_LINE:
            self._remember(name, line, known)
        return known

    def refresh(self) -> None:
        """Forgets which fields vary; to be called every minute or so."""
        self._variety.clear()
        self._varied.clear()

    def _remember(self, name: bytes, line: bytes, known: LineKind) -> None:
        seen = self._variety.get(name, 0)
        if seen >= MAX_VALUES_PER_FIELD:
            # Not where the value decides: one more of them may be the one that means something.
            if known[0] == PLAIN and name not in self._kinds:
                if len(self._varied) >= MAX_CACHED_LINES:
                    self._varied.clear()
                self._varied.add(line[: line.find(b":")])
            return
        if len(self.plain) + len(self.special) >= MAX_CACHED_LINES:
            self.plain.clear()
            self.special.clear()
        if len(self._variety) >= MAX_CACHED_LINES:
            self.refresh()
        self._variety[name] = seen + 1
        if known[0] == PLAIN:
            self.plain.add(line)
        else:
            self.special[line] = known


def split_field(line: bytes) -> tuple[bytes, bytes]:
    """The lower-case name and the value of a field line. Raises BadMessage."""
    name, colon, value = line.partition(b":")
    if not colon or not name or name.translate(NOT_TOKEN) != name:
        if line[:1] in (b" ", b"\t"):
            raise BadMessage(400, "a folded header line")
        raise BadMessage(400, "a malformed header field name")
    if value.translate(NOT_VALUE) != value:
        raise BadMessage(400, "a control byte in a header field")
    return name.lower(), value.strip(b" \t")


def check_host(value: bytes) -> None:
    """Raises BadMessage when a Host value is not a host with an optional port."""
    good = bool(_HOST.fullmatch(value))
    if good and value[:1] == b"[":
        try:
            IPv6Address(value[1 : value.index(b"]")].decode())
        except ValueError:
            good = False
    if not good:
        raise BadMessage(400, "a malformed Host")


def split_list(value: bytes) -> list[bytes]:
    """The lower-case members of a comma-separated list, empty ones left out."""
    return [item for item in (part.strip(b" \t") for part in value.lower().split(b",")) if item]
