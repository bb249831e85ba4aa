"""Handlers for one-off jobs: each turns a request into one call of `port.JobControl`.

Listed in `route_table`.
"""

from collections.abc import AsyncIterator, Callable
from typing import Final

import msgspec
from aiohttp import web

from meshd.api.dto import JobList
from meshd.api.parameters import FlagParameter, NumberParameter, TextParameter
from meshd.api.port import JobControl
from meshd.api.requests import caller, service_names, visible
from meshd.api.responses import MAX_PAGE, closing, json_response, next_link, stream
from meshd.model.job import JobLine, JobOrder

FOLLOW_JOB: Final = FlagParameter("follow", "Stream all lines until the job ends.")
JOBS: Final = NumberParameter("limit", 0, MAX_PAGE, "Jobs in one response; 0: all.")
BEFORE: Final = TextParameter("before", "Only jobs that follow this one; the next page's link.")


class JobHandlers:
    """One method per operation; `docs/api.md` describes them."""

    def __init__(self, jobs: Callable[[], JobControl]) -> None:
        self._jobs = jobs

    async def begin(self, request: web.Request) -> web.Response:
        order = msgspec.json.decode(await request.read(), type=JobOrder)
        cause = f"by {caller(request)}"
        return json_response(self._jobs().begin(*service_names(request), order, cause), 202)

    async def list_jobs(self, request: web.Request) -> web.Response:
        found, limit, before = self._jobs().list(), JOBS.read(request), BEFORE.read(request)
        jobs = tuple(job for job in found.jobs if visible(request, job.project))
        schedules = tuple(each for each in found.schedules if visible(request, each.project))
        if before:
            ids = [job.id for job in jobs]
            jobs = jobs[ids.index(before) + 1 :] if before in ids else ()
        page = jobs[: limit or None]
        link = next_link(request, before=page[-1].id) if len(page) < len(jobs) else None
        return json_response(JobList(page, schedules), headers=link)

    async def job(self, request: web.Request) -> web.Response:
        return json_response(self._jobs().job(request.match_info["job"]))

    async def stop(self, request: web.Request) -> web.Response:
        return json_response(self._jobs().stop(request.match_info["job"]), 202)

    async def lines(self, request: web.Request) -> web.StreamResponse:
        jobs, job = self._jobs(), request.match_info["job"]
        if not FOLLOW_JOB.read(request):
            return json_response([JobLine(line) for line in jobs.lines(job)])
        jobs.job(job)

        async def all_lines() -> AsyncIterator[object]:
            async with closing(jobs.follow(job)) as following:
                async for line in following:
                    yield JobLine(line)

        return await stream(request, all_lines())
