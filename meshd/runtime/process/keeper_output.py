"""The captured output of one local replica: last lines, a log file, and a queue per follower.

Owned by the replica's `ReplicaProcess` (`keeper_child`). Everything is bounded: the lines in
memory, the file (rotated once), and each queue.
"""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from meshd.model.output import OutputLine

RING_LINES = 2000
"""Lines kept in memory per replica, enough for the reason of a crash."""
LINE_BYTES = 8 * 1024
"""Characters; a longer line is split, so that the ring holds at most 16 MiB."""
FILE_BYTES = 5 * 1024 * 1024
"""Bytes after which a log file is rotated; each replica has two files at most."""
FOLLOWER_PIECES = 512
"""Reads of the output that a follower may be behind."""

Follower = asyncio.Queue[tuple[OutputLine, ...] | None]


class Output:
    """Take bytes as the process wrote them, and return lines."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._ring: deque[OutputLine] = deque(maxlen=RING_LINES)
        self._rest = b""
        self._file_bytes = 0
        self._followers: set[Follower] = set()
        self._closed = False

    def feed(self, data: bytes) -> None:
        """Add output; what follows the last newline waits for the rest of its line."""
        *whole, self._rest = (self._rest + data).split(b"\n")
        while len(self._rest) > LINE_BYTES:
            whole.append(self._rest[:LINE_BYTES])
            self._rest = self._rest[LINE_BYTES:]
        self._add(whole)
        with contextlib.suppress(OSError):  # a full disk costs the file, not the lines in memory
            self._write(data)

    def close(self) -> None:
        """The process has ended: count an unfinished line as a line, and end all followers."""
        if self._rest:
            self._add([self._rest])
            self._rest = b""
        self._closed = True
        for follower in self._followers:
            _put(follower, None)

    def tail(self, count: int) -> tuple[str, ...]:
        """Return the last `count` lines, oldest first."""
        return tuple(line.text for line in self.lines(count))

    def lines(self, count: int, since: float = 0.0) -> tuple[OutputLine, ...]:
        """Return those of the last `count` lines that were read at `since` or later."""
        last = tuple(self._ring)[-count:] if count > 0 else ()
        return tuple(line for line in last if line.at >= since)

    @contextmanager
    def follow(self, count: int, since: float) -> Iterator[Follower]:
        """Return a queue of the lines that `lines` returns, then of the new ones, in pieces, ended
        by None. A follower that falls behind loses the oldest ones."""
        follower: Follower = asyncio.Queue(maxsize=FOLLOWER_PIECES)
        if past := self.lines(count, since):
            follower.put_nowait(past)
        if self._closed:
            follower.put_nowait(None)
        self._followers.add(follower)
        try:
            yield follower
        finally:
            self._followers.discard(follower)

    def delete(self) -> None:
        """Remove the files."""
        self._path.unlink(missing_ok=True)
        self._rotated.unlink(missing_ok=True)

    @property
    def _rotated(self) -> Path:
        return self._path.with_suffix(".log.1")

    def _add(self, whole: list[bytes]) -> None:
        now = time.time()
        lines = tuple(
            OutputLine(now, _decode(raw[start : start + LINE_BYTES]))
            for raw in whole
            for start in range(0, len(raw) or 1, LINE_BYTES)
        )
        self._ring.extend(lines)
        for follower in self._followers:
            if lines:
                _put(follower, lines)

    def _write(self, data: bytes) -> None:
        if self._file_bytes and self._file_bytes + len(data) > FILE_BYTES:
            self._path.replace(self._rotated)
            self._file_bytes = 0
        with self._path.open("ab") as file:
            file.write(data)
        self._file_bytes += len(data)


def _decode(raw: bytes) -> str:
    return raw.decode(errors="replace").rstrip("\r")


def _put(follower: Follower, lines: tuple[OutputLine, ...] | None) -> None:
    if follower.full():
        follower.get_nowait()
    follower.put_nowait(lines)
