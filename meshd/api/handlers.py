"""Handlers: each turns a request into one call of `port.Control`, and its result into JSON.

`server` mounts them; `job_handlers` and `rollout_handlers` add those of jobs and rollouts. Nothing
is decided here: an exception becomes a status code in `errors_as_json`.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

import msgspec
import pydantic
from aiohttp import web

from meshd.api.dto import LogLine, ScaleOverride
from meshd.api.job_handlers import JobHandlers
from meshd.api.limits import MAX_EVENTS, MAX_LOG_LINES
from meshd.api.port import Control
from meshd.api.requests import caller, is_set, parse_number, project_name, service_names
from meshd.api.responses import closing, json_response, stream
from meshd.api.rollout_handlers import RolloutHandlers
from meshd.api.volume_handlers import VolumeHandlers
from meshd.model.errors import NotFound, Rejected, StoreWriteError
from meshd.model.event import Event
from meshd.model.output import OutputQuery
from meshd.runtime.base import RuntimeFailure, RuntimeUnavailable
from meshd.spec.model import Project

_MAX_TIME: Final = 2**53
"""Largest Unix time that is accepted: the last whole number that a JSON number holds exactly."""
_MAX_ID: Final = 2**63 - 1
"""Largest event id that is accepted: the largest integer of SQLite."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


async def _read_project(request: web.Request) -> Project:
    return Project.model_validate_json(await request.read())


