"""Chunked bodies (RFC 9112, section 7.1): decode strictly, forward in canonical form. Pure.

Used by `proxy.request.downstream` and `upstream`. Canonical input is forwarded unchanged; chunk
extensions are removed. A chunk line is forwarded only after all of it has been validated, and the
end of a body only once it is complete. So a broken body never looks complete to the next hop, not
even to one that takes the last chunk alone for the end.
"""

import re
from typing import Final

from proxy.http1 import limits
from proxy.http1.fields import NOT_IN_TRAILERS, BadMessage, split_field

# States of `ChunkedReader`: SIZE → DATA → DATA_END → SIZE …, and SIZE → TRAILER → DONE after the
# last chunk. Plain integers, which mypyc compares without a call.
_SIZE: Final = 0
"""At the line with a chunk's size."""
_DATA: Final = 1
"""In the content of a chunk."""
_DATA_END: Final = 2
"""At the CRLF after the content."""
_TRAILER: Final = 3
"""At a trailer field or the final empty line."""
_DONE: Final = 4
"""After the final empty line."""
_LOWER_HEX: Final = b"0123456789abcdef"
_HEX: Final = _LOWER_HEX + b"ABCDEF"
_CANONICAL_SIZE_DIGITS: Final = 8
"""Hexadecimal digits of a chunk size in `is_complete`; longer ones go to `ChunkedReader`."""
LAST_CHUNK: Final = b"0\r\n\r\n"
_LAST_SIZE: Final = b"0\r\n"
"""Line with the size of the last chunk, before the trailers."""
_TOKEN: Final = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_QUOTED: Final = rb'"(?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t \x21-\x7e\x80-\xff])*"'
_EXTENSIONS: Final = re.compile(
    rb"(?:[ \t]*;[ \t]*" + _TOKEN + rb"(?:[ \t]*=[ \t]*(?:" + _TOKEN + rb"|" + _QUOTED + rb"))?)*"
)


class ChunkedReader:
    """Decodes one chunked body.

    - `done`: whether the end of the body has been read
    - `surplus`: the bytes after its end

    With `raw` the output of `feed` is chunked as well; otherwise it is the content alone.
    """

    __slots__ = (
        "_incomplete",
        "_last_chunk",
        "_left",
        "_raw",
        "_state",
        "_trailer_bytes",
        "done",
        "surplus",
    )

    def __init__(self, *, raw: bool = True) -> None:
        self.done = False
        self.surplus = b""
        self._raw = raw
        self._incomplete = b""
        self._last_chunk = _LAST_SIZE
        self._left = 0
        self._state = _SIZE
        self._trailer_bytes = 0

    @property
    def trailers(self) -> bytes:
        """The trailer field lines that may be forwarded; complete once the body is."""
        return self._last_chunk[len(_LAST_SIZE) :]

    def feed(self, data: bytes) -> bytes:
        """Decode more input; return the bytes to forward now.

        Raises BadMessage at the first byte that is invalid or ambiguous.
        """
        if self._incomplete:
            data = self._incomplete + data
            self._incomplete = b""
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
                self._keep(data[position:])
                break
            line = data[position:end]
            if line[-1:] != b"\r":
                raise BadMessage(400, "a chunk line that does not end in CRLF")
            position = end + 1
            self._handle_line(line[:-1], out)
        if self._state == _DONE:
            self.done = True
            self.surplus = data[position:]
        return out[0] if len(out) == 1 else b"".join(out)

    def _handle_line(self, line: bytes, out: list[bytes]) -> None:
        """Handle one complete line, without its CRLF, in any state but DATA."""
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
                self._last_chunk += line + b"\r\n"
        else:
            self._state = _DONE
            if self._raw:
                out.append(self._last_chunk + b"\r\n")

    def _keep(self, rest: bytes) -> None:
        """Keep an incomplete line. Raises BadMessage if it can no longer become valid."""
        limit = limits.TRAILERS if self._state == _TRAILER else limits.CHUNK_LINE
        if len(rest) > limit:
            raise BadMessage(400, "a chunk line that is too long")
        if self._state == _DATA_END and rest != b"\r":
            raise BadMessage(400, "a chunk longer than its size")
        if b"\r" in rest[:-1]:
            raise BadMessage(400, "a bare CR in a chunk line")
        if self._state == _SIZE and rest[:1] not in _HEX:
            raise BadMessage(400, "a malformed chunk size")
        self._incomplete = rest


def parse_chunk_size(line: bytes) -> int:
    """Return the size in a chunk's first line, in bytes. Raises BadMessage.

    Extensions are validated and ignored.
    """
    size, semicolon, extension = line.partition(b";")
    if semicolon:
        # RFC 9112, section 7.1.1: a recipient must accept whitespace before the semicolon.
        size = size.rstrip(b" \t")
        if not _EXTENSIONS.fullmatch(semicolon + extension):
            raise BadMessage(400, "a malformed chunk extension")
    if len(line) > limits.CHUNK_LINE:
        raise BadMessage(400, "a chunk line that is too long")
    if not size or len(size) > limits.CHUNK_SIZE_DIGITS or size.translate(None, _HEX):
        raise BadMessage(400, "a malformed chunk size")
    return int(size, 16)


def is_complete(body: bytes) -> bool:
    """Return whether a body is complete and canonical.

    If so, `ChunkedReader` would forward exactly these bytes. If not, the body may still be valid;
    `ChunkedReader` decides.
    """
    at = 0
    while True:
        end = body.find(b"\r\n", at)
        size = body[at:end] if end > at else b""
        if size == b"0":
            return body[at:] == LAST_CHUNK
        if not size or size[:1] == b"0" or len(size) > _CANONICAL_SIZE_DIGITS:
            return False
        if size.translate(None, _LOWER_HEX):
            return False
        at = end + 2 + int(size, 16)
        if body[at : at + 2] != b"\r\n":
            return False
        at += 2


def encode_chunk(piece: bytes) -> bytes:
    """Return `piece` as one chunk; it must not be empty."""
    return b"%x\r\n%b\r\n" % (len(piece), piece)
