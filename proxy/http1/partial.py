"""Heads that are not all there yet: what can be refused before their end comes, which a broken one
might never have."""

from proxy.http1 import limits
from proxy.http1.fields import BadMessage


def check_partial(data: bytes) -> None:
    """Raises BadMessage when an unfinished head can no longer become a good one.

    A line that ends in a bare LF would otherwise wait for an end that never comes.
    """
    if data.count(b"\n") != data.count(b"\r\n"):
        raise BadMessage(400, "a line that does not end in CRLF")
    if data.count(b"\r") - data.endswith(b"\r") != data.count(b"\r\n"):
        raise BadMessage(400, "a bare CR")
    if b"\0" in data:
        raise BadMessage(400, "a NUL byte")


def check_first_line(data: bytes) -> None:
    """Raises BadMessage when an unfinished request's first line is there, and has no version:
    HTTP/0.9 had nothing but that line, and would wait for its answer."""
    line, end, _ = data.partition(b"\r\n")
    if end and line and not line[-8:].startswith(b"HTTP/"):
        raise bad_request_line(line)


def check_request_size(data: bytes) -> None:
    """Raises BadMessage when a request head, finished or not, is over its bounds already."""
    if len(data) > limits.REQUEST_LINE and data.find(b"\r\n", 0, limits.REQUEST_LINE + 2) < 0:
        raise BadMessage(414, "a request line that is too long")
    if len(data) > limits.REQUEST_HEAD:
        raise BadMessage(431, "a request head that is too long")


def bad_request_line(start: bytes) -> BadMessage:
    """What is wrong with a request line that has not three parts, or no version."""
    if len(start) > limits.REQUEST_LINE:
        return BadMessage(414, "a request line that is too long")
    return BadMessage(400, "a malformed request line")
