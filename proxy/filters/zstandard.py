"""Compression with Zstandard. Pure.

Loaded by `proxy.filters.compression` with the first response that needs it.
"""

import sys
from typing import Final

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_ZSTD_OPTIONS: Final[dict[int, int]] = {
    zstd.CompressionParameter.compression_level: 3,
    zstd.CompressionParameter.window_log: 17,
}
"""The default level, and a window of 128 KiB: an encoder takes less than 1 MiB instead of 3.5."""


class ZstdEncoder:
    """The format of Zstandard (RFC 8878)."""

    def __init__(self) -> None:
        self._state = zstd.ZstdCompressor(options=_ZSTD_OPTIONS)

    def compress(self, data: bytes) -> bytes:
        return self._state.compress(data)

    def flush(self) -> bytes:
        return self._state.flush(zstd.ZstdCompressor.FLUSH_BLOCK)

    def finish(self) -> bytes:
        return self._state.flush()
