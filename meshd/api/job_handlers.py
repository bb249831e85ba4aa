"""Requests about one-off jobs into calls of `Desk`; nothing is decided here."""

from collections.abc import AsyncIterator, Callable

import msgspec
from aiohttp import web

from meshd.api.answers import answer, caller, closing, stream
from meshd.api.jobs import Desk
from meshd.model.job import JobLine, JobOrder


class JobHandlers:
    """One method an operation; `docs/api.md` describes them."""

    def __init__(self, desk: Callable[[], Desk]) -> None:
        self._desk = desk

    def routes(self) -> list[web.RouteDef]:
        """What the owner of the Unix socket may do."""
        return [
            web.post("/v1/projects/{project}/services/{service}/jobs", self.begin),
            web.get("/v1/jobs", self.all),
            web.get("/v1/jobs/{job}", self.one),
            web.delete("/v1/jobs/{job}", self.stop),
            web.get("/v1/jobs/{job}/logs", self.lines),
        ]

    async def begin(self, request: web.Request) -> web.Response:
        order = msgspec.json.decode(await request.read(), type=JobOrder)
        where, cause = request.match_info, f"by {caller(request)}"
        return answer(self._desk().begin(where["project"], where["service"], order, cause), 202)

    async def all(self, _: web.Request) -> web.Response:
        return answer(self._desk().list())

    async def one(self, request: web.Request) -> web.Response:
        return answer(self._desk().job(request.match_info["job"]))

    async def stop(self, request: web.Request) -> web.Response:
        return answer(self._desk().stop(request.match_info["job"]), 202)

    async def lines(self, request: web.Request) -> web.StreamResponse:
        desk, job = self._desk(), request.match_info["job"]
        if request.query.get("follow") != "1":
            return answer([JobLine(line) for line in desk.lines(job)])
        desk.job(job)

        async def all_lines() -> AsyncIterator[object]:
            async with closing(desk.follow(job)) as coming:
                async for line in coming:
                    yield JobLine(line)

        return await stream(request, all_lines())
