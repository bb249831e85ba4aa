"""Checks on incomplete heads: refuse early what can no longer become a valid message. Pure.

Called by `proxy.request.downstream` and `upstream` while a head is incomplete: the end of a
broken head may never arrive.
"""

from proxy.http1 import limits
from proxy.http1.fields import BadMessage


def check_partial(data: bytes) -> None:
    """Raise BadMessage if an incomplete head can no longer become valid.

    For example, a head with lines that end in a bare LF would wait for an end that never comes.
    """
    if data.count(b"\n") != data.count(b"\r\n"):
        raise BadMessage(400, "a line that does not end in CRLF")
    if data.count(b"\r") - data.endswith(b"\r") != data.count(b"\r\n"):
        raise BadMessage(400, "a bare CR")
    if b"\0" in data:
        raise BadMessage(400, "a NUL byte")


def check_first_line(data: bytes) -> None:
    """Raise BadMessage if the first line of an incomplete request has no HTTP version.

    An HTTP/0.9 request is that line alone; its client would wait for the response.
    """
    line, end, _ = data.partition(b"\r\n")
    if end and line and not line[-8:].startswith(b"HTTP/"):
        raise bad_request_line(line)


def check_request_size(data: bytes) -> None:
    """Raise BadMessage if a request head, complete or not, exceeds its size limits."""
    if len(data) > limits.REQUEST_LINE and data.find(b"\r\n", 0, limits.REQUEST_LINE + 2) < 0:
        raise BadMessage(414, "a request line that is too long")
    if len(data) > limits.REQUEST_HEAD:
        raise BadMessage(431, "a request head that is too long")


def bad_request_line(line: bytes) -> BadMessage:
    """Return the error for a request line that does not have three parts, or has no version."""
    if len(line) > limits.REQUEST_LINE:
        return BadMessage(414, "a request line that is too long")
    return BadMessage(400, "a malformed request line")
