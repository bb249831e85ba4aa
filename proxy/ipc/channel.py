"""The channel between the supervisor and one worker: messages, and open sockets with them.

Each side owns one end. A Unix stream socket carries frames of `proxy.wire.codec`. A descriptor is
sent with the first byte of its message (SCM_RIGHTS), so it arrives in order with the message.
"""

import asyncio
import collections
import contextlib
import os
import socket
from collections.abc import Callable
from typing import Final

from proxy.wire import codec
from proxy.wire.report import ListenOn, Message

_READ_SIZE: Final = 256 * 1024
"""Bytes per read; a report is a few KiB, a snapshot up to some MiB."""
_MAX_DESCRIPTORS: Final = 8
"""Descriptors per read; each message carries at most one."""


class Channel:
    """One end of a channel.

    - `on_message`: gets each message, and the descriptor of a `ListenOn` (else -1). The receiver
      must close the descriptor
    - `on_closed`: called once, when the peer has closed or has sent an invalid message
    - `unread`: bytes that were read before an upgrade and are not a complete message yet
    - `pending`: bytes queued that the peer has not taken yet
    """

    def __init__(
        self,
        sock: socket.socket,
        on_message: Callable[[Message, int], None],
        on_closed: Callable[[], None],
        unread: bytes = b"",
    ) -> None:
        self._sock = sock
        self._on_message = on_message
        self._on_closed = on_closed
        self._decoder = codec.Decoder(unread)
        self._descriptors: collections.deque[int] = collections.deque()
        self._queue: collections.deque[tuple[memoryview, int]] = collections.deque()
        self._loop: asyncio.AbstractEventLoop | None = None
        self.pending = 0

    def start(self) -> None:
        """Start reading, in the running event loop."""
        self._sock.setblocking(False)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._sock.fileno(), self._readable)

    def fileno(self) -> int:
        """Return the descriptor of the socket."""
        return self._sock.fileno()

    @property
    def unread(self) -> bytes:
        """Bytes read that are not a complete message yet."""
        return self._decoder.unread

    def send(self, message: Message, descriptor: int = -1) -> None:
        """Queue a message, with a copy of an open descriptor. Do nothing after `close`."""
        if self._loop is None:
            return
        frame = memoryview(codec.encode(message))
        self._queue.append((frame, os.dup(descriptor) if descriptor >= 0 else -1))
        self.pending += len(frame)
        if len(self._queue) == 1:
            self._write()

    def close(self) -> None:
        """Close at once and drop the queue. Does not call `on_closed`."""
        if self._loop is None:
            return
        self._loop.remove_reader(self._sock.fileno())
        self._loop.remove_writer(self._sock.fileno())
        self._loop = None
        self._sock.close()
        for descriptor in [*self._descriptors, *(fd for _, fd in self._queue if fd >= 0)]:
            os.close(descriptor)
        self._queue.clear()
        self._descriptors.clear()
        self.pending = 0

    def _write(self) -> None:
        """Send as much as the peer takes now; continue when it takes more."""
        loop = self._loop
        if loop is None:
            return
        try:
            while self._queue:
                frame, descriptor = self._queue[0]
                sent = self._send_some(frame, descriptor)
                self.pending -= sent
                if sent == len(frame):
                    self._queue.popleft()
                else:
                    self._queue[0] = (frame[sent:], -1)
            loop.remove_writer(self._sock.fileno())
        except BlockingIOError:
            loop.add_writer(self._sock.fileno(), self._write)
        except OSError:
            # The peer has closed. The next read notices, after all that it has sent is read.
            self._drop_queue()
            loop.remove_writer(self._sock.fileno())

    def _send_some(self, frame: memoryview, descriptor: int) -> int:
        if descriptor < 0:
            return self._sock.send(frame)
        sent = socket.send_fds(self._sock, [frame], [descriptor])
        os.close(descriptor)
        return sent

    def _drop_queue(self) -> None:
        for _, descriptor in self._queue:
            if descriptor >= 0:
                os.close(descriptor)
        self._queue.clear()
        self.pending = 0

    def _readable(self) -> None:
        try:
            data, descriptors, _, _ = socket.recv_fds(self._sock, _READ_SIZE, _MAX_DESCRIPTORS)
        except BlockingIOError:
            return
        except OSError:
            data, descriptors = b"", []
        self._descriptors.extend(descriptors)
        messages: list[Message] = []
        with contextlib.suppress(codec.BadFrame):
            messages = self._decoder.feed(data) if data else []
            for message in messages:
                if self._loop is None:
                    return
                carries = isinstance(message, ListenOn) and self._descriptors
                self._on_message(message, self._descriptors.popleft() if carries else -1)
            if data:
                return
        if self._loop is not None:
            self.close()
            self._on_closed()
