"""Writes the access log's batches without making a request wait.

One write at a time runs in a thread; meanwhile lines collect in the log, which is bounded and
counts what it drops. So a disk or a pipe that hangs costs log lines and nothing else.
"""

import asyncio
import contextlib
import os
import select
import stat
import sys
from collections.abc import Iterator

from proxy.observe.access_log import AccessLog

_EVERY = 0.25
_STANDARD_OUTPUT = 1


class LogWriter:
    """Takes batches from `log` and appends them to the file at `path` (standard output when
    empty)."""

    def __init__(self, log: AccessLog, path: str) -> None:
        self._log = log
        self._path = path
        self._descriptor = _STANDARD_OUTPUT
        self._worth_it = asyncio.Event()
        self._closing = False

    def open(self) -> None:
        """Open the file. Raises OSError."""
        if self._path:
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
            self._descriptor = os.open(self._path, flags, 0o640)

    async def run(self) -> None:
        """Write until `close`: a batch that is worth it at once, a smaller one after a while, and
        at the end what is left. Not to be cancelled: a batch that waits for its thread would be
        lost."""
        self._log.on_batch = self._worth_it.set
        while not self._closing:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_EVERY):
                    await self._worth_it.wait()
            self._worth_it.clear()
            await self.flush()
        await self.flush()

    def close(self) -> None:
        """Let `run` write what is left, and end."""
        self._closing = True
        self._worth_it.set()

    async def flush(self) -> None:
        """Write what has collected so far."""
        batch = self._log.take()
        if not batch:
            return
        try:
            await asyncio.to_thread(_write_all, self._descriptor, batch)
        except OSError as error:
            print(f"access log: {error}", file=sys.stderr)


def _write_all(descriptor: int, batch: bytes) -> None:
    pipe = stat.S_ISFIFO(os.fstat(descriptor).st_mode)
    for piece in whole_lines(batch, select.PIPE_BUF) if pipe else (batch,):
        left = memoryview(piece)
        while left:
            left = left[os.write(descriptor, left) :]


def whole_lines(batch: bytes, size: int) -> Iterator[bytes]:
    """The batch in pieces of whole lines of at most `size` bytes, a longer line alone: what a
    pipe takes without mixing it with the lines of other workers."""
    start = 0
    while start < len(batch):
        end = batch.rfind(b"\n", start, start + size) + 1
        if not end:
            end = batch.find(b"\n", start) + 1 or len(batch)
        yield batch[start:end]
        start = end