@web.middleware
async def errors_as_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn an exception of a handler into `{"error": TEXT}` with the matching status."""
    try:
        return await handler(request)
    except NotFound as error:
        status, text = 404, str(error)
    except Rejected as error:
        status, text = 409, str(error)
    except RuntimeUnavailable as error:
        status, text = 503, f"the runtime does not answer: {error}"
    except RuntimeFailure as error:
        status, text = 409, str(error)
    except StoreWriteError as error:
        status, text = 507, str(error)
    except (pydantic.ValidationError, msgspec.MsgspecError) as error:
        status, text = 400, str(error)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        status, text = error.status, error.text or error.reason
    return json_response({"error": text}, status)


class Handlers:
    """One method per operation; `docs/api.md` describes them."""

    def __init__(self, control: Control) -> None:
        self._control = control

    def public_routes(self) -> list[web.RouteDef]:
        """Routes of the TCP address; they read only."""
        return [
            web.get("/metrics", self.metrics),
            web.get("/healthz", self.healthz),
            web.get("/status", self.status),
        ]

    def all_routes(self) -> list[web.RouteDef]:
        """Routes of the Unix socket, for its owner."""
        service = "/v1/projects/{project}/services/{service}"
        return [
            *self.public_routes(),
            web.get("/v1/status", self.status),
            web.get("/v1/events", self.events),
            web.get("/v1/sizes", self.sizes),
            web.get("/v1/certificates", self.certificates),
            web.post("/v1/certificates/{name}/retry", self.retry_certificate),
            web.put("/v1/projects/{project}", self.deploy),
            web.get("/v1/projects/{project}", self.progress),
            web.delete("/v1/projects/{project}", self.down),
            web.post("/v1/projects/{project}/plan", self.plan),
            web.get("/v1/projects/{project}/policy", self.policies),
            web.put(service + "/scale", self.scale),
            web.post(service + "/restart", self.restart),
            web.get(service + "/logs", self.logs),
            web.get(service + "/decisions", self.decisions),
            web.get(service + "/traffic", self.traffic),
            web.post("/v1/replicas/{replica}/drain", self.drain),
            web.post("/v1/shutdown", self.shutdown),
            *JobHandlers(self._control.job_control).routes(),
            *VolumeHandlers(self._control.volume_control).routes(),
            *RolloutHandlers(self._control.rollout_control).routes(),
        ]

    async def metrics(self, _: web.Request) -> web.Response:
        return web.Response(
            body=await self._control.metrics(),
            headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"},
        )

    async def healthz(self, _: web.Request) -> web.Response:
        state = self._control.status().runtime_state
        return json_response({"status": "ok", "runtime": state})

    async def status(self, _: web.Request) -> web.Response:
        return json_response(self._control.status())

    async def deploy(self, request: web.Request) -> web.Response:
        project = await _read_project(request)
        name = project_name(request)
        if name != project.name:
            raise web.HTTPBadRequest(
                text=f"the path names the project {name!r}, the body names {project.name!r}"
            )
        await self._control.deploy(project, caller(request), is_set(request, "take_over"))
        return json_response(self._control.progress(name), 202)

    async def progress(self, request: web.Request) -> web.Response:
        return json_response(self._control.progress(project_name(request)))

    async def plan(self, request: web.Request) -> web.Response:
        return json_response(await self._control.plan(await _read_project(request)))

    async def policies(self, request: web.Request) -> web.Response:
        return json_response(list(self._control.policies(project_name(request))))

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
        await self._control.shutdown(is_set(request, "stop_replicas"))
        return web.Response(status=202)

    async def logs(self, request: web.Request) -> web.StreamResponse:
        project, service = service_names(request)
        query = OutputQuery(
            tail=parse_number(request, "tail", 100, MAX_LOG_LINES),
            since=parse_number(request, "since", 0, _MAX_TIME),
            until=parse_number(request, "until", 0, _MAX_TIME),
            replica=request.query.get("replica", ""),
            previous=is_set(request, "previous"),
        )
        follow = is_set(request, "follow")
        if follow and (query.until or query.previous):
            raise web.HTTPBadRequest(text="follow goes with neither until nor previous")
        lines = await self._control.logs(project, service, query)
        past = [LogLine(replica, text, at) for replica, at, text in lines]
        if not follow:
            return json_response(past)

        async def all_lines() -> AsyncIterator[object]:
            for value in past:
                yield value
            async with closing(self._control.follow(project, service)) as following:
                async for replica, line in following:
                    if query.replica in ("", replica):
                        yield LogLine(replica, line, time.time())

        return await stream(request, all_lines())

    async def decisions(self, request: web.Request) -> web.Response:
        at = parse_number(request, "at", 0, _MAX_TIME)
        limit = parse_number(request, "limit", 10, MAX_EVENTS)
        return json_response(list(self._control.decisions(*service_names(request), at, limit)))

    async def traffic(self, request: web.Request) -> web.Response:
        since = parse_number(request, "since", 0, _MAX_TIME)
        return json_response(self._control.traffic(*service_names(request), since))

    async def sizes(self, _: web.Request) -> web.Response:
        return json_response(list(self._control.sizes()))

    async def certificates(self, _: web.Request) -> web.Response:
        return json_response(list(self._control.certificates()))

    async def retry_certificate(self, request: web.Request) -> web.Response:
        self._control.retry_certificate(request.match_info["name"])
        return web.Response(status=204)

    async def events(self, request: web.Request) -> web.StreamResponse:
        since = parse_number(request, "since", 0, _MAX_ID)
        limit = parse_number(request, "limit", 1000, MAX_EVENTS)
        if not is_set(request, "follow"):
            return json_response(list(self._control.events(since, limit)))
        return await stream(request, self._events_since(since, limit))

    async def _events_since(self, since: int, limit: int) -> AsyncIterator[Event]:
        """Yield the stored events, then new ones as they happen. No event is lost or repeated in
        between: the subscription begins before the stored events are read."""
        async with closing(self._control.subscribe()) as subscription:
            first = asyncio.ensure_future(anext(subscription))
            try:
                # One turn of the event loop, so that the subscription has begun.
                await asyncio.sleep(0)
                while stored := self._control.events(since, limit):
                    for event in stored:
                        since = event.id
                        yield event
                event = await first
                while True:
                    if event.id > since:
                        yield event
                    event = await anext(subscription)
            except StopAsyncIteration:
                return
            finally:
                first.cancel()
                await asyncio.wait([first])
