"""Requests into calls of `Control`, answers and errors into JSON; nothing is decided here."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

import msgspec
import pydantic
from aiohttp import web

from meshd.api.answers import answer, caller, closing, stream
from meshd.api.job_handlers import JobHandlers
from meshd.api.model import Control, DeployResult, LogLine, ScaleOverride
from meshd.api.rollout_handlers import RolloutHandlers
from meshd.model.errors import NotFound, Rejected, StoreWriteError
from meshd.model.event import Event
from meshd.runtime.base import RuntimeFailure, RuntimeUnavailable
from meshd.spec.model import Project

MOST_EVENTS: Final = 10_000
MOST_LINES: Final = 100_000

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def _number(request: web.Request, name: str, default: int, most: int) -> int:
    text = request.query.get(name, str(default))
    if not text.isdecimal() or int(text) > most:
        raise web.HTTPBadRequest(text=f"{name}={text!r} is not a whole number up to {most}")
    return int(text)


async def _project(request: web.Request) -> Project:
    return Project.model_validate_json(await request.read())


@web.middleware
async def errors_as_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every refusal is `{"error": TEXT}` with the status that fits it."""
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
    return answer({"error": text}, status)


class Handlers:
    """One method an operation; `docs/api.md` describes them."""

    def __init__(self, control: Control) -> None:
        self._control = control

    def reading(self) -> list[web.RouteDef]:
        """What anybody on this host may read."""
        return [
            web.get("/metrics", self.metrics),
            web.get("/healthz", self.healthz),
            web.get("/status", self.status),
        ]

    def everything(self) -> list[web.RouteDef]:
        """What the owner of the Unix socket may do."""
        service = "/v1/projects/{project}/services/{service}"
        return [
            *self.reading(),
            web.get("/v1/status", self.status),
            web.get("/v1/events", self.events),
            web.get("/v1/sizes", self.sizes),
            web.put("/v1/projects/{project}", self.deploy),
            web.get("/v1/projects/{project}", self.progress),
            web.delete("/v1/projects/{project}", self.down),
            web.post("/v1/projects/{project}/plan", self.plan),
            web.get("/v1/projects/{project}/policy", self.policies),
            web.put(service + "/scale", self.scale),
            web.get(service + "/logs", self.logs),
            web.get(service + "/decisions", self.decisions),
            web.get(service + "/traffic", self.traffic),
            web.post("/v1/replicas/{replica}/drain", self.drain),
            web.post("/v1/shutdown", self.shutdown),
            *JobHandlers(self._control.desk).routes(),
            *RolloutHandlers(self._control.rollouts).routes(),
        ]

    async def metrics(self, _: web.Request) -> web.Response:
        return web.Response(
            body=await self._control.metrics(),
            headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"},
        )

    async def healthz(self, _: web.Request) -> web.Response:
        state = self._control.status().runtime_state
        return answer({"status": "ok", "runtime": state})

    async def status(self, _: web.Request) -> web.Response:
        return answer(self._control.status())

    async def deploy(self, request: web.Request) -> web.Response:
        project = await _project(request)
        name = request.match_info["project"]
        if name != project.name:
            raise web.HTTPBadRequest(text=f"the path says {name!r}, the body {project.name!r}")
        take_over = request.query.get("take_over") == "1"
        await self._control.deploy(project, caller(request), take_over)
        return answer(self._progress(name), 202)

    async def progress(self, request: web.Request) -> web.Response:
        return answer(self._progress(request.match_info["project"]))

    def _progress(self, project: str) -> DeployResult:
        return self._control.progress(project)

    async def plan(self, request: web.Request) -> web.Response:
        return answer(await self._control.plan(await _project(request)))

    async def policies(self, request: web.Request) -> web.Response:
        return answer(list(self._control.policies(request.match_info["project"])))

    async def down(self, request: web.Request) -> web.Response:
        await self._control.down(request.match_info["project"])
        return web.Response(status=204)

    async def scale(self, request: web.Request) -> web.Response:
        wish = msgspec.json.decode(await request.read(), type=ScaleOverride)
        where = request.match_info
        await self._control.scale(where["project"], where["service"], wish.replicas, wish.seconds)
        return web.Response(status=204)

    async def drain(self, request: web.Request) -> web.Response:
        await self._control.drain(request.match_info["replica"])
        return web.Response(status=204)

    async def shutdown(self, request: web.Request) -> web.Response:
        stop = request.query.get("stop_replicas") == "1"
        await self._control.shutdown(stop)
        return web.Response(status=202)

    async def logs(self, request: web.Request) -> web.StreamResponse:
        project, service = request.match_info["project"], request.match_info["service"]
        tail = _number(request, "tail", 100, MOST_LINES)
        lines = await self._control.logs(project, service, tail)
        past = [LogLine(replica, line) for replica, line in lines]
        if request.query.get("follow") != "1":
            return answer(past)

        async def all_lines() -> AsyncIterator[object]:
            for value in past:
                yield value
            async with closing(self._control.follow(project, service)) as coming:
                async for replica, line in coming:
                    yield LogLine(replica, line)

        return await stream(request, all_lines())

    async def decisions(self, request: web.Request) -> web.Response:
        names = request.match_info
        at = _number(request, "at", 0, 2**53)
        limit = _number(request, "limit", 10, MOST_EVENTS)
        found = self._control.decisions(names["project"], names["service"], at, limit)
        return answer(list(found))

    async def traffic(self, request: web.Request) -> web.Response:
        names, since = request.match_info, _number(request, "since", 0, 2**53)
        return answer(self._control.traffic(names["project"], names["service"], since))

    async def sizes(self, _: web.Request) -> web.Response:
        return answer(list(self._control.sizes()))

    async def events(self, request: web.Request) -> web.StreamResponse:
        since = _number(request, "since", 0, 2**63 - 1)
        limit = _number(request, "limit", 1000, MOST_EVENTS)
        if request.query.get("follow") != "1":
            return answer(list(self._control.events(since, limit)))
        return await stream(request, self._events_since(since, limit))

    async def _events_since(self, since: int, limit: int) -> AsyncIterator[Event]:
        """The stored events, then those to come; none is lost or told twice in between, since
        the subscription stands before the stored ones are read."""
        async with closing(self._control.subscribe()) as coming:
            first = asyncio.ensure_future(anext(coming))
            try:
                await asyncio.sleep(0)
                while stored := self._control.events(since, limit):
                    for event in stored:
                        since = event.id
                        yield event
                event = await first
                while True:
                    if event.id > since:
                        yield event
                    event = await anext(coming)
            except StopAsyncIteration:
                return
            finally:
                first.cancel()
                await asyncio.wait([first])
