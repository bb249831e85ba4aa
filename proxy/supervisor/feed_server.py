"""The feed socket: connects the control process, and read-only listeners, to the supervisor.

Owned by `supervisor`. A connection starts with `Hello`. The supervisor answers with the current
state (generation, addresses, workers, each worker's last ack) and then sends every change. A
connection with the role `control` may publish snapshots. A peer that does not read is
disconnected, so that no unbounded queue builds up for it.
"""

import asyncio
import logging
import os
import socket
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from proxy.ipc.sockets import open_address
from proxy.wire import codec
from proxy.wire.report import Hello, Message, Publish, PublishDelta

_log = logging.getLogger(__name__)
MAX_UNREAD: Final = 16 * 1024 * 1024
"""Bytes that a peer may leave unread; several full snapshots of a large mesh."""
CONTROL: Final = "control"
"""Role of a peer that may publish snapshots (`Hello.role`)."""


class FeedConnection(asyncio.Protocol):
    """One connection to the feed socket. `role` is empty until the peer sends `Hello`."""

    def __init__(self, server: "FeedServer") -> None:
        self._server = server
        self._decoder = codec.Decoder()
        self._transport: asyncio.Transport | None = None
        self.role = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._transport = None
        self._server.remove(self)

    def data_received(self, data: bytes) -> None:
        try:
            for message in self._decoder.feed(data):
                self._server.handle_message(self, message)
        except codec.BadFrame as error:
            self.disconnect(f"it sent an invalid message: {error}")

    def send(self, message: Message) -> None:
        """Send one message."""
        self.send_frame(codec.encode(message))

    def send_frame(self, frame: bytes) -> None:
        """Send an encoded message; disconnect a peer that does not read."""
        if self._transport is None:
            return
        self._transport.write(frame)
        if self._transport.get_write_buffer_size() > MAX_UNREAD:
            self.disconnect(f"it left {MAX_UNREAD} bytes unread")

    def close(self) -> None:
        """Close the connection after everything queued has been sent."""
        if self._transport is not None:
            self._transport.close()

    def disconnect(self, reason: str) -> None:
        """Close the connection immediately and log the reason."""
        if self._transport is not None:
            _log.warning("feed connection of %r closed: %s", self.role or "unknown peer", reason)
            self._transport.abort()
            self._transport = None
            self._server.remove(self)


class FeedServer:
    """All connections to the feed socket.

    - `greeting`: returns the messages for a new connection
    - `publish`: takes a snapshot or a delta and returns the message that answers it, if any
    """

    def __init__(
        self,
        greeting: Callable[[], Iterable[Message]],
        publish: Callable[[Publish | PublishDelta], Message | None],
    ) -> None:
        self._greeting = greeting
        self._publish = publish
        self._connections: set[FeedConnection] = set()
        self._server: asyncio.Server | None = None
        self._path: Path | None = None

    async def open(self, path: Path) -> None:
        """Listen at a path that only this user may open. Raises OSError."""
        sock = open_address(f"unix:{path}", 1).slots[0]
        os.chmod(path, 0o600)
        loop = asyncio.get_running_loop()
        self._server = await loop.create_unix_server(lambda: FeedConnection(self), sock=sock)
        self._path = path

    async def adopt(self, sock: socket.socket) -> None:
        """Serve a connected socket.

        The peer may still be starting. It is greeted at once, so that it misses no message.
        """
        loop = asyncio.get_running_loop()
        _, connection = await loop.connect_accepted_socket(lambda: FeedConnection(self), sock)
        self._greet(connection)

    def close(self) -> None:
        """Stop listening and close every connection."""
        if self._server is not None:
            self._server.close()
        if self._path is not None:
            self._path.unlink(missing_ok=True)
        for connection in list(self._connections):
            connection.close()

    @property
    def connection_count(self) -> int:
        """Number of connections that have been greeted."""
        return len(self._connections)

    def broadcast(self, message: Message) -> None:
        """Send a message to every greeted connection."""
        if self._connections:
            frame = codec.encode(message)
            for connection in list(self._connections):
                connection.send_frame(frame)

    def handle_message(self, connection: FeedConnection, message: Message) -> None:
        """Handle one message from a peer."""
        match message:
            case Hello(role=role):
                connection.role = role
                if connection not in self._connections:
                    self._greet(connection)
            case Publish() | PublishDelta() if connection.role == CONTROL:
                answer = self._publish(message)
                if answer is not None:
                    connection.send(answer)
            case _:
                connection.disconnect(f"it may not send {type(message).__name__}")

    def remove(self, connection: FeedConnection) -> None:
        """Forget a connection that ended."""
        self._connections.discard(connection)

    def _greet(self, connection: FeedConnection) -> None:
        for message in self._greeting():
            connection.send(message)
        self._connections.add(connection)
