"""Handlers for volumes: each turns a request into one call of `port.VolumeControl`.

Listed in `route_table`. Archives are streamed both ways, a chunk at a time.
"""

from collections.abc import AsyncIterator, Callable
from typing import Final

import structlog
from aiohttp import web

from meshd.api.dto import VolumeName
from meshd.api.parameters import FlagParameter
from meshd.api.port import VolumeControl
from meshd.api.requests import caller
from meshd.api.responses import closing, json_response, page_response
from meshd.api.routes import TAR
from meshd.model.errors import Rejected
from meshd.runtime.base import RuntimeFailure

LIVE: Final = FlagParameter("live", "Leave the services with the volume running.")
FORCE: Final = FlagParameter("force", "Also if the volume has content.")
_log: Final = structlog.stdlib.get_logger(__name__)


class VolumeHandlers:
    """One method per operation; `docs/api.md` describes them."""

    def __init__(self, volumes: Callable[[], VolumeControl]) -> None:
        self._volumes = volumes

    async def all(self, request: web.Request) -> web.Response:
        return page_response(request, await self._volumes().all(), lambda each: each.name)

    async def read(self, request: web.Request) -> web.StreamResponse:
        """Send the archive. An error after the first chunk cuts the connection, so that the client
        does not take the part for the whole."""
        name, live = request.match_info["volume"], LIVE.read(request)
        response = web.StreamResponse(headers={"Content-Type": TAR})
        async with closing(self._volumes().read(name, live, caller(request))) as chunks:
            first = await anext(chunks, b"")
            await response.prepare(request)
            try:
                await response.write(first)
                async for chunk in chunks:
                    await response.write(chunk)
                await response.write_eof()
            except ConnectionResetError:
                _log.info("client disconnected during a backup", volume=name)
            except (RuntimeFailure, Rejected) as error:
                _log.warning("backup failed", volume=name, error=str(error))
                if request.transport is not None:
                    request.transport.abort()
        return response

    async def check_restore(self, request: web.Request) -> web.Response:
        name = request.match_info["volume"]
        found = await self._volumes().check_restore(name, FORCE.read(request))
        return json_response(VolumeName(found))

    async def restore(self, request: web.Request) -> web.Response:
        name, force = request.match_info["volume"], FORCE.read(request)
        await self._volumes().restore(name, _body(request), force, caller(request))
        return web.Response(status=204)

    async def remove(self, request: web.Request) -> web.Response:
        await self._volumes().remove(request.match_info["volume"], caller(request))
        return web.Response(status=204)


async def _body(request: web.Request) -> AsyncIterator[bytes]:
    """Yield the body of a request. Raises Rejected if the client disconnects."""
    try:
        async for chunk in request.content.iter_any():
            yield chunk
    except (ConnectionError, web.RequestPayloadError) as error:
        raise Rejected("the client disconnected before the archive was complete") from error
