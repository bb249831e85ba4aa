"""One direction of a TCP session: reads from one socket and writes to the other.

`TcpSession` owns two of them and passes the events of their sockets on. Bytes are copied through
one buffer that all sessions of a worker share. A direction whose reads fill that buffer carries
bulk data; it then moves the bytes with `splice`, which costs less than half of the CPU time of a
copy, until reads are small again. Nothing is read while the target takes no bytes, so that a slow
reader slows its sender down; what was read already is held here, and never more than one read.
"""

import asyncio
import errno
import os
import socket
from typing import TYPE_CHECKING, Final

from proxy.tcp.pipes import CAN_SPLICE, Pipe, PipePool
from proxy.tcp.poller import LAST

if TYPE_CHECKING:
    from proxy.tcp.session import TcpSession

COPY_SIZE: Final = 64 * 1024
"""Bytes of the shared buffer: larger ones leave the processor's caches."""
BULK: Final = 16 * 1024
"""Bytes of a read below which a direction is not worth `splice`: its two further system calls
cost about as much as this copy."""
TURN: Final = 1 << 20
"""Bytes after which other sessions have their turn."""
_FLAGS: Final = getattr(os, "SPLICE_F_MOVE", 0) | getattr(os, "SPLICE_F_NONBLOCK", 0)
_WRITING: Final = int(socket.SHUT_WR)
_WOULD_BLOCK: Final = (errno.EAGAIN, errno.EINTR)

# The result of a step of `pump`, unless it is the number of bytes read.
_NOTHING: Final = 0
"""There is nothing to read; an event announces more."""
_STOP: Final = -1
"""The target is full, or the direction has ended."""


class SharedBuffers:
    """What all directions of a worker use in turn: the copy buffer and the pipes."""

    __slots__ = ("pipes", "view")

    def __init__(self) -> None:
        self.view = memoryview(bytearray(COPY_SIZE))
        self.pipes = PipePool()


