"""The API of rollouts: requests into calls of `Rollouts`."""

from collections.abc import Callable
from typing import Final

from aiohttp import web

from meshd.api.answers import answer, caller
from meshd.api.model import Rollouts

MOST: Final = 100
_SERVICE: Final = "/v1/projects/{project}/services/{service}"


class RolloutHandlers:
    """One method an operation; `docs/api.md` describes them."""

    def __init__(self, rollouts: Callable[[], Rollouts]) -> None:
        self._rollouts = rollouts

    def routes(self) -> list[web.RouteDef]:
        """What the owner of the Unix socket may do."""
        return [
            web.get(_SERVICE + "/releases", self.releases),
            web.post(_SERVICE + "/undo", self.undo),
            web.post(_SERVICE + "/pause", self.pause),
            web.post(_SERVICE + "/resume", self.resume),
        ]

    async def releases(self, request: web.Request) -> web.Response:
        limit = _number(request, "limit", 20, MOST)
        return answer(list(self._rollouts().releases(*_names(request), limit)))

    async def undo(self, request: web.Request) -> web.Response:
        to = _number(request, "to", 0, 2**31)
        begun = await self._rollouts().undo(*_names(request), to, caller(request))
        return answer(begun, 202)

    async def pause(self, request: web.Request) -> web.Response:
        self._rollouts().pause(*_names(request), caller(request))
        return web.Response(status=204)

    async def resume(self, request: web.Request) -> web.Response:
        self._rollouts().resume(*_names(request), caller(request))
        return web.Response(status=204)


def _names(request: web.Request) -> tuple[str, str]:
    return request.match_info["project"], request.match_info["service"]


def _number(request: web.Request, name: str, default: int, most: int) -> int:
    text = request.query.get(name, str(default))
    if not text.isdecimal() or int(text) > most:
        raise web.HTTPBadRequest(text=f"{name}={text!r} is not a whole number up to {most}")
    return int(text)
