"""The feed socket: who may say what, and what happens to those who do not listen."""

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from proxy.supervisor.feed_server import MAX_UNREAD, FeedServer
from proxy.wire import codec
from proxy.wire.report import Hello, Message, Publish, PublishDelta, Wake, Workers
from proxy.wire.snapshot import Generation, Snapshot, difference

UPDATE = difference(None, Snapshot(Generation(1, 1)))


class Peer:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.decoder = codec.Decoder()

    def send(self, *messages: Message) -> None:
        self.writer.write(b"".join(map(codec.encode, messages)))

    async def next(self) -> Message | None:
        """The next message; None when the connection ended."""
        while True:
            data = await self.reader.read(1)
            if not data:
                return None
            for message in self.decoder.feed(data):
                return message


class Scene:
    def __init__(self) -> None:
        self.published: list[Publish | PublishDelta] = []
        self.answer: Message | None = None
        self.feed = FeedServer(lambda: [Hello("supervisor"), Workers((1, 2))], self._publish)
        self.directory = tempfile.TemporaryDirectory()
        self.path = Path(self.directory.name) / "feed.sock"
        self.peers: list[Peer] = []

    def _publish(self, message: Publish | PublishDelta) -> Message | None:
        self.published.append(message)
        return self.answer

    async def connect(self) -> Peer:
        peer = Peer(*await asyncio.open_unix_connection(str(self.path)))
        self.peers.append(peer)
        return peer

    async def greeted(self, role: str) -> Peer:
        peer = await self.connect()
        peer.send(Hello(role))
        assert [await peer.next(), await peer.next()] == [Hello("supervisor"), Workers((1, 2))]
        return peer


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    made = Scene()
    await made.feed.open(made.path)
    yield made
    made.feed.close()
    for peer in made.peers:
        peer.writer.close()
    made.directory.cleanup()


async def test_only_the_owner_may_connect(scene: Scene) -> None:
    assert os.stat(scene.path).st_mode & 0o777 == 0o600


async def test_the_control_process_publishes_and_gets_answers(scene: Scene) -> None:
    scene.answer = Hello("supervisor", Generation(4, 4))
    peer = await scene.greeted("control")
    peer.send(Publish(UPDATE))
    assert await peer.next() == scene.answer
    assert scene.published == [Publish(UPDATE)]


@pytest.mark.parametrize("role", ["listener", ""])
async def test_only_the_control_process_publishes(scene: Scene, role: str) -> None:
    peer = await scene.greeted(role)
    peer.send(Publish(UPDATE))
    assert await peer.next() is None
    assert scene.published == []


async def test_an_unknown_client_gets_nothing(scene: Scene) -> None:
    peer = await scene.connect()
    scene.feed.broadcast(Wake(1, "shop/web"))
    peer.send(Publish(UPDATE))
    assert await peer.next() is None
    assert scene.published == []


@pytest.mark.parametrize("noise", [b"\0\0\0\1x", b"\xff\xff\xff\xff", b"GET / HTTP/1.1\r\n\r\n"])
async def test_invalid_bytes_end_only_their_connection(scene: Scene, noise: bytes) -> None:
    other = await scene.greeted("listener")
    peer = await scene.connect()
    peer.writer.write(noise)
    assert await peer.next() is None
    scene.feed.broadcast(Wake(1, "shop/web"))
    assert await other.next() == Wake(1, "shop/web")


async def test_a_client_that_does_not_read_is_disconnected(scene: Scene) -> None:
    deaf = await scene.greeted("listener")
    deaf.writer.transport.pause_reading()  # type: ignore[attr-defined]
    large = Wake(1, "x" * 1_000_000)
    for _ in range(MAX_UNREAD // 1_000_000 + 3):
        scene.feed.broadcast(large)
    assert scene.feed.connection_count == 0
    other = await scene.greeted("listener")
    scene.feed.broadcast(Wake(2, "shop/web"))
    assert await other.next() == Wake(2, "shop/web")
