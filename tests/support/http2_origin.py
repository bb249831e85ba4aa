"""A scripted origin with HTTP/2 for tests, on the codec in the role of a server."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

from proxy.http2 import codec
from proxy.http2.codec import Codec
from proxy.http2_upstream.pool import create_pool
from proxy.request.data_plane import DataPlane
from proxy.state.endpoint_state import EndpointState

Handler = Callable[["Call"], Awaitable[None]]


class Call:
    """One request. `fields` are those of its head; `received` gets pieces of its body, then None,
    or the error code of a reset."""

    def __init__(self, connection: "Http2OriginConnection", number: int, fields: Any) -> None:
        self.connection = connection
        self.number = number
        self.fields = dict(fields)
        self.received: asyncio.Queue[bytes | int | None] = asyncio.Queue()
        self.trailers: dict[bytes, bytes] = {}
        self.body = b""

    async def read(self) -> bytes:
        """Read the whole body."""
        while (piece := await self.received.get()) is not None:
            if isinstance(piece, int):
                raise ConnectionError(f"reset with {piece}")
            self.body += piece
        return self.body

    def respond(self, status: int = 200, body: bytes = b"", *more: tuple[bytes, bytes]) -> None:
        """Send a whole response."""
        self.head(status, (b"content-length", b"%d" % len(body)), *more, complete=not body)
        if body:
            self.data(body, complete=True)

    def head(self, status: int, *more: tuple[bytes, bytes], complete: bool = False) -> None:
        fields = [(b":status", b"%d" % status), *more]
        self.connection.codec.send_response(self.number, fields, complete=complete)
        self.connection.flush()

    def data(self, data: bytes, *, complete: bool = False) -> None:
        self.connection.codec.send_data(self.number, data, complete=complete)
        self.connection.flush()

    def end(self, *trailers: tuple[bytes, bytes]) -> None:
        """End the response with trailers."""
        self.connection.codec.send_trailers(self.number, list(trailers))
        self.connection.flush()

    def reset(self, code: int) -> None:
        self.connection.codec.reset(self.number, code)
        self.connection.flush()


class Http2OriginConnection(asyncio.Protocol):
    """One connection to the origin."""

    def __init__(self, origin: "Http2Origin") -> None:
        self.origin = origin
        self.codec = Codec(is_server=True)
        self.calls: dict[int, Call] = {}
        self.full = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.origin.connections.append(self)
        if self.origin.most_streams:
            self.codec._connection.update_settings({3: self.origin.most_streams})
        if self.origin.distance:
            self.full = True
            asyncio.get_running_loop().call_later(self.origin.distance, self.resume_writing)
        self.flush()

    def data_received(self, data: bytes) -> None:
        for event in self.codec.receive(data):
            if isinstance(event, codec.RequestReceived):
                self.codec.last_stream = event.stream_id
                call = self.calls[event.stream_id] = Call(self, event.stream_id, event.headers)
                self.origin.calls.append(call)
                self.origin.open += 1
                self.origin.most_open = max(self.origin.most_open, self.origin.open)
                if event.end_stream:
                    call.received.put_nowait(None)
                self.origin.start(call)
            elif isinstance(event, codec.DataReceived):
                if self.origin.consumes:
                    self.codec.consume(event.stream_id, len(event.data))
                queue = self.calls[event.stream_id].received
                if event.data:
                    queue.put_nowait(event.data)
                if event.end_stream:
                    queue.put_nowait(None)
            elif isinstance(event, codec.TrailersReceived):
                self.calls[event.stream_id].trailers = dict(event.headers)
                self.calls[event.stream_id].received.put_nowait(None)
            elif isinstance(event, codec.StreamReset):
                self.calls[event.stream_id].received.put_nowait(int(event.error_code))
            elif isinstance(event, codec.StreamClosed):
                self.origin.open -= 1
        self.flush()

    def flush(self) -> None:
        while not self.full and (data := self.codec.output(1 << 16)):
            self.transport.write(data)

    def pause_writing(self) -> None:
        self.full = True

    def resume_writing(self) -> None:
        self.full = False
        self.flush()


class Http2Origin:
    """The server. `calls` are all requests so far, `most_open` the most at a time. With `consumes`
    unset, its handler takes bytes of requests from the window. `distance` is the number of seconds
    until its first bytes arrive."""

    def __init__(self, handler: Handler, most_streams: int = 0) -> None:
        self.handler = handler
        self.most_streams = most_streams
        self.consumes = True
        self.distance = 0.0
        self.connections: list[Http2OriginConnection] = []
        self.calls: list[Call] = []
        self.open = self.most_open = 0
        self.port = 0
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, call: Call) -> None:
        task = asyncio.ensure_future(self._run(call))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, call: Call) -> None:
        with contextlib.suppress(ConnectionError):
            await self.handler(call)

    def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        for connection in self.connections:
            connection.transport.abort()


@asynccontextmanager
async def http2_origin(
    handler: Handler, *, tls: ssl.SSLContext | None = None, most_streams: int = 0
) -> AsyncIterator[Http2Origin]:
    """Run an origin; with `tls` it chooses HTTP/2 by ALPN."""
    origin = Http2Origin(handler, most_streams)
    if tls is not None:
        tls.set_alpn_protocols(["h2"])
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: Http2OriginConnection(origin), "127.0.0.1", 0, ssl=tls
    )
    origin.port = server.sockets[0].getsockname()[1]
    try:
        yield origin
    finally:
        server.close()
        origin.stop()


def with_http2(**plane: Any) -> dict[str, Any]:
    """Return the arguments of a data plane that speaks HTTP/2 to endpoints."""
    return {"create_stream_pool": create_pool, **plane}


async def echo(call: Call) -> None:
    """Answer with the method, the path and the body."""
    body = await call.read()
    call.respond(200, call.fields[b":method"] + b" " + call.fields[b":path"] + b" " + body)


__all__ = [
    "Call",
    "DataPlane",
    "EndpointState",
    "Http2Origin",
    "echo",
    "http2_origin",
    "with_http2",
]
