"""Code shared by request and response templates: split a head at the values that vary. Pure.

Called by `request_template` and `response_template`.
"""

from collections.abc import Sequence
from typing import Final

MAX_HEAD: Final = 8 * 1024
"""Bytes. Longer heads get no template, so every head that matches one is within `limits`."""
MAX_VARIABLE_LINES: Final = 6
"""Lines with a variable value in one template. Each costs a search; with more, parsing the head
costs about the same."""
MAX_LENGTH_DIGITS: Final = 9
"""Digits of a Content-Length in a template; longer ones are parsed with their full checks."""
CRLF: Final = b"\r\n"
_VERSION: Final = b"HTTP/1.1\r\n"


def split_at_values(
    lines: Sequence[bytes],
    variable_lines: frozenset[int],
    begin: bytes = _VERSION,
    end: bytes = CRLF,
) -> tuple[bytes, ...]:
    """Return the constant pieces of a head, split at the values of `variable_lines`.

    The head is `begin`, the lines, and `end`. With the defaults it is a request head after the
    target, with the empty line.
    """
    pieces: list[bytes] = []
    piece = begin
    for index, line in enumerate(lines):
        if index in variable_lines:
            pieces.append(piece + line[: line.find(b":") + 1])
            piece = CRLF
        else:
            piece += line + CRLF
    return (*pieces, piece + end)


def field_name(line: bytes) -> bytes:
    """Return the name of a field line, as written."""
    return line[: line.find(b":")]


def parse_length(value: bytes) -> int:
    """Return a Content-Length in canonical form; 0 if it is zero or anything else."""
    digits = value.strip(b" \t")
    if digits[:1] == b"0" or not digits.isdigit() or len(digits) > MAX_LENGTH_DIGITS:
        return 0
    return int(digits)
