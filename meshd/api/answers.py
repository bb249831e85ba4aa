"""What every operation of the API needs: answers in JSON, streams of it, and who asks."""

import asyncio
import pwd
import socket
import struct
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, TypeVar

import msgspec
import structlog
from aiohttp import web

HEARTBEAT: Final = 5.0
T = TypeVar("T")
_log: Final = structlog.stdlib.get_logger(__name__)
_UCRED: Final = struct.Struct("3i")


def answer(value: object, status: int = 200) -> web.Response:
    """`value` as a JSON answer."""
    return web.Response(
        body=msgspec.json.encode(value), status=status, content_type="application/json"
    )


def caller(request: web.Request) -> str:
    """The user at the other end of the Unix socket, as the kernel tells it."""
    connection = request.transport.get_extra_info("socket") if request.transport else None
    if connection is None or connection.family != socket.AF_UNIX:
        return "unknown"
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    uid = _UCRED.unpack(raw)[1]
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


@asynccontextmanager
async def closing(values: AsyncIterator[T]) -> AsyncIterator[AsyncIterator[T]]:
    """Ends an iterator at the end of the block, where it is a generator that can be ended."""
    try:
        yield values
    finally:
        if isinstance(values, AsyncGenerator):
            await values.aclose()


async def stream(request: web.Request, values: AsyncIterator[object]) -> web.StreamResponse:
    """Values as they come, one JSON document a line, until they or the client end. An empty
    line each few seconds is how a client that has gone is noticed."""
    response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
    await response.prepare(request)
    following: asyncio.Future[object] | None = None
    async with closing(values):
        try:
            while True:
                following = following or asyncio.ensure_future(anext(values))
                await asyncio.wait([following], timeout=HEARTBEAT)
                if not following.done():
                    await response.write(b"\n")
                    continue
                value = following.result()
                following = None
                await response.write(msgspec.json.encode(value) + b"\n")
        except StopAsyncIteration:
            await response.write_eof()
        except ConnectionResetError:
            _log.debug("a client stopped reading", path=request.path)
        finally:
            if following is not None:
                following.cancel()
                await asyncio.wait([following])
    return response
