"""Writes the access log's batches without blocking requests.

Owned by `worker`; `proxy.observe.access_log` collects the lines. One write at a time runs in a
thread. Meanwhile lines collect in the log, which is bounded and counts those it drops. So a disk
or a pipe that hangs costs log lines and nothing else.
"""

import asyncio
import contextlib
import os
import select
import stat
import sys
from collections.abc import Iterator

from proxy.observe.access_log import AccessLog

_INTERVAL_SECONDS = 0.25
"""Longest wait before a small batch is written."""
_STANDARD_OUTPUT = 1
"""Descriptor."""
_NOTHING = -1
"""In place of a descriptor: no file is open."""


class LogWriter:
    """Appends the batches of `log` to the file at `path`; to standard output if it is empty.

    `batch_ready` is the event that `log` sets when a batch is worth writing.
    """

    def __init__(self, log: AccessLog, path: str, batch_ready: asyncio.Event) -> None:
        self._log = log
        self._path = path
        self._descriptor = _NOTHING if path else _STANDARD_OUTPUT
        self._batch_ready = batch_ready
        self._closing = False
        self._reopening = False

    def open(self) -> None:
        """Open the file, in place of the one that is open. If it cannot be opened, that one stays
        open and the reason is printed; without one, lines are dropped."""
        if not self._path:
            return
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        try:
            opened = os.open(self._path, flags, 0o640)
        except OSError as error:
            print(f"access log: {error}", file=sys.stderr)
            return
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = opened

    def reopen(self) -> None:
        """Have `run` open the file again, after what it has collected for the old one is written:
        the file was renamed."""
        self._reopening = True
        self._batch_ready.set()

    async def run(self) -> None:
        """Write until `close`: a full batch at once, a smaller one after an interval.

        Writes the rest at the end. Must not be cancelled: a batch that waits for its thread would
        be lost.
        """
        while not self._closing:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_INTERVAL_SECONDS):
                    await self._batch_ready.wait()
            self._batch_ready.clear()
            await self.flush()
            if self._reopening:
                self._reopening = False
                # In a thread: opening a pipe waits for its reader.
                await asyncio.to_thread(self.open)
        await self.flush()

    def close(self) -> None:
        """Let `run` write the rest and return."""
        self._closing = True
        self._batch_ready.set()

    async def flush(self) -> None:
        """Write the lines collected so far."""
        batch = self._log.take()
        if not batch or self._descriptor < 0:
            return
        try:
            await asyncio.to_thread(_write_all, self._descriptor, batch)
        except OSError as error:
            print(f"access log: {error}", file=sys.stderr)


def _write_all(descriptor: int, batch: bytes) -> None:
    pipe = stat.S_ISFIFO(os.fstat(descriptor).st_mode)
    for piece in split_lines(batch, select.PIPE_BUF) if pipe else (batch,):
        rest = memoryview(piece)
        while rest:
            rest = rest[os.write(descriptor, rest) :]


def split_lines(batch: bytes, size: int) -> Iterator[bytes]:
    """Split a batch into pieces of whole lines of at most `size` bytes; a longer line is alone.

    A pipe takes up to PIPE_BUF bytes without mixing them with the lines of other workers.
    """
    start = 0
    while start < len(batch):
        end = batch.rfind(b"\n", start, start + size) + 1
        if not end:
            end = batch.find(b"\n", start) + 1 or len(batch)
        yield batch[start:end]
        start = end
