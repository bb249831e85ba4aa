"""Handlers of what the web page shows: the live state, sparklines, heat maps, and sign-in links.

Listed in `route_table`; programs may use them too.
"""

from typing import Final

import msgspec
from aiohttp import web

from meshd.api.handlers import FOLLOW, SINCE, UNTIL
from meshd.api.port import Control
from meshd.api.requests import identity, service_names
from meshd.api.responses import accepts_events, json_response, stream
from meshd.model.access import NewSignInLink

FOLLOWED: Final = (FOLLOW,)
SPARKLINES: Final = (SINCE,)
LATENCIES: Final = (SINCE, UNTIL)


class PageHandlers:
    """One method per operation; `docs/api.md` describes them."""

    def __init__(self, control: Control) -> None:
        self._control = control

    async def live(self, request: web.Request) -> web.StreamResponse:
        project = identity(request).project
        if FOLLOW.read(request) or accepts_events(request):
            return await stream(request, self._control.follow_live(project))
        return json_response(self._control.live(project))

    async def sparklines(self, request: web.Request) -> web.Response:
        since = SINCE.read(request)
        return json_response(list(self._control.sparklines(since, identity(request).project)))

    async def latencies(self, request: web.Request) -> web.Response:
        since, until = SINCE.read(request), UNTIL.read(request)
        return json_response(self._control.latencies(*service_names(request), since, until))

    async def create_link(self, request: web.Request) -> web.Response:
        new = msgspec.json.decode(await request.read() or b"{}", type=NewSignInLink)
        return json_response(self._control.sign_in_link(identity(request), new), 201)
