"""Handlers for silences: each turns a request into one call of `port.SilenceControl`.

Listed in `route_table`.
"""

from collections.abc import Callable

import msgspec
from aiohttp import web

from meshd.api.port import SilenceControl
from meshd.api.requests import caller, identity, visible
from meshd.api.responses import json_response
from meshd.model.errors import NotFound
from meshd.model.silence import NewSilence


class SilenceHandlers:
    """One method per operation; `docs/api.md` describes them. A caller for one project sees and
    changes the silences of that project only."""

    def __init__(self, silences: Callable[[], SilenceControl]) -> None:
        self._silences = silences

    async def silences(self, request: web.Request) -> web.Response:
        found = self._silences().silences()
        return json_response([each for each in found if visible(request, each.project)])

    async def create(self, request: web.Request) -> web.Response:
        new = msgspec.json.decode(await request.read(), type=NewSilence)
        only = identity(request).project
        if only and new.project != only:
            raise web.HTTPForbidden(text=f"this caller may silence the project {only} only")
        return json_response(self._silences().create_silence(new, caller(request)), 201)

    async def remove(self, request: web.Request) -> web.Response:
        id = request.match_info["silence"]
        found = [each for each in self._silences().silences() if each.id == id]
        if found and not visible(request, found[0].project):
            raise NotFound(f"no silence {id!r}; `meshd silence ls` lists them")
        self._silences().remove_silence(id)
        return web.Response(status=204)
