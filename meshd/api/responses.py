"""Writing a response: one JSON document, or a stream of them. Used by all handlers of the API."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, TypeVar

import msgspec
import structlog
from aiohttp import web

KEEPALIVE: Final = 5.0
"""Seconds of silence after which a stream sends an empty line, to notice a client that has gone."""
T = TypeVar("T")
_log: Final = structlog.stdlib.get_logger(__name__)


def json_response(value: object, status: int = 200) -> web.Response:
    """Return a response with `value` encoded as JSON."""
    return web.Response(
        body=msgspec.json.encode(value), status=status, content_type="application/json"
    )


@asynccontextmanager
async def closing(values: AsyncIterator[T]) -> AsyncIterator[AsyncIterator[T]]:
    """Close the iterator at the end of the block if it is a generator."""
    try:
        yield values
    finally:
        if isinstance(values, AsyncGenerator):
            await values.aclose()


async def stream(request: web.Request, values: AsyncIterator[object]) -> web.StreamResponse:
    """Send values as they arrive, one JSON document per line, until they end or the client
    disconnects."""
    response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
    await response.prepare(request)
    pending: asyncio.Future[object] | None = None
    async with closing(values):
        try:
            while True:
                pending = pending or asyncio.ensure_future(anext(values))
                await asyncio.wait([pending], timeout=KEEPALIVE)
                if not pending.done():
                    await response.write(b"\n")
                    continue
                value = pending.result()
                pending = None
                await response.write(msgspec.json.encode(value) + b"\n")
        except StopAsyncIteration:
            await response.write_eof()
        except ConnectionResetError:
            _log.debug("client disconnected", path=request.path)
        finally:
            if pending is not None:
                pending.cancel()
                await asyncio.wait([pending])
    return response
