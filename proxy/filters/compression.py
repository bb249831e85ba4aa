"""Compression of responses: which ones, by which coding, and the head that goes with it. Pure.

Used by `proxy.request_filters.compression`. A response is compressed if its type is listed, it is
large enough, and nothing in it speaks against that (RFC 9110, sections 8.4 and 12.5.3).
"""

import zlib
from typing import Final, Protocol

from proxy.http1.accept import parse_weights
from proxy.http1.fields import split_list
from proxy.http1.request import END
from proxy.http1.rewrite import CRLF
from proxy.wire.filters import Compression

GZIP_LEVEL: Final = 4
"""Level of zlib, 1 to 9. Level 6, its default, takes 1.5 times as long for 3 % less."""
_GZIP_WINDOW: Final = 31
"""`wbits` of zlib for a window of 32 KiB in the gzip format."""
_UNCHANGEABLE: Final = (
    b"content-encoding",
    b"content-range",
    b"content-digest",
    b"content-md5",
    b"digest",
    b"repr-digest",
)
"""Fields of responses that are not compressed: compressed already, a part, or with a digest."""
_REMOVED: Final = frozenset({b"content-length", b"transfer-encoding", b"accept-ranges"})
"""Fields that are no longer true of a compressed body."""
_VARY: Final = b"Vary: Accept-Encoding"
_BODYLESS: Final = frozenset({204, 205, 304})


class Encoder(Protocol):
    """Compresses one body."""

    def compress(self, data: bytes) -> bytes:
        """Take a piece; return what is ready."""

    def flush(self) -> bytes:
        """Return everything taken so far, so that the client can read it now."""

    def finish(self) -> bytes:
        """Return the end of the body."""


class GzipEncoder:
    """The gzip format (RFC 1952)."""

    def __init__(self) -> None:
        self._state = zlib.compressobj(GZIP_LEVEL, zlib.DEFLATED, _GZIP_WINDOW)

    def compress(self, data: bytes) -> bytes:
        return self._state.compress(data)

    def flush(self) -> bytes:
        return self._state.flush(zlib.Z_SYNC_FLUSH)

    def finish(self) -> bytes:
        return self._state.flush()


def make_encoder(coding: bytes) -> Encoder:
    """Return an encoder for a coding that `CompressionRules.choose_coding` returned."""
    if coding == b"gzip":
        return GzipEncoder()
    from proxy.filters.zstandard import ZstdEncoder

    return ZstdEncoder()


class Compressible:
    """A response that may be compressed.

    - `start`, `lines`: its start line and field lines.
    - `chunked`: whether its body is in chunks.
    - `sized`: whether its length is known.
    """

    __slots__ = ("chunked", "lines", "sized", "start")

    def __init__(self, start: bytes, lines: list[bytes], *, chunked: bool, sized: bool) -> None:
        self.start = start
        self.lines = lines
        self.chunked = chunked
        self.sized = sized

    def varying_head(self) -> bytes:
        """Return the head for the body as it is."""
        return CRLF.join([self.start, *self._varying(self.lines)]) + END

    def compressed_head(self, coding: bytes, framing: bytes) -> bytes:
        """Return the head for a compressed body; `framing` is the field line that frames it, empty
        for none."""
        kept = []
        for line in self._varying(self.lines):
            name = line.partition(b":")[0].lower()
            if name in _REMOVED:
                continue
            kept.append(_weaken(line) if name == b"etag" else line)
        kept.append(b"Content-Encoding: " + coding)
        if framing:
            kept.append(framing)
        return CRLF.join([self.start, *kept]) + END

    def _varying(self, lines: list[bytes]) -> list[bytes]:
        named = {
            each for line in lines if line[:5].lower() == b"vary:" for each in split_list(line[5:])
        }
        return lines if named & {b"*", b"accept-encoding"} else [*lines, _VARY]


def _weaken(line: bytes) -> bytes:
    """Return an ETag line as weak: the bytes differ from those that the service named."""
    name, _, value = line.partition(b":")
    value = value.strip(b" \t")
    return line if value.startswith(b"W/") else name + b": W/" + value


class CompressionRules:
    """The compiled setting of a route.

    - `min_size`: bytes below which a response stays as it is.
    """

    def __init__(self, config: Compression) -> None:
        self._codings = [each.encode() for each in config.encodings]
        self._types = {each.lower().encode() for each in config.types if not each.endswith("/*")}
        self._families = tuple(
            each.lower().encode()[:-1] for each in config.types if each.endswith("/*")
        )
        self.min_size = config.min_size

    def choose_coding(self, accept: bytes | None) -> bytes:
        """Return the coding that an Accept-Encoding field likes best, the first one of the setting
        if it likes several equally; empty for none."""
        if not accept:
            return b""
        weights = parse_weights(accept)
        others = weights.get(b"*", 0.0)
        best, chosen = 0.0, b""
        for coding in self._codings:
            weight = weights.get(coding, others)
            if weight > best:
                best, chosen = weight, coding
        return chosen

    def examine(self, head: bytes) -> Compressible | None:
        """Return a response, given as a head with its empty line, if it may be compressed."""
        start, *lines = head.removesuffix(END).split(CRLF)
        status = int(start[9:12])
        if status < 200 or status in _BODYLESS:
            return None
        fields: dict[bytes, bytes] = {}
        for line in lines:
            name, _, value = line.partition(b":")
            name = name.lower()
            value = value.strip(b" \t").lower()
            fields[name] = fields[name] + b"," + value if name in fields else value
        if any(name in fields for name in _UNCHANGEABLE):
            return None
        if b"no-transform" in split_list(fields.get(b"cache-control", b"")):
            return None
        media_type = fields.get(b"content-type", b"").partition(b";")[0].strip(b" \t")
        if media_type not in self._types and not media_type.startswith(self._families or (b"\0",)):
            return None
        length = fields.get(b"content-length")
        if length is not None and int(length) < self.min_size:
            return None
        return Compressible(
            start, lines, chunked=b"transfer-encoding" in fields, sized=length is not None
        )
