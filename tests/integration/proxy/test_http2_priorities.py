"""Priorities of HTTP/2 streams (RFC 9218): they decide the order of DATA frames."""

import asyncio
import itertools
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from proxy.http2_downstream.connection import Http2Connection
from tests.support.http2 import http2_scene
from tests.support.proxy_scene import Scene, Visit, on_uvloop
from tests.support.waiting import BUSY, wait_until

DATA, HEADERS, SETTINGS, WINDOW_UPDATE, PRIORITY_UPDATE = 0, 1, 4, 8, 16
WINDOW = 65_535
"""Bytes that the connection may carry before the first WINDOW_UPDATE."""
BODY = 50_000
"""Bytes of a response: several frames, and less than the proxy takes from an upstream ahead."""


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    head = struct.pack("!I", len(payload))[1:]
    return head + struct.pack("!BBI", kind, flags, stream) + payload


class RawClient:
    """Sends and reads frames one by one. `order` has the stream of each DATA frame."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer
        self.order: list[int] = []
        self.left: dict[int, int] = {}

    def send(self, kind: int, flags: int, stream: int, payload: bytes = b"") -> None:
        self.writer.write(frame(kind, flags, stream, payload))

    def get(self, stream: int, path: bytes, priority: bytes = b"") -> None:
        fields = [(b":method", b"GET"), (b":scheme", b"http"), (b":path", path)]
        fields += [(b":authority", b"shop.test")]
        fields += [(b"priority", priority)] if priority else []
        block = b"".join(
            b"\0%c%b%c%b" % (len(name), name, len(value), value) for name, value in fields
        )
        self.left[stream] = WINDOW if path == b"/fill" else BODY
        self.send(HEADERS, 5, stream, block)

    async def read_until(self, *streams: int) -> None:
        """Read until these responses are complete."""
        async with asyncio.timeout(8 * BUSY):
            while any(self.left[stream] for stream in streams):
                head = await self._reader.readexactly(9)
                size = int.from_bytes(head[:3], "big")
                await self._reader.readexactly(size)
                if head[3] == DATA:
                    stream = int.from_bytes(head[5:], "big")
                    self.left[stream] -= size
                    if size:
                        self.order.append(stream)


async def respond(visit: Visit) -> None:
    while True:
        size = WINDOW if b" /fill " in await visit.head() else BODY
        head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size
        await visit.send(head + bytes(size))


@asynccontextmanager
async def full_connection(scene: Scene) -> AsyncIterator[RawClient]:
    """Yield a client whose flow control window for the whole connection is used up, so that
    responses wait in the proxy until `release`."""
    await scene.serve(*[respond] * 4)
    reader, writer = await asyncio.open_connection("127.0.0.1", scene.port)
    client = RawClient(reader, writer)
    try:
        writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(SETTINGS, 0, 0))
        client.get(1, b"/fill")
        await client.read_until(1)
        client.order.clear()
        yield client
    finally:
        writer.close()


async def release(scene: Scene, client: RawClient, *streams: int) -> list[int]:
    """Wait until the responses wait in the proxy; let them go; return the order of frames."""
    (connection,) = [each for each in scene.plane.clients if isinstance(each, Http2Connection)]
    waiting = BODY * len(streams)
    await wait_until(lambda: connection.codec.unsent_on_all() == waiting, 8, "responses wait")
    client.send(WINDOW_UPDATE, 0, 0, struct.pack("!I", waiting))
    await client.read_until(*streams)
    return client.order


def runs(order: list[int]) -> list[int]:
    """Return the streams in the order of frames, each series of one stream as one."""
    return [stream for stream, _ in itertools.groupby(order)]


@on_uvloop
async def test_the_more_urgent_response_is_sent_first() -> None:
    async with http2_scene() as scene, full_connection(scene) as client:
        client.get(3, b"/later", b"u=5")
        client.get(5, b"/default")
        client.get(7, b"/first", b"u=0")
        assert runs(await release(scene, client, 3, 5, 7)) == [7, 5, 3]


@on_uvloop
async def test_incremental_responses_take_turns_and_others_do_not() -> None:
    async with http2_scene() as scene, full_connection(scene) as client:
        client.get(3, b"/a", b"i")
        client.get(5, b"/b", b"i")
        order = await release(scene, client, 3, 5)
        assert len(runs(order)) >= len(order) - 1, order
    async with http2_scene() as scene, full_connection(scene) as client:
        client.get(3, b"/a")
        client.get(5, b"/b")
        order = await release(scene, client, 3, 5)
        assert runs(order) == [3, 5]
        assert len(order) > 4


@on_uvloop
async def test_an_update_changes_the_order() -> None:
    async with http2_scene() as scene, full_connection(scene) as client:
        client.get(3, b"/a", b"u=2")
        client.get(5, b"/b", b"u=4")
        client.send(PRIORITY_UPDATE, 0, 0, struct.pack("!I", 5) + b"u=1")
        assert runs(await release(scene, client, 3, 5)) == [5, 3]
