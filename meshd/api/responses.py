"""Writing a response: one JSON document, a page of a list, or a stream. Used by all handlers.

A stream is one JSON document per line, or server-sent events if the client accepts these. A client
that does not read is disconnected: no data is kept for it beyond the buffers of the socket.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Final, TypeVar

import msgspec
import structlog
from aiohttp import web

from meshd.api.parameters import NumberParameter, TextParameter
from meshd.api.routes import EVENT_STREAM, JSON, NDJSON
from meshd.model.errors import ReaderTooSlow
from meshd.model.event import Event

KEEPALIVE: Final = 5.0
"""Seconds of silence after which a stream sends an empty line, to notice a client that has gone."""
WRITE_SECONDS: Final = 30.0
"""Seconds that a client of a stream may take to make room for the next value."""
MAX_PAGE: Final = 1000
"""Largest page of a list."""
LIMIT: Final = NumberParameter("limit", 0, MAX_PAGE, "Values in one response; 0: all.")
AFTER: Final = TextParameter("after", "Only values that follow this one; the next page's link.")
PAGE: Final = (LIMIT, AFTER)
"""Parameters of a list that is returned in pages."""
T = TypeVar("T")
_log: Final = structlog.stdlib.get_logger(__name__)


def json_response(
    value: object, status: int = 200, headers: dict[str, str] | None = None
) -> web.Response:
    """Return a response with `value` encoded as JSON."""
    return web.Response(
        body=msgspec.json.encode(value), status=status, content_type=JSON, headers=headers
    )


def next_link(request: web.Request, **query: str | int) -> dict[str, str]:
    """Return the `Link` header (RFC 8288) to the next page: the same request with other values of
    `query`."""
    return {"Link": f'<{request.rel_url.update_query(query)}>; rel="next"'}


def page_response(
    request: web.Request, values: Sequence[T], key: Callable[[T], str]
) -> web.Response:
    """Return the page of a list that the parameters `PAGE` ask for, in the order of `key`; without
    them the list as it is."""
    limit, after = LIMIT.read(request), AFTER.read(request)
    if not limit and not after:
        return json_response(list(values))
    rest = sorted((value for value in values if key(value) > after), key=key)
    page = rest[: limit or None]
    link = next_link(request, after=key(page[-1])) if len(page) < len(rest) else None
    return json_response(page, headers=link)


@asynccontextmanager
async def closing(values: AsyncIterator[T]) -> AsyncIterator[AsyncIterator[T]]:
    """Close the iterator at the end of the block if it is a generator."""
    try:
        yield values
    finally:
        if isinstance(values, AsyncGenerator):
            await values.aclose()


def _as_line(value: object) -> bytes:
    return msgspec.json.encode(value) + b"\n"


def _as_server_sent_event(value: object) -> bytes:
    """Return a value as an event of the event-stream format (WHATWG HTML, 9.2). The id of an
    `Event` lets a client continue behind it."""
    data = b"data: " + msgspec.json.encode(value) + b"\n\n"
    if isinstance(value, Event):
        return f"id: {value.id}\n".encode() + data
    return data


def accepts_events(request: web.Request) -> bool:
    """Whether the client asks for server-sent events."""
    return EVENT_STREAM in request.headers.get("Accept", "")


async def stream(request: web.Request, values: AsyncIterator[object]) -> web.StreamResponse:
    """Send values as they arrive, until they end or the client disconnects. A client that takes
    nothing for `WRITE_SECONDS`, or that is too far behind, is disconnected."""
    sends_events = accepts_events(request)
    encode = _as_server_sent_event if sends_events else _as_line
    kind, idle = (EVENT_STREAM, b":\n\n") if sends_events else (NDJSON, b"\n")
    response = web.StreamResponse(headers={"Content-Type": kind, "Cache-Control": "no-store"})
    await response.prepare(request)
    pending: asyncio.Future[object] | None = None
    async with closing(values):
        try:
            while True:
                pending = pending or asyncio.ensure_future(anext(values))
                await asyncio.wait([pending], timeout=KEEPALIVE)
                if not pending.done():
                    await _write(response, idle)
                    continue
                value = pending.result()
                pending = None
                await _write(response, encode(value))
        except StopAsyncIteration:
            await response.write_eof()
        except ConnectionResetError:
            _log.debug("client disconnected", path=request.path)
        except (TimeoutError, ReaderTooSlow):
            _log.warning("client of a stream does not read; disconnected", path=request.path)
            if request.transport is not None:
                request.transport.abort()
        finally:
            if pending is not None:
                pending.cancel()
                await asyncio.wait([pending])
    return response


async def _write(response: web.StreamResponse, data: bytes) -> None:
    """Write to a client. Raises TimeoutError if it does not read."""
    async with asyncio.timeout(WRITE_SECONDS):
        await response.write(data)
