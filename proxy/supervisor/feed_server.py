"""The feed: where the control process, and whoever only listens, speaks with the supervisor.

A connection begins with `Hello`. It gets what holds now (generation, addresses, workers, the
last ack of each) and then everything that happens. One in the role of `control` may publish.
A peer that does not read is cut off: nothing is kept for it without bound.
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
from proxy.wire.report import Hello, Message, Publish
from proxy.wire.snapshot import SnapshotUpdate

_log = logging.getLogger(__name__)
LONGEST_QUEUE: Final = 16 * 1024 * 1024
CONTROL: Final = "control"


class FeedClient(asyncio.Protocol):
    """One connection to the feed."""

    def __init__(self, feed: "Feed") -> None:
        self._feed = feed
        self._decoder = codec.Decoder()
        self._transport: asyncio.Transport | None = None
        self.role = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._transport = None
        self._feed.left(self)

    def data_received(self, data: bytes) -> None:
        try:
            for message in self._decoder.feed(data):
                self._feed.received(self, message)
        except codec.BadFrame as error:
            self.cut(f"what it sends is no message: {error}")

    def send(self, message: Message) -> None:
        """Send one message."""
        self.send_frame(codec.encode(message))

    def send_frame(self, frame: bytes) -> None:
        """Send an encoded message; cuts the peer off when it does not read."""
        if self._transport is None:
            return
        self._transport.write(frame)
        if self._transport.get_write_buffer_size() > LONGEST_QUEUE:
            self.cut(f"it left {LONGEST_QUEUE} bytes unread")

    def close(self) -> None:
        """End the connection once what was sent has gone out."""
        if self._transport is not None:
            self._transport.close()

    def cut(self, why: str) -> None:
        """End the connection at once."""
        if self._transport is not None:
            _log.warning("feed connection of %r cut: %s", self.role or "a stranger", why)
            self._transport.abort()
            self._transport = None
            self._feed.left(self)


class Feed:
    """All connections. `greeting` gives what a newcomer is told, `publish` takes an update
    and gives the message that answers it, if any."""

    def __init__(
        self,
        greeting: Callable[[], Iterable[Message]],
        publish: Callable[[SnapshotUpdate], Message | None],
    ) -> None:
        self._greeting = greeting
        self._publish = publish
        self._clients: set[FeedClient] = set()
        self._server: asyncio.Server | None = None
        self._path: Path | None = None

    async def open(self, path: Path) -> None:
        """Listen at a path that only our user may open. Raises OSError."""
        sock = open_address(f"unix:{path}", 1).slots[0]
        os.chmod(path, 0o600)
        loop = asyncio.get_running_loop()
        self._server = await loop.create_unix_server(lambda: FeedClient(self), sock=sock)
        self._path = path

    async def adopt(self, sock: socket.socket) -> None:
        """Serve a connected socket. Its peer, a process that is only starting, is told
        everything from now on, so that it misses no report."""
        loop = asyncio.get_running_loop()
        _, client = await loop.connect_accepted_socket(lambda: FeedClient(self), sock)
        self._greet(client)

    def close(self) -> None:
        """Stop listening and end every connection."""
        if self._server is not None:
            self._server.close()
        if self._path is not None:
            self._path.unlink(missing_ok=True)
        for client in list(self._clients):
            client.close()

    @property
    def connections(self) -> int:
        """How many have said hello and are there."""
        return len(self._clients)

    def relay(self, message: Message) -> None:
        """Tell everyone."""
        if self._clients:
            frame = codec.encode(message)
            for client in list(self._clients):
                client.send_frame(frame)

    def received(self, client: FeedClient, message: Message) -> None:
        """One message from a peer."""
        match message:
            case Hello(role=role):
                client.role = role
                if client not in self._clients:
                    self._greet(client)
            case Publish(update=update) if client.role == CONTROL:
                answer = self._publish(update)
                if answer is not None:
                    client.send(answer)
            case _:
                client.cut(f"{type(message).__name__} is not for it to send")

    def _greet(self, client: FeedClient) -> None:
        for each in self._greeting():
            client.send(each)
        self._clients.add(client)

    def left(self, client: FeedClient) -> None:
        """A connection ended."""
        self._clients.discard(client)
