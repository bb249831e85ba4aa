"""What request and response templates share: cutting a head at the values that differ. Pure."""

from collections.abc import Sequence
from typing import Final

MAX_HEAD: Final = 8 * 1024
"""Heads beyond this many bytes have no shape; the bounds of their parts are then kept too."""


MAX_VARIABLE_LINES: Final = 6


_LENGTH_DIGITS: Final = 9


CRLF: Final = b"\r\n"


_VERSION: Final = b"HTTP/1.1\r\n"


def split_at_values(
    lines: Sequence[bytes], gaps: frozenset[int], begin: bytes = _VERSION, end: bytes = CRLF
) -> tuple[bytes, ...]:
    """Lines between `begin` and `end`, cut where the values of those in `gaps` stand; without
    these two all of a request's head behind its target."""
    pieces: list[bytes] = []
    piece = begin
    for place, line in enumerate(lines):
        if place in gaps:
            pieces.append(piece + line[: line.find(b":") + 1])
            piece = CRLF
        else:
            piece += line + CRLF
    return (*pieces, piece + end)


def field_name(line: bytes) -> bytes:
    """A field line's name, as it is written."""
    return line[: line.find(b":")]


def parse_length(value: bytes) -> int:
    """What a Content-Length says that is written as usual and not nothing; else 0."""
    digits = value.strip(b" \t")
    if digits[:1] == b"0" or not digits.isdigit() or len(digits) > _LENGTH_DIGITS:
        return 0
    return int(digits)
