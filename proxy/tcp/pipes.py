"""Kernel pipes for `splice`, which moves bytes from one socket to another without copying them to
this process.

`proxy.tcp.direction` borrows a pipe for a moment and keeps it only while its target takes no
bytes, so that idle connections hold none. The number of pipes limits the memory that slow readers
can occupy in the kernel; without a pipe, bytes are copied.
"""

import contextlib
import fcntl
import os
import sys
from typing import Final

LARGE: Final = 1 << 20
"""Bytes that a large pipe holds: the most that Linux allows without privileges (pipe-max-size)."""
MAX_LARGE: Final = 32
"""Large pipes of a worker: at most 32 MiB that slow readers leave in them."""
SMALL: Final = 64 * 1024
"""Bytes that any other pipe holds: the kernel's default."""
MAX_PIPES: Final = 256
"""Pipes of a worker: 224 small ones hold another 14 MiB."""
MAX_IDLE: Final = 4
"""Empty pipes that are kept open. Each is in use for microseconds, unless a reader is slow."""
_SET_SIZE: Final = getattr(fcntl, "F_SETPIPE_SZ", 1031)
"""The fcntl command (linux/fcntl.h); Python 3.11 may lack the name."""
CAN_SPLICE: Final = sys.platform == "linux" and hasattr(os, "splice")
"""Whether this system has `splice`."""


class Pipe:
    """A pipe: descriptors of its two ends, and its size in bytes."""

    __slots__ = ("read_end", "size", "write_end")

    def __init__(self, read_end: int, write_end: int, size: int) -> None:
        self.read_end = read_end
        self.write_end = write_end
        self.size = size


class PipePool:
    """The pipes of one worker. `taken` is the number in use, `large` that of the large
    ones among all."""

    __slots__ = ("_idle", "large", "taken")

    def __init__(self) -> None:
        self._idle: list[Pipe] = []
        self.large = 0
        self.taken = 0

    def take(self) -> Pipe | None:
        """Return an empty pipe, which `give` or `discard` takes back; None if there are too
        many."""
        if self.taken >= MAX_PIPES:
            return None
        pipe = self._idle.pop() if self._idle else self._open()
        if pipe is not None:
            self.taken += 1
        return pipe

    def give(self, pipe: Pipe) -> None:
        """Take back an empty pipe."""
        if len(self._idle) >= MAX_IDLE:
            self.discard(pipe)
            return
        self.taken -= 1
        self._idle.append(pipe)

    def discard(self, pipe: Pipe) -> None:
        """Take back a pipe and close it with what is in it."""
        self.taken -= 1
        self._close(pipe)

    def close(self) -> None:
        """Close the idle pipes."""
        while self._idle:
            self._close(self._idle.pop())

    def _open(self) -> Pipe | None:
        """Open a pipe; None if no descriptor is left."""
        try:
            read_end, write_end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return None
        size = SMALL
        if self.large < MAX_LARGE:
            with contextlib.suppress(OSError):  # not allowed to this user: it stays small
                size = fcntl.fcntl(write_end, _SET_SIZE, LARGE)
            if size > SMALL:
                self.large += 1
        return Pipe(read_end, write_end, size)

    def _close(self, pipe: Pipe) -> None:
        if pipe.size > SMALL:
            self.large -= 1
        os.close(pipe.read_end)
        os.close(pipe.write_end)
