"""Archives are decompressed on their way to the daemon."""

import asyncio
import bz2
import gzip
import io
import lzma
import threading

import pytest

from meshd.cli.commands.volume import decompress, in_thread

TAR = b"\0" * 10240


@pytest.mark.parametrize(
    "pack", [bytes, gzip.compress, bz2.compress, lzma.compress], ids=["none", "gz", "bz2", "xz"]
)
def test_compression_is_recognized(pack: object) -> None:
    packed = pack(TAR)  # type: ignore[operator]
    assert decompress(io.BufferedReader(io.BytesIO(packed))).read() == TAR  # type: ignore[arg-type]


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_a_cut_stream_is_an_error(pack: object) -> None:
    packed = pack(TAR)[:-6]  # type: ignore[operator]
    with pytest.raises(EOFError):
        decompress(io.BufferedReader(io.BytesIO(packed))).read()  # type: ignore[arg-type]


async def test_a_call_that_blocks_can_be_left() -> None:
    blocked = threading.Event()
    waiting = asyncio.create_task(in_thread(blocked.wait))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await waiting
    blocked.set()
    assert await in_thread(len, b"abc") == 3
    with pytest.raises(ValueError, match="invalid literal"):
        await in_thread(int, "x")
