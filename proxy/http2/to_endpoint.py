"""HTTP/1.1 request heads as fields of HTTP/2, and response fields as heads of HTTP/1.1. Pure.

`proxy.http2_upstream` translates what it sends to endpoints and what it reads from them. Requests
come from the proxy's own writer, so they are valid. Responses are read by the parser of
`proxy.http1` after the translation, like all others.
"""

from collections.abc import Sequence
from typing import Final

from proxy.http1.fields import NOT_IN_TRAILERS, NOT_VALUE, BadMessage

Field = tuple[bytes, bytes]
"""Name and value."""
_DROPPED: Final = frozenset(
    (
        b"host",
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"te",
        b"transfer-encoding",
        b"upgrade",
    )
)
"""Fields of a connection of HTTP/1.1 (RFC 9113, section 8.2.2), and Host, which `:authority`
replaces."""
GRPC_TYPE: Final = b"application/grpc"
"""Beginning of the content type of gRPC."""
_TRAILERS: Final = (b"te", b"trailers")
"""What gRPC requires of each request: all hops between understand trailers."""
_CHUNKED: Final = b"Transfer-Encoding: chunked"
_BLANKS: Final = b" \t"
UNSIZED: Final = -1
"""Body length of a request that is sent in chunks."""


class Http2Request:
    """A request for an endpoint.

    - `fields`: its fields.
    - `length`: bytes of its body; UNSIZED if it is sent in chunks.
    """

    __slots__ = ("fields", "length")

    def __init__(self, fields: list[Field], length: int) -> None:
        self.fields = fields
        self.length = length


def translate_request(head: bytes, scheme: bytes, authority: bytes) -> Http2Request:
    """Return the request whose head is `head`, without the empty line. `authority` names the
    endpoint, for a request of HTTP/1.0 without Host."""
    lines = head.split(b"\r\n")
    method, target, _ = lines[0].split(b" ", 2)
    fields: list[Field] = [
        (b":method", method),
        (b":scheme", scheme),
        (b":authority", authority),
        (b":path", target),
    ]
    length = 0
    for index in range(1, len(lines)):
        name, _, value = lines[index].partition(b":")
        name = name.lower()
        value = value.strip(_BLANKS)
        if name in _DROPPED:
            if name == b"host":
                fields[2] = (b":authority", value)
            elif name == b"transfer-encoding":
                length = UNSIZED
            continue
        if name == b"content-length":
            length = int(value)
        elif name == b"content-type" and value.startswith(GRPC_TYPE):
            fields.append(_TRAILERS)
        fields.append((name, value))
    return Http2Request(fields, length)


def translate_response(fields: Sequence[Field], length: int | None, *, bodyless: bool) -> bytes:
    """Return the head of a response, without the empty line. Raises BadMessage.

    `length` is that of a body that has arrived whole; None if more follows. Without a
    Content-Length, a body that has not arrived is to be passed on in chunks. `bodyless` says that
    the request was HEAD.
    """
    status = b""
    lines = []
    is_sized = bodyless
    for name, value in fields:
        if name == b":status":
            status = value
            continue
        if name == b"content-length":
            is_sized = True
        elif name in _DROPPED and name != b"host":
            raise BadMessage(502, "a field that only connections of HTTP/1.1 have")
        lines.append(name + b": " + value)
    if not is_sized and not status.startswith(b"1"):
        if length is None:
            lines.append(_CHUNKED)
        elif status not in (b"204", b"304"):
            lines.append(b"Content-Length: %d" % length)
    raw = b"\r\n".join((b"HTTP/1.1 " + status + b" ", *lines))
    if raw.count(b"\r") != len(lines) or raw.count(b"\n") != len(lines):
        raise BadMessage(502, "a control byte in a header field")
    return raw


def translate_trailers(fields: Sequence[Field]) -> bytes:
    """Return the field lines to send behind a body. Raises BadMessage.

    As in HTTP/1.1, fields that frame, route or authenticate a message are dropped.
    """
    lines = []
    for name, value in fields:
        if value.translate(NOT_VALUE) != value:
            raise BadMessage(502, "a malformed trailer field")
        if name.replace(b"_", b"-") not in NOT_IN_TRAILERS:
            lines.append(name + b": " + value + b"\r\n")
    return b"".join(lines)


def split_trailers(lines: bytes) -> list[Field]:
    """Return the fields of field lines behind a body."""
    fields: list[Field] = []
    for line in lines.split(b"\r\n"):
        name, colon, value = line.partition(b":")
        if colon:
            fields.append((name.lower(), value.strip(_BLANKS)))
    return fields
