"""Watches the sockets of all TCP sessions of a worker, with a separate epoll instance.

`worker` owns the only `Poller` of a process; sessions register their sockets, `AcceptLoop` those
that listen. The event loop watches the epoll instance as one descriptor. `loop.add_reader` on each
socket does not suffice: uvloop reports a reset only once and drops the socket then, and each change
between reading and writing costs it several system calls. Here a socket is registered once,
edge-triggered: its owner hears of every change and keeps in mind which end it waits for. Most
sockets always take what is written, so that a change to writable is reported only where it is
asked for.
"""

import asyncio
import select
import socket
from collections.abc import Callable
from typing import Final

READABLE: Final = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR
"""Events after which a read returns something: bytes, the end of stream, or an error."""
LAST: Final = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR
"""Those of them after which no further event announces the end of stream or an error."""
RESET: Final = select.EPOLLERR
"""The peer has reset the connection."""
LOST: Final = select.EPOLLHUP | select.EPOLLERR
"""The connection has ended, or could not be opened."""
WRITABLE: Final = select.EPOLLOUT | select.EPOLLHUP | select.EPOLLERR
"""Events after which a write does not wait, or fails."""
_READS: Final = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLET
_BOTH: Final = _READS | select.EPOLLOUT
_BATCH: Final = 256
"""Events that are handled before the event loop does other work."""

Handler = Callable[[int], None]
"""Called with the events of a socket."""


class Poller:
    """The sockets of one worker and who handles their events."""

    __slots__ = ("_epoll", "_handlers", "_loop", "_new")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._epoll = select.epoll()
        self._handlers: dict[int, Handler] = {}
        self._new: set[int] = set()
        loop.add_reader(self._epoll.fileno(), self._poll)

    def watch(self, sock: socket.SocketType, handler: Handler, *, writable: bool = False) -> None:
        """Call `handler` with the events of a socket, beginning with its present state, until
        `forget`. `writable`: also when it becomes writable. Raises OSError if the kernel cannot
        watch it."""
        number = sock.fileno()
        self._epoll.register(number, _BOTH if writable else _READS)
        self._handlers[number] = handler
        self._new.add(number)

    def watch_writable(self, sock: socket.SocketType) -> None:
        """Call the handler of a socket also when it becomes writable, now and later."""
        self._epoll.modify(sock.fileno(), _BOTH)

    def watch_listening(self, sock: socket.SocketType, handler: Handler) -> None:
        """Call `handler` for as long as connections wait to be accepted, until `leave`."""
        number = sock.fileno()
        self._epoll.register(number, select.EPOLLIN)
        self._handlers[number] = handler
        self._new.add(number)

    def forget(self, sock: socket.SocketType) -> None:
        """Stop watching a socket, which the caller closes next."""
        self._handlers.pop(sock.fileno(), None)

    def leave(self, sock: socket.SocketType) -> None:
        """Stop watching a socket that other processes hold open too: closing it would not."""
        if self._handlers.pop(sock.fileno(), None) is not None:
            self._epoll.unregister(sock.fileno())

    def close(self) -> None:
        """Watch nothing any more."""
        self._loop.remove_reader(self._epoll.fileno())
        self._handlers.clear()
        self._epoll.close()

    def _poll(self) -> None:
        # A socket that is registered while events are handled may have the number of one that was
        # closed meanwhile; the events of this batch under that number are the old one's.
        new = self._new
        new.clear()
        for number, events in self._epoll.poll(0, _BATCH):
            if number in new:
                continue
            handler = self._handlers.get(number)
            if handler is not None:
                handler(events)
