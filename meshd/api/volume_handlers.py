"""Handlers for volumes: each turns a request into one call of `port.VolumeControl`.

Registered by `handlers.Handlers`. Archives are streamed both ways, a chunk at a time.
"""

from collections.abc import AsyncIterator, Callable
from typing import Final

import structlog
from aiohttp import web

from meshd.api.port import VolumeControl
from meshd.api.requests import caller, is_set
from meshd.api.responses import closing, json_response
from meshd.model.errors import Rejected
from meshd.runtime.base import RuntimeFailure

TAR: Final = "application/x-tar"
_log: Final = structlog.stdlib.get_logger(__name__)


class VolumeHandlers:
    """One method per operation; `docs/api.md` describes them."""

    def __init__(self, volumes: Callable[[], VolumeControl]) -> None:
        self._volumes = volumes

    def routes(self) -> list[web.RouteDef]:
        """Routes for the owner of the Unix socket."""
        volume = "/v1/volumes/{volume}"
        return [
            web.get("/v1/volumes", self.all),
            web.get(volume + "/archive", self.read),
            web.put(volume + "/archive", self.restore),
            web.post(volume + "/check-restore", self.check_restore),
            web.delete(volume, self.remove),
        ]

    async def all(self, _: web.Request) -> web.Response:
        return json_response(list(await self._volumes().all()))

    async def read(self, request: web.Request) -> web.StreamResponse:
        """Send the archive. An error after the first chunk cuts the connection, so that the client
        does not take the part for the whole."""
        name, live = request.match_info["volume"], is_set(request, "live")
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
        found = await self._volumes().check_restore(name, is_set(request, "force"))
        return json_response({"name": found})

    async def restore(self, request: web.Request) -> web.Response:
        name, force = request.match_info["volume"], is_set(request, "force")
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
