"""Handlers for tokens and the audit log: each turns a request into one call of
`port.AccessControl`.

Listed in `route_table`.
"""

from collections.abc import Callable
from typing import Final

import msgspec
from aiohttp import web

from meshd.api.limits import MAX_EVENTS
from meshd.api.parameters import NumberParameter
from meshd.api.port import AccessControl
from meshd.api.requests import caller, identity
from meshd.api.responses import json_response, next_link, page_response
from meshd.model.access import CurrentCaller, NewToken

_MAX_ID: Final = 2**63 - 1
"""Largest id that is accepted: the largest integer of SQLite."""
BEFORE_ID: Final = NumberParameter("before", 0, _MAX_ID, "Only entries with a smaller id; 0: all.")
ENTRIES: Final = NumberParameter("limit", 100, MAX_EVENTS, "Entries in one response.")


class AccessHandlers:
    """One method per operation; `docs/api.md` describes them."""

    def __init__(self, access: Callable[[], AccessControl]) -> None:
        self._access = access

    async def current(self, request: web.Request) -> web.Response:
        found = identity(request)
        return json_response(CurrentCaller(found.who, found.role, found.project, found.source))

    async def tokens(self, request: web.Request) -> web.Response:
        return page_response(request, self._access().tokens(), lambda each: each.id)

    async def create(self, request: web.Request) -> web.Response:
        new = msgspec.json.decode(await request.read(), type=NewToken)
        return json_response(self._access().create_token(new, caller(request)), 201)

    async def revoke(self, request: web.Request) -> web.Response:
        self._access().revoke_token(request.match_info["token"])
        return web.Response(status=204)

    async def audit(self, request: web.Request) -> web.Response:
        before, limit = BEFORE_ID.read(request), ENTRIES.read(request)
        found = list(self._access().audit(before, limit))
        link = next_link(request, before=found[-1].id) if found[limit - 1 :] else None
        return json_response(found, headers=link)
