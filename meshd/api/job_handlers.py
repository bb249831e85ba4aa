"""Handlers for one-off jobs: each turns a request into one call of `port.JobControl`.

Registered by `handlers.Handlers`.
"""

from collections.abc import AsyncIterator, Callable

import msgspec
from aiohttp import web

from meshd.api.port import JobControl
from meshd.api.requests import caller, is_set, service_names
from meshd.api.responses import closing, json_response, stream
from meshd.model.job import JobLine, JobOrder


class JobHandlers:
    """One method per operation; `docs/api.md` describes them."""

    def __init__(self, jobs: Callable[[], JobControl]) -> None:
        self._jobs = jobs

    def routes(self) -> list[web.RouteDef]:
        """Routes for the owner of the Unix socket."""
        return [
            web.post("/v1/projects/{project}/services/{service}/jobs", self.begin),
            web.get("/v1/jobs", self.list_jobs),
            web.get("/v1/jobs/{job}", self.job),
            web.delete("/v1/jobs/{job}", self.stop),
            web.get("/v1/jobs/{job}/logs", self.lines),
        ]

    async def begin(self, request: web.Request) -> web.Response:
        order = msgspec.json.decode(await request.read(), type=JobOrder)
        cause = f"by {caller(request)}"
        return json_response(self._jobs().begin(*service_names(request), order, cause), 202)

    async def list_jobs(self, _: web.Request) -> web.Response:
        return json_response(self._jobs().list())

    async def job(self, request: web.Request) -> web.Response:
        return json_response(self._jobs().job(request.match_info["job"]))

    async def stop(self, request: web.Request) -> web.Response:
        return json_response(self._jobs().stop(request.match_info["job"]), 202)

    async def lines(self, request: web.Request) -> web.StreamResponse:
        jobs, job = self._jobs(), request.match_info["job"]
        if not is_set(request, "follow"):
            return json_response([JobLine(line) for line in jobs.lines(job)])
        jobs.job(job)

        async def all_lines() -> AsyncIterator[object]:
            async with closing(jobs.follow(job)) as following:
                async for line in following:
                    yield JobLine(line)

        return await stream(request, all_lines())
