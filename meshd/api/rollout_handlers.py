"""Handlers for rollouts: each turns a request into one call of `port.RolloutControl`.

Registered by `handlers.Handlers`.
"""

from collections.abc import Callable
from typing import Final

from aiohttp import web

from meshd.api.limits import MAX_RELEASES
from meshd.api.port import RolloutControl
from meshd.api.requests import caller, parse_number, service_names
from meshd.api.responses import json_response

_SERVICE: Final = "/v1/projects/{project}/services/{service}"
_MAX_NUMBER: Final = 2**31
"""Largest release number that is accepted."""


class RolloutHandlers:
    """One method per operation; `docs/api.md` describes them."""

    def __init__(self, rollouts: Callable[[], RolloutControl]) -> None:
        self._rollouts = rollouts

    def routes(self) -> list[web.RouteDef]:
        """Routes for the owner of the Unix socket."""
        return [
            web.get(_SERVICE + "/releases", self.releases),
            web.post(_SERVICE + "/undo", self.undo),
            web.post(_SERVICE + "/pause", self.pause),
            web.post(_SERVICE + "/resume", self.resume),
        ]

    async def releases(self, request: web.Request) -> web.Response:
        limit = parse_number(request, "limit", 20, MAX_RELEASES)
        return json_response(list(self._rollouts().releases(*service_names(request), limit)))

    async def undo(self, request: web.Request) -> web.Response:
        to = parse_number(request, "to", 0, _MAX_NUMBER)
        release = await self._rollouts().undo(*service_names(request), to, caller(request))
        return json_response(release, 202)

    async def pause(self, request: web.Request) -> web.Response:
        self._rollouts().pause(*service_names(request), caller(request))
        return web.Response(status=204)

    async def resume(self, request: web.Request) -> web.Response:
        self._rollouts().resume(*service_names(request), caller(request))
        return web.Response(status=204)
