"""Handlers: each turns a request into one call of `port.Control`, and its result into JSON.

`route_table` lists them with their routes; `job_handlers`, `rollout_handlers` and `volume_handlers`
have those of jobs, rollouts and volumes. Nothing is decided here: an exception becomes a status
code in `problems`.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Final

import msgspec
from aiohttp import web

from meshd.api.dto import Health, LogLine, ScaleOverride
from meshd.api.limits import MAX_EVENTS, MAX_LOG_LINES
from meshd.api.parameters import MAX_DIGITS, FlagParameter, NumberParameter, TextParameter
from meshd.api.port import Control, RecordControl
from meshd.api.requests import caller, identity, project_name, service_names, visible
from meshd.api.responses import (
    accepts_events,
    closing,
    json_response,
    next_link,
    page_response,
    stream,
)
from meshd.model.errors import NotFound
from meshd.model.event import Event
from meshd.model.output import OutputQuery
from meshd.spec.model import Project
from proxy.observe.flight import RecordInfo
from proxy.observe.tap import Matcher, TapFilter, TapLine

_MAX_TIME: Final = 2**53
"""Largest Unix time that is accepted: the last whole number that a JSON number holds exactly."""
_MAX_ID: Final = 2**63 - 1
"""Largest event id that is accepted: the largest integer of SQLite."""
LAST_EVENT_ID: Final = "Last-Event-ID"
"""Header in which a client of server-sent events says where it continues (WHATWG HTML, 9.2)."""

TAKE_OVER: Final = FlagParameter(
    "take_over", "Also take over a project that a mesh which does not run holds."
)
STOP_REPLICAS: Final = FlagParameter("stop_replicas", "First take every project down.")
TAIL: Final = NumberParameter("tail", 100, MAX_LOG_LINES, "Past lines of each replica.")
SINCE: Final = NumberParameter("since", 0, _MAX_TIME, "Only what is newer (Unix time).")
UNTIL: Final = NumberParameter("until", 0, _MAX_TIME, "Only what is older (Unix time); 0: now.")
REPLICA: Final = TextParameter("replica", "Only lines of this replica.")
PREVIOUS: Final = FlagParameter("previous", "Lines of replicas that have ended.")
FOLLOW: Final = FlagParameter("follow", "Stream what is stored, then what is new.")
AT: Final = NumberParameter("at", 0, _MAX_TIME, "Only decisions up to then (Unix time); 0: now.")
THEN: Final = NumberParameter("at", 0, _MAX_TIME, "A time in the last 24 hours (Unix time).")
DECISIONS: Final = NumberParameter("limit", 10, MAX_EVENTS, "Decisions in one response.")
SINCE_ID: Final = NumberParameter("since", 0, _MAX_ID, "Only events with a larger id.")
EVENTS: Final = NumberParameter("limit", 1000, MAX_EVENTS, "Events in one response.")


async def _read_project(request: web.Request) -> Project:
    return Project.model_validate_json(await request.read())


class Handlers:
    """One method per operation; `docs/api.md` describes them."""

    def __init__(self, control: Control) -> None:
        self._control = control

    async def metrics(self, request: web.Request) -> web.Response:
        accept = ",".join(request.headers.getall("Accept", []))
        found = await self._control.metrics(accept)
        headers = {"Content-Type": found.content_type, "Vary": "Accept"}
        return web.Response(body=found.body, headers=headers)

    async def healthz(self, _: web.Request) -> web.Response:
        state = self._control.status().runtime_state
        return json_response(Health("ok", state))

    async def status(self, request: web.Request) -> web.Response:
        found = self._control.status()
        if identity(request).project:
            found = msgspec.structs.replace(
                found,
                services=tuple(s for s in found.services if visible(request, s.project)),
                projects=tuple(p for p in found.projects if visible(request, p.name)),
                images=(),
            )
        return json_response(found)

    async def deploy(self, request: web.Request) -> web.Response:
        project = await _read_project(request)
        name = project_name(request)
        if name != project.name:
            raise web.HTTPBadRequest(
                text=f"the path names the project {name!r}, the body names {project.name!r}"
            )
        await self._control.deploy(project, caller(request), TAKE_OVER.read(request))
        return json_response(self._control.progress(name), 202)

    async def progress(self, request: web.Request) -> web.Response:
        return json_response(self._control.progress(project_name(request)))

    async def plan(self, request: web.Request) -> web.Response:
        return json_response(await self._control.plan(await _read_project(request)))

    async def policies(self, request: web.Request) -> web.Response:
        found = self._control.policies(project_name(request))
        return page_response(request, found, lambda each: each.service)

    async def down(self, request: web.Request) -> web.Response:
        await self._control.down(project_name(request))
        return web.Response(status=204)

    async def scale(self, request: web.Request) -> web.Response:
        override = msgspec.json.decode(await request.read(), type=ScaleOverride)
        project, service = service_names(request)
        return json_response(
            await self._control.scale(project, service, override.replicas, override.seconds)
        )

    async def restart(self, request: web.Request) -> web.Response:
        order = self._control.restart(*service_names(request), caller(request))
        return json_response(order, 202)

    async def drain(self, request: web.Request) -> web.Response:
        await self._control.drain(request.match_info["replica"])
        return web.Response(status=204)

    async def shutdown(self, request: web.Request) -> web.Response:
        await self._control.shutdown(STOP_REPLICAS.read(request))
        return web.Response(status=202)

    async def logs(self, request: web.Request) -> web.StreamResponse:
        project, service = service_names(request)
        query = OutputQuery(
            tail=TAIL.read(request),
            since=SINCE.read(request),
            until=UNTIL.read(request),
            replica=REPLICA.read(request),
            previous=PREVIOUS.read(request),
        )
        follow = FOLLOW.read(request)
        if follow and (query.until or query.previous):
            raise web.HTTPBadRequest(text="follow goes with neither until nor previous")
        if not follow:
            found = await self._control.logs(project, service, query)
            return json_response([LogLine(replica, text, at) for replica, at, text in found])
        following = self._control.follow(project, service, query)

        async def lines() -> AsyncIterator[object]:
            async with closing(following):
                async for replica, at, text in following:
                    yield LogLine(replica, text, at)

        return await stream(request, lines())

    async def decisions(self, request: web.Request) -> web.Response:
        at = AT.read(request)
        limit = DECISIONS.read(request)
        return json_response(list(self._control.decisions(*service_names(request), at, limit)))

    async def history_at(self, request: web.Request) -> web.Response:
        at = THEN.read(request)
        return json_response(self._control.history_at(at, identity(request).project))

    async def history(self, request: web.Request) -> web.Response:
        since, until = SINCE.read(request), UNTIL.read(request)
        return json_response(list(self._control.history(*service_names(request), since, until)))

    async def traffic(self, request: web.Request) -> web.Response:
        since = SINCE.read(request)
        return json_response(self._control.traffic(*service_names(request), since))

    async def sizes(self, request: web.Request) -> web.Response:
        found = self._control.sizes()
        shown = [each for each in found if visible(request, each.service.partition("/")[0])]
        return page_response(request, shown, lambda each: each.service)

    async def certificates(self, _: web.Request) -> web.Response:
        return json_response(list(self._control.certificates()))

    async def retry_certificate(self, request: web.Request) -> web.Response:
        self._control.retry_certificate(request.match_info["name"])
        return web.Response(status=204)

    async def events(self, request: web.Request) -> web.StreamResponse:
        since, limit = SINCE_ID.read(request), EVENTS.read(request)
        if not FOLLOW.read(request) and not accepts_events(request):
            found = list(self._control.events(since, limit))
            link = next_link(request, since=found[-1].id) if found[limit - 1 :] else None
            shown = [event for event in found if visible(request, event.project)]
            return json_response(shown, headers=link)
        last = request.headers.get(LAST_EVENT_ID, "")
        if last.isdecimal():
            since = min(int(last[:MAX_DIGITS]), _MAX_ID)
        return await stream(request, self._events_since(since, limit, identity(request).project))

    async def _events_since(self, since: int, limit: int, project: str) -> AsyncIterator[Event]:
        """Yield the stored events, then new ones as they happen, of `project` if that is set. No
        event is lost or repeated in between: the subscription begins before the stored events are
        read."""
        async with closing(self._control.subscribe()) as subscription:
            first = asyncio.ensure_future(anext(subscription))
            try:
                # One turn of the event loop, so that the subscription has begun.
                await asyncio.sleep(0)
                while stored := self._control.events(since, limit):
                    for event in stored:
                        since = event.id
                        if project in ("", event.project):
                            yield event
                event = await first
                while True:
                    if event.id > since and project in ("", event.project):
                        yield event
                    event = await anext(subscription)
            except StopAsyncIteration:
                return
            finally:
                first.cancel()
                await asyncio.wait([first])


MAX_FLIGHTS: Final = 100_000
"""Requests in one response: more than a record of 32 workers has."""
SAMPLE_SECONDS: Final = 1.0
"""Seconds of live requests in a response that does not stream."""
_MAX_MILLISECONDS: Final = 86_400_000
"""A day."""
PATH: Final = TextParameter(
    "path", "Only requests whose target matches this regular expression.", format="regex"
)
STATUS: Final = TextParameter(
    "status", "Only this status, e.g. 404 or 5xx.", pattern=r"^([1-5]([0-9][0-9]|xx))?$"
)
SLOWER: Final = NumberParameter(
    "slower", 0, _MAX_MILLISECONDS, "Only requests that took at least this many milliseconds."
)
FLIGHTS: Final = NumberParameter("limit", 1000, MAX_FLIGHTS, "Requests in one response.")


class RecordHandlers:
    """The operations on records of the flight recorder, and on live requests."""

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
        matcher, limit = Matcher(_read_filter(request)), FLIGHTS.read(request)
        found = await self._records().read(id)
        matching = [flight for flight in found if matcher.matches(flight.request)]
        return json_response(matching[-limit:] if limit else [])

    async def tap(self, request: web.Request) -> web.StreamResponse:
        return await self._tap(request, _read_filter(request))

    async def tap_service(self, request: web.Request) -> web.StreamResponse:
        key = "/".join(service_names(request))
        return await self._tap(request, _read_filter(request, key))

    async def _tap(self, request: web.Request, wanted: TapFilter) -> web.StreamResponse:
        """Send requests as they end; without `follow` those of the next second."""
        lines = self._visible_lines(request, self._records().tap(wanted))
        if FOLLOW.read(request) or accepts_events(request):
            return await stream(request, lines)
        found: list[TapLine] = []
        async with closing(lines):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SAMPLE_SECONDS):
                    found += [line async for line in lines]
        return json_response(found)

    @staticmethod
    async def _visible_lines(
        request: web.Request, lines: AsyncGenerator[TapLine]
    ) -> AsyncGenerator[TapLine]:
        async with closing(lines):
            async for line in lines:
                if visible(request, line.request.service.partition("/")[0]):
                    yield line


def _read_filter(request: web.Request, service: str = "") -> TapFilter:
    """Return the filter of a query. Raises HTTPBadRequest."""
    wanted = TapFilter(
        service, PATH.read(request), STATUS.read(request), SLOWER.read(request) / 1000.0
    )
    try:
        Matcher(wanted)
    except ValueError as error:
        raise web.HTTPBadRequest(text=str(error)) from error
    return wanted


def _is_visible(request: web.Request, record: RecordInfo) -> bool:
    """Whether the caller may see a record: one of all services has those of other projects."""
    return visible(request, record.service.partition("/")[0])
