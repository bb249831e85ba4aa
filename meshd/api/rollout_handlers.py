"""Handlers for rollouts: each turns a request into one call of `port.RolloutControl`.

Listed in `route_table`.
"""

from collections.abc import Callable
from typing import Final

from aiohttp import web

from meshd.api.limits import MAX_RELEASES
from meshd.api.parameters import NumberParameter
from meshd.api.port import RolloutControl
from meshd.api.requests import caller, service_names
from meshd.api.responses import json_response

_MAX_NUMBER: Final = 2**31
"""Largest release number that is accepted."""
RELEASES: Final = NumberParameter("limit", 20, MAX_RELEASES, "Releases in one response.")
TO: Final = NumberParameter("to", 0, _MAX_NUMBER, "Release to go back to; 0: the last good one.")


class RolloutHandlers:
    """One method per operation; `docs/api.md` describes them."""

    def __init__(self, rollouts: Callable[[], RolloutControl]) -> None:
        self._rollouts = rollouts

    async def releases(self, request: web.Request) -> web.Response:
        limit = RELEASES.read(request)
        return json_response(list(self._rollouts().releases(*service_names(request), limit)))

    async def undo(self, request: web.Request) -> web.Response:
        to = TO.read(request)
        release = await self._rollouts().undo(*service_names(request), to, caller(request))
        return json_response(release, 202)

    async def pause(self, request: web.Request) -> web.Response:
        self._rollouts().pause(*service_names(request), caller(request))
        return web.Response(status=204)

    async def resume(self, request: web.Request) -> web.Response:
        self._rollouts().resume(*service_names(request), caller(request))
        return web.Response(status=204)
