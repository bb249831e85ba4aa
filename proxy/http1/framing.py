"""How long is the body: the rules of RFC 9112, section 6, with everything doubtful refused."""

from typing import Final

from proxy.http1 import limits
from proxy.http1.fields import BadMessage

CHUNKED: Final = -1
UNTIL_CLOSE: Final = -2


def parse_content_length(value: bytes) -> int:
    """The value of a Content-Length field. Raises BadMessage for anything but digits."""
    if not value.isdigit() or len(value) > limits.CONTENT_LENGTH_DIGITS:
        raise BadMessage(400, "a malformed Content-Length")
    length = int(value)
    if length > limits.LARGEST_BODY:
        raise BadMessage(413, "a Content-Length beyond all bounds")
    return length


def check_transfer_encoding(values: list[bytes], *, http10: bool, sized: bool) -> None:
    """Accepts `chunked` alone. Raises BadMessage: what stands beside it cannot be undone here,
    and a message with two framings is two messages to two readers."""
    if sized:
        raise BadMessage(400, "both Content-Length and Transfer-Encoding")
    if http10:
        raise BadMessage(400, "Transfer-Encoding in an HTTP/1.0 message")
    if len(values) == 1 and values[0].lower() == b"chunked":
        return
    last = values[-1].lower().rpartition(b",")[2].strip(b" \t")
    whole = b",".join(values).lower()
    if last == b"chunked" and whole.count(b"chunked") == 1:
        raise BadMessage(501, "an unknown transfer coding")
    raise BadMessage(400, "a malformed Transfer-Encoding")


def is_same_authority(scheme: bytes, authority: bytes, host: bytes) -> bool:
    """Whether a target's authority and the Host field name the same, default port aside."""
    default = b":443" if scheme == b"https" else b":80"
    return authority.lower().removesuffix(default) == host.lower().removesuffix(default)


def response_body_length(*, status: int, chunked: bool, length: int | None) -> int:
    """What follows the head of a response that is not to a HEAD request: a number of bytes,
    CHUNKED or UNTIL_CLOSE."""
    if status in (204, 304) or status < 200:
        return 0
    if chunked:
        return CHUNKED
    return UNTIL_CLOSE if length is None else length
