"""Response heads of HTTP/1.1 as fields of HTTP/2. Pure, apart from its bounded cache of lines.

`proxy.http2_downstream` translates every response that it sends. The heads come from
`proxy.http1.response` or from the proxy itself, so they are valid. What belongs to a connection of
HTTP/1.1 is left out.
"""

from typing import Final

from proxy.http1.fields import NOT_IN_TRAILERS

Field = tuple[bytes, bytes]
"""Name and value."""
MAX_LINES: Final = 4096
"""Cached lines."""
MAX_LINE: Final = 512
"""Bytes. Longer lines are not cached, so that the cache takes 4 MiB at most."""
MAX_HEAD: Final = 4096
"""Bytes of a head that is remembered, so that a large one is not kept for nothing."""
_DROPPED: Final = frozenset(
    (b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade")
)
"""Fields of a connection, which HTTP/2 forbids (RFC 9113, section 8.2.2)."""
SWITCHED: Final = b"101"
"""Status of a switch of protocols, which HTTP/2 does not have."""


class ResponseFields:
    """Translates response heads. All connections of a worker share it: most heads have the same
    lines."""

    def __init__(self) -> None:
        self._fields: dict[bytes, Field | None] = {}
        self._last_head = b""
        self._last: list[Field] = []

    def translate(self, head: bytes) -> list[Field]:
        """Return the fields of a head in the form of HTTP/1.1, with or without the empty line. The
        list is not changed by anyone: the next equal head has the same one."""
        if head == self._last_head:
            return self._last
        fields = self._translate(head)
        if len(head) <= MAX_HEAD:
            self._last_head, self._last = head, fields
        return fields

    def _translate(self, head: bytes) -> list[Field]:
        lines = head.split(b"\r\n")
        # The status line is `HTTP/1.1 200 OK`.
        status = lines[0][9:12]
        fields: list[Field] = [(b":status", status)]
        known = self._fields
        for index in range(1, len(lines)):
            line = lines[index]
            field = known.get(line)
            if field is None:
                if not line or line in known:
                    continue
                field = self._read(line)
                if field is None:
                    continue
            fields.append(field)
        return fields

    def _read(self, line: bytes) -> Field | None:
        """Return the field of a line; None if it is left out."""
        name, _, value = line.partition(b":")
        name = name.lower()
        field = None if name in _DROPPED else (name, value.strip(b" \t"))
        if len(line) <= MAX_LINE:
            if len(self._fields) >= MAX_LINES:
                self._fields.clear()
            self._fields[line] = field
        return field


def is_chunked(head: bytes) -> bool:
    """Return whether the body behind a head, as the proxy writes it, is chunked."""
    return b"\r\nTransfer-Encoding: chunked\r\n" in head


def accept_tunnel(fields: list[Field]) -> list[Field]:
    """Return the fields of a switch of protocols as those of a tunnel that is open (RFC 8441)."""
    kept = [field for field in fields if field[0] not in (b":status", b"sec-websocket-accept")]
    return [(b":status", b"200"), *kept]


def translate_trailers(lines: bytes) -> list[Field]:
    """Return the fields of field lines behind a body."""
    fields: list[Field] = []
    for line in lines.split(b"\r\n"):
        name, colon, value = line.partition(b":")
        name = name.lower()
        if colon and name not in NOT_IN_TRAILERS:
            fields.append((name, value.strip(b" \t")))
    return fields