class Direction:
    """Passes bytes from `source` to `target`.

    - `upward`: whether the source is the client.
    - `passed`: bytes written to the target.
    - `is_blocked`: whether it holds bytes that the target does not take.
    - `ended`: whether all bytes and the end of stream were passed on, or the target takes no more.
    - `broken`: whether the target failed before that.
    """

    __slots__ = (
        "_awaits_target",
        "_buffers",
        "_held",
        "_loop",
        "_may_splice",
        "_pending",
        "_pipe",
        "_session",
        "_splices",
        "broken",
        "ended",
        "is_blocked",
        "passed",
        "source",
        "target",
        "upward",
    )

    def __init__(
        self,
        session: "TcpSession",
        loop: asyncio.AbstractEventLoop,
        buffers: SharedBuffers,
        source: socket.SocketType,
        target: socket.SocketType,
        *,
        upward: bool,
    ) -> None:
        self._session = session
        self._loop = loop
        self._buffers = buffers
        self.source = source
        self.target = target
        self.upward = upward
        self.passed = 0
        self.is_blocked = False
        self.ended = False
        self.broken = False
        self._pending = b""
        self._pipe: Pipe | None = None
        self._held = 0
        self._splices = False
        self._may_splice = CAN_SPLICE
        self._awaits_target = False

    def pump(self, events: int) -> None:
        """Pass on what the source has, until it has no more, or the target takes no more.
        `events` are those of the source; 0 if they are not known."""
        if self.ended or self.is_blocked:
            return
        expects_end = not events or events & LAST
        left = TURN
        while left > 0:
            splices = self._splices
            count = self._move() if splices else self._copy()
            if count <= 0:
                return
            if count < COPY_SIZE and not splices and not expects_end:
                return  # A short read: the source is empty, and an event announces more.
            left -= count
        self._loop.call_soon(self.pump, 0)

    def target_writable(self) -> None:
        """Write what is held, then continue to read."""
        if self.ended or not self.is_blocked:
            return
        done = self._empty_pipe() if self._pipe is not None else self._send_pending()
        if done:
            self.is_blocked = False
            self.pump(0)

    def stop(self) -> None:
        """Pass no more bytes; drop those that are held. The sockets stay open."""
        self.ended = True
        self.is_blocked = False
        self._pending = b""
        self._held = 0
        pipe, self._pipe = self._pipe, None
        if pipe is not None:
            self._buffers.pipes.discard(pipe)

    # --- reading

    def _copy(self) -> int:
        """Read into the shared buffer and write from it; keep what the target does not take."""
        view = self._buffers.view
        try:
            count = self.source.recv_into(view)
        except OSError as error:
            return self._read_failed(error)
        if not count:
            return self._finish()
        sent = 0
        try:
            sent = self.target.send(view[:count])
        except OSError as error:
            if error.errno not in _WOULD_BLOCK:
                return self._write_failed()
        self._count(sent)
        if sent < count:
            self._pending = bytes(view[sent:count])
            self._block()
            return _STOP
        self._splices = count == COPY_SIZE and self._may_splice
        return count

    def _move(self) -> int:
        """Move bytes to a pipe and on to the target; keep the pipe while the target is full."""
        pipes = self._buffers.pipes
        pipe = pipes.take()
        if pipe is None:
            return self._copy()
        try:
            count = os.splice(self.source.fileno(), pipe.write_end, pipe.size, flags=_FLAGS)
        except OSError as error:
            pipes.give(pipe)
            if error.errno == errno.EINVAL:
                self._splices = self._may_splice = False  # this kind of socket cannot
                return self._copy()
            return self._read_failed(error)
        if not count:
            pipes.give(pipe)
            return self._finish()
        self._splices = count >= BULK
        self._pipe = pipe
        self._held = count
        if self._empty_pipe():
            return count
        if not self.ended:
            self._block()
        return _STOP

    # --- writing

    def _block(self) -> None:
        """Read nothing until the target takes bytes again."""
        self.is_blocked = True
        if not self._awaits_target:
            self._awaits_target = True
            self._session.target_full(self.target)

    def _empty_pipe(self) -> bool:
        """Move what the pipe holds to the target. Return False if bytes are left, or on failure."""
        pipe = self._pipe
        assert pipe is not None
        while self._held:
            try:
                count = os.splice(pipe.read_end, self.target.fileno(), self._held, flags=_FLAGS)
            except OSError as error:
                if error.errno not in _WOULD_BLOCK:
                    self._write_failed()
                return False
            self._held -= count
            self._count(count)
        self._pipe = None
        self._buffers.pipes.give(pipe)
        return True

    def _send_pending(self) -> bool:
        """Send bytes that were copied. Return False if some are left, or on failure."""
        try:
            sent = self.target.send(self._pending)
        except OSError as error:
            if error.errno not in _WOULD_BLOCK:
                self._write_failed()
            return False
        self._pending = self._pending[sent:]
        self._count(sent)
        return not self._pending

    def _count(self, count: int) -> None:
        self.passed += count
        self._session.bytes_passed(count, upward=self.upward)

    # --- the end

    def _finish(self) -> int:
        """Pass on the end of stream. The other direction continues; if it has ended before, the
        session closes the target, which says the same."""
        self.stop()
        if not self._session.is_half_closed():
            try:
                self.target.shutdown(_WRITING)
            except OSError:
                self.broken = True
        self._session.direction_ended()
        return _STOP

    def _read_failed(self, error: OSError) -> int:
        """Handle an error of a read: there is nothing to read, or the source was reset."""
        if error.errno in _WOULD_BLOCK:
            return _NOTHING
        self.stop()
        self._session.source_lost(upward=self.upward)
        return _STOP

    def _write_failed(self) -> int:
        """Handle an error of a write: the target was closed. What it sent before is still read by
        the other direction."""
        self.stop()
        self.broken = True
        self._session.direction_ended()
        return _STOP
