"""A client with HTTP/2 for tests, on a plain socket, and a scene with HTTP/2."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, cast

from proxy.http2 import codec
from proxy.http2.codec import Codec, Fields
from proxy.http2_downstream.connection import Http2Connection
from proxy.request.data_plane import DataPlane
from proxy.tls.session_info import TlsSession
from proxy.wire.snapshot import Listener
from tests.support.proxy_scene import Scene, scene
from tests.support.waiting import BUSY

PATIENCE = 8.0 * BUSY
NO_LIMIT = 1 << 24


def create_client(plane: DataPlane, listener: Listener, tls: TlsSession | None) -> asyncio.Protocol:
    return cast("asyncio.Protocol", Http2Connection(plane, listener, tls))


def http2_scene(plane: dict[str, Any] | None = None, **listener: Any) -> Any:
    """Return a scene that understands HTTP/2."""
    return scene({"create_http2_client": create_client, **(plane or {})}, **listener)


@dataclass
class Answer:
    """What arrived on one stream. `code` is the error code of its end; None while it is open."""

    fields: list[tuple[bytes, bytes]] = field(default_factory=list)
    interim: list[list[tuple[bytes, bytes]]] = field(default_factory=list)
    body: bytearray = field(default_factory=bytearray)
    trailers: list[tuple[bytes, bytes]] = field(default_factory=list)
    complete: bool = False
    code: int | None = None

    @property
    def status(self) -> int:
        return int(dict(self.fields).get(b":status", b"0"))

    def get(self, name: bytes) -> bytes | None:
        return dict(self.fields).get(name)


class Http2Client:
    """One connection. `answers` holds what arrived by stream; `going` the GOAWAY frames as (last
    stream, code)."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.codec = Codec(is_server=False)
        self.answers: dict[int, Answer] = {}
        self.going: list[tuple[int, int]] = []
        self.closed = False
        self.consumes = True
        self.changed = asyncio.Event()
        self.task = asyncio.get_running_loop().create_task(self._read())

    @staticmethod
    def new_answer() -> Answer:
        return Answer()

    async def _read(self) -> None:
        while data := await self._receive():
            for event in self.codec.receive(data):
                self._take(event)
            await self.flush()
            self.changed.set()
        self.closed = True
        self.changed.set()

    async def _receive(self) -> bytes:
        try:
            return await self.reader.read(1 << 16)
        except ConnectionError:
            return b""

    def _take(self, event: codec.Event) -> None:
        if isinstance(event, codec.GoAwayReceived):
            self.going.append((event.last_stream_id, event.error_code))
            return
        stream = getattr(event, "stream_id", 0)
        if not stream:
            return
        answer = self.answers.setdefault(stream, Answer())
        if isinstance(event, codec.ResponseReceived):
            answer.fields = list(event.headers)
            answer.complete = event.end_stream
        elif isinstance(event, codec.InformationalResponseReceived):
            answer.interim.append(list(event.headers))
        elif isinstance(event, codec.DataReceived):
            answer.body += event.data
            answer.complete = event.end_stream
            if self.consumes:
                self.codec.consume(stream, len(event.data))
        elif isinstance(event, codec.TrailersReceived):
            answer.trailers = list(event.headers)
            answer.complete = True
        elif isinstance(event, codec.StreamReset | codec.StreamClosed):
            answer.code = answer.code or event.error_code

    async def flush(self) -> None:
        """Send what the codec has."""
        while data := self.codec.output(NO_LIMIT):
            self.writer.write(data)
        for event in self.codec.events():
            self._take(event)
        try:
            await self.writer.drain()
        except ConnectionError:
            self.closed = True

    async def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.writer.write(data)
        await self.writer.drain()

    async def request(
        self,
        method: bytes = b"GET",
        path: bytes = b"/",
        fields: Fields | None = None,
        body: bytes | None = None,
        *,
        complete: bool = True,
        authority: bytes = b"shop.test",
    ) -> int:
        """Send a request; return its stream. With a body, or if it is not `complete`, its stream
        stays open until the end of the body."""
        head = [
            (b":method", method),
            (b":scheme", b"http"),
            (b":authority", authority),
            (b":path", path),
            *(fields or []),
        ]
        stream = self.codec.send_request(head, complete=complete and body is None)
        self.answers[stream] = Answer()
        if body is not None:
            self.codec.send_data(stream, body, complete=complete)
        await self.flush()
        return stream

    async def data(self, stream: int, data: bytes, *, complete: bool = False) -> None:
        self.codec.send_data(stream, data, complete=complete)
        await self.flush()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Read until a condition holds."""
        async with asyncio.timeout(PATIENCE):
            while not condition():
                if self.closed:
                    raise ConnectionError(f"closed: {self.answers} {self.going}")
                self.changed.clear()
                await self.changed.wait()

    async def answer(self, stream: int) -> Answer:
        """Read until a stream has its whole answer, or was reset."""
        answer = self.answers[stream]
        await self.until(lambda: answer.complete or answer.code is not None)
        return answer

    async def get(self, path: bytes = b"/", **more: Any) -> Answer:
        return await self.answer(await self.request(path=path, **more))

    async def until_closed(self) -> None:
        async with asyncio.timeout(PATIENCE):
            await asyncio.shield(self.task)

    async def close(self) -> None:
        """Close the connection once everything is sent, or after a while at the latest."""
        self.writer.close()
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        try:
            async with asyncio.timeout(BUSY):
                await self.writer.wait_closed()
        except TimeoutError:
            self.writer.transport.abort()
        except OSError:
            return  # it was reset


@asynccontextmanager
async def http2_client(at: Scene) -> AsyncIterator[Http2Client]:
    """A client with prior knowledge."""
    client = Http2Client(*await asyncio.open_connection("127.0.0.1", at.port))
    await client.flush()
    try:
        yield client
    finally:
        await client.close()
