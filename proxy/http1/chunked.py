"""Chunked bodies, read strictly and passed on as they are.

What is forwarded is the canonical form: bytes that already have it go through untouched, chunk
extensions are left out, nothing of a chunk line leaves before the whole line is known to be
good, and nothing of the end before all of it is there. So a broken body never looks complete to
the next hop, even to one that takes the last chunk alone for the end.
"""

import re
from typing import Final

from proxy.http1 import limits
from proxy.http1.fields import NOT_IN_TRAILERS, BadMessage, split_field

_SIZE: Final = 0
_DATA: Final = 1
_DATA_END: Final = 2
_TRAILER: Final = 3
_DONE: Final = 4
_LOWER_HEX: Final = b"0123456789abcdef"
_HEX: Final = _LOWER_HEX + b"ABCDEF"
LAST_CHUNK: Final = b"0\r\n\r\n"
_TOKEN: Final = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_QUOTED: Final = rb'"(?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t \x21-\x7e\x80-\xff])*"'
_EXTENSIONS: Final = re.compile(
    rb"(?:[ \t]*;[ \t]*" + _TOKEN + rb"(?:[ \t]*=[ \t]*(?:" + _TOKEN + rb"|" + _QUOTED + rb"))?)*"
)


class ChunkedReader:
    """Walks one chunked body. `feed` until `done`; `surplus` is what came after its end.

    With `raw` the output is chunked again, without it it is the content alone.
    """

    __slots__ = ("_end", "_held", "_left", "_raw", "_state", "_trailer_bytes", "done", "surplus")

    def __init__(self, *, raw: bool = True) -> None:
        self.done = False
        self.surplus = b""
        self._raw = raw
        self._held = b""
        self._end = b"0\r\n"
        self._left = 0
        self._state = _SIZE
        self._trailer_bytes = 0

    def feed(self, data: bytes) -> bytes:
        """The bytes to pass on now. Raises BadMessage at the first unclear byte."""
        if self._held:
            data = self._held + data
            self._held = b""
        out: list[bytes] = []
        position = 0
        size = len(data)
        while position < size and self._state != _DONE:
            if self._state == _DATA:
                piece = data[position : position + self._left]
                position += len(piece)
                self._left -= len(piece)
                out.append(piece)
                if not self._left:
                    self._state = _DATA_END
                continue
            end = data.find(b"\n", position)
            if end < 0:
                self._hold(data[position:])
                break
            line = data[position:end]
            if line[-1:] != b"\r":
                raise BadMessage(400, "a chunk line that does not end in CRLF")
            position = end + 1
            self._line(line[:-1], out)
        if self._state == _DONE:
            self.done = True
            self.surplus = data[position:]
        return out[0] if len(out) == 1 else b"".join(out)

    def _line(self, line: bytes, out: list[bytes]) -> None:
        if self._state == _SIZE:
            self._left = size = parse_chunk_size(line)
            self._state = _DATA if size else _TRAILER
            if size and self._raw:
                out.append(b"%x\r\n" % size)
        elif self._state == _DATA_END:
            if line:
                raise BadMessage(400, "a chunk longer than its size")
            self._state = _SIZE
            if self._raw:
                out.append(b"\r\n")
        elif line:
            self._trailer_bytes += len(line)
            if self._trailer_bytes > limits.TRAILERS:
                raise BadMessage(431, "trailers that are too long")
            name, _ = split_field(line)
            if name.replace(b"_", b"-") not in NOT_IN_TRAILERS:
                self._end += line + b"\r\n"
        else:
            self._state = _DONE
            if self._raw:
                out.append(self._end + b"\r\n")

    def _hold(self, rest: bytes) -> None:
        """Keeps an incomplete line, once it is sure that it may still become a good one."""
        longest = limits.TRAILERS if self._state == _TRAILER else limits.CHUNK_LINE
        if len(rest) > longest:
            raise BadMessage(400, "a chunk line that is too long")
        if self._state == _DATA_END and rest != b"\r":
            raise BadMessage(400, "a chunk longer than its size")
        if b"\r" in rest[:-1]:
            raise BadMessage(400, "a bare CR in a chunk line")
        if self._state == _SIZE and rest[:1] not in _HEX:
            raise BadMessage(400, "a malformed chunk size")
        self._held = rest


def parse_chunk_size(line: bytes) -> int:
    """The size in a chunk's first line. Raises BadMessage; extensions are checked and ignored."""
    size, semicolon, extension = line.partition(b";")
    if semicolon:
        # Space before the semicolon is "bad whitespace" that a recipient has to take.
        size = size.rstrip(b" \t")
        if not _EXTENSIONS.fullmatch(semicolon + extension):
            raise BadMessage(400, "a malformed chunk extension")
    if len(line) > limits.CHUNK_LINE:
        raise BadMessage(400, "a chunk line that is too long")
    if not size or len(size) > limits.CHUNK_SIZE_DIGITS or size.translate(None, _HEX):
        raise BadMessage(400, "a malformed chunk size")
    return int(size, 16)


def is_complete(body: bytes) -> bool:
    """Whether a body is complete and in the canonical form, so that `ChunkedReader` would pass on
    these very bytes. No is no verdict: what else it may be is for that one to say."""
    at = 0
    while True:
        end = body.find(b"\r\n", at)
        size = body[at:end] if end > at else b""
        if size == b"0":
            return body[at:] == LAST_CHUNK
        if not size or size[:1] == b"0" or len(size) > 8 or size.translate(None, _LOWER_HEX):
            return False
        at = end + 2 + int(size, 16)
        if body[at : at + 2] != b"\r\n":
            return False
        at += 2


def encode_chunk(piece: bytes) -> bytes:
    """One chunk; `piece` must not be empty."""
    return b"%x\r\n%b\r\n" % (len(piece), piece)
