"""Body framing (RFC 9112, section 6): how long a body is; anything ambiguous is refused. Pure.

Called by the head parsers `request` and `response`.
"""

from typing import Final

from proxy.http1 import limits
from proxy.http1.fields import BadMessage

CHUNKED: Final = -1
"""In place of a body length: the body is chunked."""
UNTIL_CLOSE: Final = -2
"""In place of a body length: the body ends with the connection."""


def parse_content_length(value: bytes) -> int:
    """Return the value of a Content-Length field. Raises BadMessage unless it is digits only."""
    if not value.isdigit() or len(value) > limits.CONTENT_LENGTH_DIGITS:
        raise BadMessage(400, "a malformed Content-Length")
    length = int(value)
    if length > limits.LARGEST_BODY:
        raise BadMessage(413, "a Content-Length that is too large")
    return length


def check_transfer_encoding(values: list[bytes], *, http10: bool, sized: bool) -> None:
    """Accept `chunked` alone; raise BadMessage for anything else.

    The proxy cannot decode another coding, and two recipients may read a message with two
    framings (`sized`: it has a Content-Length) as two different messages.
    """
    if sized:
        raise BadMessage(400, "both Content-Length and Transfer-Encoding")
    if http10:
        raise BadMessage(400, "Transfer-Encoding in an HTTP/1.0 message")
    if len(values) == 1 and values[0].lower() == b"chunked":
        return
    last = values[-1].lower().rpartition(b",")[2].strip(b" \t")
    all_codings = b",".join(values).lower()
    if last == b"chunked" and all_codings.count(b"chunked") == 1:
        raise BadMessage(501, "an unknown transfer coding")
    raise BadMessage(400, "a malformed Transfer-Encoding")


def is_same_authority(scheme: bytes, authority: bytes, host: bytes) -> bool:
    """Return whether a target's authority equals the Host field, ignoring the default port."""
    default = b":443" if scheme == b"https" else b":80"
    return authority.lower().removesuffix(default) == host.lower().removesuffix(default)


def response_body_length(*, status: int, chunked: bool, length: int | None) -> int:
    """Return the body length of a response to anything but HEAD.

    A number of bytes, CHUNKED or UNTIL_CLOSE. `length` is the Content-Length, None without one.
    """
    if status in (204, 304) or status < 200:
        return 0
    if chunked:
        return CHUNKED
    return UNTIL_CLOSE if length is None else length
