"""Sends what the codec of a connection has. `proxy.http2_downstream` and `proxy.http2_upstream` use
it."""

import asyncio
from typing import Final

from proxy.http2.codec import Codec

PIECE: Final = 16 * 1024
"""Bytes that the codec is asked for at once: the contents of one TLS record. The codec joins what
it returns from frames, and copies all of it again for each frame that it adds."""
MOST_PIECES: Final = 4
"""Pieces that are written together."""


def write_output(codec: Codec, transport: asyncio.Transport) -> bool:
    """Write up to 64 KiB; return whether there was something. Raises ConnectionFailed."""
    if not codec.has_output():
        return False
    data = codec.output(PIECE)
    if len(data) < PIECE:
        if not data:
            return False
        transport.write(data)
        return True
    pieces = [data]
    try:
        while len(pieces) < MOST_PIECES:
            data = codec.output(PIECE)
            if not data:
                break
            pieces.append(data)
    finally:
        # Also before the last frame of a connection that fails.
        transport.writelines(pieces)
    return True
