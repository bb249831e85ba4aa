"""Handlers for nodes: each turns a request into one call of `port.NodeControl`.

Listed in `route_table`.
"""

from collections.abc import Callable
from typing import Final

from aiohttp import web

from meshd.api.parameters import FlagParameter, NumberParameter
from meshd.api.port import NodeControl
from meshd.api.requests import caller
from meshd.api.responses import json_response, page_response

_DAY: Final = 86400
"""The longest time for a drain, and for a join token, in seconds."""
SECONDS: Final = NumberParameter("seconds", 600, _DAY, "Seconds after which the drain gives up.")
LEAVE_VOLUMES: Final = FlagParameter("force", "Leave volumes on the node behind.")
TOKEN_SECONDS: Final = NumberParameter("seconds", 3600, _DAY, "Seconds for which it is valid.")
DRY_RUN: Final = FlagParameter("dry_run", "Only say what would move and what prevents it.")


class NodeHandlers:
    """One method per operation; `docs/api.md` describes them."""

    def __init__(self, nodes: Callable[[], NodeControl]) -> None:
        self._nodes = nodes

    async def all(self, request: web.Request) -> web.Response:
        return page_response(request, await self._nodes().nodes(), lambda each: each.name)

    async def drain(self, request: web.Request) -> web.Response:
        seconds, force = SECONDS.read(request), LEAVE_VOLUMES.read(request)
        drain = await self._nodes().drain(
            _name(request), seconds, force, DRY_RUN.read(request), caller(request)
        )
        return json_response(drain, 202)

    async def cordon(self, request: web.Request) -> web.Response:
        await self._nodes().cordon(_name(request), caller(request))
        return web.Response(status=204)

    async def uncordon(self, request: web.Request) -> web.Response:
        await self._nodes().uncordon(_name(request), caller(request))
        return web.Response(status=204)

    async def make_token(self, request: web.Request) -> web.Response:
        seconds = max(1, TOKEN_SECONDS.read(request))
        return json_response(await self._nodes().make_token(seconds, caller(request)), 201)

    async def remove_proxy(self, request: web.Request) -> web.Response:
        await self._nodes().remove_proxy(_name(request), caller(request))
        return web.Response(status=204)

    async def rebalance(self, request: web.Request) -> web.Response:
        return json_response(
            await self._nodes().rebalance(DRY_RUN.read(request), caller(request)), 202
        )


def _name(request: web.Request) -> str:
    return request.match_info["node"]
