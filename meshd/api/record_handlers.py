"""Handlers for records of the flight recorder: each turns a request into one call of
`port.RecordControl`.

Listed in `route_table`.
"""

from collections.abc import Callable
from typing import Final

from aiohttp import web

from meshd.api.parameters import NumberParameter, TextParameter
from meshd.api.port import RecordControl
from meshd.api.requests import caller, service_names, visible
from meshd.api.responses import json_response, page_response
from meshd.model.errors import NotFound
from proxy.observe.flight import RecordInfo
from proxy.observe.tap import Matcher, TapFilter

MAX_FLIGHTS: Final = 100_000
"""Requests in one response: more than a record of 32 workers has."""
_MAX_MILLISECONDS: Final = 86_400_000
"""A day."""
PATH: Final = TextParameter("path", "Only requests whose target matches this regular expression.")
STATUS: Final = TextParameter("status", "Only this status, e.g. 404 or 5xx.")
SLOWER: Final = NumberParameter(
    "slower", 0, _MAX_MILLISECONDS, "Only requests that took at least this many milliseconds."
)
FLIGHTS: Final = NumberParameter("limit", 1000, MAX_FLIGHTS, "Requests in one response.")


class RecordHandlers:
    """One method per operation; `docs/api.md` describes them."""

    def __init__(self, records: Callable[[], RecordControl]) -> None:
        self._records = records

    async def save(self, request: web.Request) -> web.Response:
        return json_response(self._records().save("", "", caller(request)), 202)

    async def save_service(self, request: web.Request) -> web.Response:
        found = self._records().save(*service_names(request), caller(request))
        return json_response(found, 202)

    async def list(self, request: web.Request) -> web.Response:
        found = [each for each in self._records().list() if _is_visible(request, each)]
        return page_response(request, found, lambda each: each.id)

    async def show(self, request: web.Request) -> web.Response:
        """Send the newest requests of a record that match, oldest first."""
        id = request.match_info["record"]
        if not _is_visible(request, self._records().find(id)):
            raise NotFound(f"there is no record {id!r}; `meshd record list` lists them")
        wanted = TapFilter(
            path=PATH.read(request),
            status=STATUS.read(request),
            slower=SLOWER.read(request) / 1000.0,
        )
        limit = FLIGHTS.read(request)
        try:
            matcher = Matcher(wanted)
        except ValueError as error:
            raise web.HTTPBadRequest(text=str(error)) from error
        found = await self._records().read(id)
        matching = [flight for flight in found if matcher.matches(flight.request)]
        return json_response(matching[-limit:] if limit else [])


def _is_visible(request: web.Request, record: RecordInfo) -> bool:
    """Whether the caller may see a record: one of all services has those of other projects."""
    return visible(request, record.service.partition("/")[0])
