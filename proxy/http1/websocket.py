"""WebSocket frames (RFC 6455): where one ends, and the close frame of a proxy. Pure.

`proxy.request.exchange` follows the frames of a tunnel from the endpoint to the client, so that it
can end the tunnel between two of them. Payloads are not looked at.
"""

from typing import Final

GOING_AWAY: Final = b"\x88\x02\x03\xe9"
"""An unmasked close frame with status 1001 (section 7.4.1): the server goes away."""
_SHORTEST_HEADER: Final = 2
"""Bytes of a frame header without an extended length."""
_MASK_BYTES: Final = 4
"""Bytes of the masking key."""


class FrameTracker:
    """Follows the frames of one direction of a connection.

    - `at_boundary`: whether everything so far is complete frames.
    """

    __slots__ = ("_header", "_left", "at_boundary")

    def __init__(self) -> None:
        self.at_boundary = True
        self._left = 0
        self._header = b""

    def feed(self, data: bytes) -> None:
        """Take further bytes."""
        if self._header:
            data = self._header + data
            self._header = b""
        at, size = self._left, len(data)
        while at < size:
            if size - at < _SHORTEST_HEADER:
                break
            length = data[at + 1] & 0x7F
            begin = at + _SHORTEST_HEADER
            if data[at + 1] & 0x80:
                begin += _MASK_BYTES
            if length >= 126:
                extended = 2 if length == 126 else 8
                begin += extended
                length = int.from_bytes(data[at + 2 : at + 2 + extended], "big")
            if begin > size:
                break
            at = begin + length
        if at < size:
            self._header = data[at:]
            self._left = 0
        else:
            self._left = at - size
        self.at_boundary = at == size
