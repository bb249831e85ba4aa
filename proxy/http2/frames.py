"""Checks frames that the codec accepts in silence. Pure.

`proxy.http2_downstream.connection` has each piece of input scanned before the codec gets it. The
codec ignores frames on streams that have ended, as they may have crossed a reset. Here it is known
which streams the client itself has ended: a frame behind that is an error (RFC 9113, section 5.1).
"""

from typing import Final

PREFACE_SIZE: Final = 24
"""Bytes of the preface of a client."""
HEADER_SIZE: Final = 9
"""Bytes of a frame's header: length, type, flags and stream."""
MAX_STREAMS_KEPT: Final = 4096
"""Streams whose state is kept. With more, all are forgotten, and frames on them are accepted."""
FINE: Final = -1
"""No error code."""
PROTOCOL_ERROR: Final = 1
"""Error codes of HTTP/2 (RFC 9113, section 7)."""
STREAM_CLOSED: Final = 5
"""A frame on a stream that its sender has ended."""
_HEADERS: Final = 1
"""Frame type of HEADERS (RFC 9113, section 6.2)."""
_PRIORITY: Final = 2
"""Frame type of PRIORITY."""
_RST_STREAM: Final = 3
"""Frame type of RST_STREAM. DATA, with 0, is the only other one before it."""
_LAST_TYPE: Final = 9
"""The largest type of RFC 9113, CONTINUATION."""
_PRIORITY_UPDATE: Final = 16
"""Frame type of RFC 9218, which the codec reports."""
_END_STREAM: Final = 1
"""Flag of DATA and HEADERS."""


class FrameGuard:
    """Scans what one client sends.

    - `ignored`: number of frames without any effect in the last piece: PRIORITY, and types that are
      unknown.
    - `accepted`: bytes of the last piece before the frame that ends the connection; meaningful only
      if there is one.
    """

    __slots__ = ("_floor", "_header", "_highest", "_open", "_skip", "accepted", "ignored")

    def __init__(self) -> None:
        self.ignored = 0
        self.accepted = 0
        self._skip = PREFACE_SIZE
        self._header = b""
        self._highest = 0
        self._floor = 0
        self._open: dict[int, bool] = {}

    def scan(self, data: bytes) -> int:
        """Return the error code of the first frame that ends the connection; FINE if none does."""
        self.ignored = 0
        before = len(self._header)
        if before:
            data = self._header + data
            self._header = b""
        at = self._skip
        size = len(data)
        while at + HEADER_SIZE <= size:
            length = data[at] << 16 | data[at + 1] << 8 | data[at + 2]
            kind = data[at + 3]
            stream = (data[at + 5] & 0x7F) << 24 | data[at + 6] << 16
            stream |= data[at + 7] << 8 | data[at + 8]
            if kind <= _RST_STREAM:
                code = self._check(kind, data[at + 4], stream)
                if code != FINE:
                    self.accepted = max(0, at - before)
                    return code
            elif kind > _LAST_TYPE and kind != _PRIORITY_UPDATE:
                self.ignored += 1
            at += HEADER_SIZE + length
        if at >= size:
            self._skip = at - size
        else:
            self._skip = 0
            self._header = data[at:]
        return FINE

    def _check(self, kind: int, flags: int, stream: int) -> int:
        """Check a frame of one of the first four types."""
        if kind == _PRIORITY:
            self.ignored += 1
            return FINE if stream else PROTOCOL_ERROR
        is_open = self._open.get(stream)
        if kind == _RST_STREAM:
            if is_open:
                self._open[stream] = False
            return FINE
        if is_open is None:
            if kind != _HEADERS or stream <= self._floor:
                return FINE
            if stream <= self._highest:
                return PROTOCOL_ERROR
            if len(self._open) >= MAX_STREAMS_KEPT:
                self._open.clear()
                self._floor = self._highest
            self._highest = stream
        elif not is_open:
            return STREAM_CLOSED
        self._open[stream] = not flags & _END_STREAM
        return FINE
