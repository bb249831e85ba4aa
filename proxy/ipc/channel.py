"""Messages, and open sockets with them, between the supervisor and one worker.

A Unix stream socket carries frames of `proxy.wire.codec`; a descriptor rides along with the
first byte of its message (SCM_RIGHTS) and so arrives in order with it.
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

_CHUNK: Final = 256 * 1024


class Channel:
    """One end. `on_message` gets each message, and the descriptor of a `ListenOn`, which is
    then the receiver's to close. `on_closed` is called once, when the peer is gone or has
    sent what is not a message. `unread` are bytes that a predecessor read and that make no
    message yet."""

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
        """Bytes that the peer has not taken yet."""

    def start(self) -> None:
        """Begin to read, in the running loop."""
        self._sock.setblocking(False)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._sock.fileno(), self._readable)

    def fileno(self) -> int:
        """The descriptor of the socket."""
        return self._sock.fileno()

    @property
    def unread(self) -> bytes:
        """Bytes read that make no message yet."""
        return self._decoder.unread

    def send(self, message: Message, descriptor: int = -1) -> None:
        """Queue a message, with a copy of an open descriptor; nothing after `close`."""
        if self._loop is None:
            return
        frame = memoryview(codec.encode(message))
        self._queue.append((frame, os.dup(descriptor) if descriptor >= 0 else -1))
        self.pending += len(frame)
        if len(self._queue) == 1:
            self._write()

    def close(self) -> None:
        """Stop at once, dropping what is queued; `on_closed` is not called."""
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
        """Send what the peer takes now; go on when it takes more."""
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
            # The peer is gone; reading tells so once all that it still sent has been read.
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
            data, descriptors, _, _ = socket.recv_fds(self._sock, _CHUNK, 8)
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
