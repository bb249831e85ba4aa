"""The other end of the API: what the command line, and any program of one's own, talks with."""

import asyncio
import collections
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import aiohttp
import msgspec

from meshd.api.jobs import JobList
from meshd.api.model import (
    DeployResult,
    LogLine,
    PlanPreview,
    Recording,
    ScaleOverride,
    ServicePolicy,
    Status,
)
from meshd.model.errors import NotFound, Rejected
from meshd.model.event import Event
from meshd.model.job import Job, JobLine, JobOrder
from meshd.model.release import Release
from meshd.model.scaling import ScaleDecision, Sizing
from meshd.spec.model import Project

ANSWER: Final = aiohttp.ClientTimeout(total=30.0)
PATIENT: Final = aiohttp.ClientTimeout(total=None, sock_connect=5.0)
LONGEST_LINE: Final = 1 << 20
PAGE: Final = 1000
T = TypeVar("T")


class NoDaemon(Exception):
    """Nobody answers at the socket; the text names it and says how to start a daemon."""


class ApiFailure(Exception):
    """The daemon answered with an error that is neither a refusal nor an unknown name."""


class Client:
    """One connection to a daemon; an asynchronous context manager.

    Every method may raise NoDaemon, NoSuchThing, Refused and ApiFailure.
    """

    def __init__(self, socket_path: Path) -> None:
        self._path = socket_path
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            "http://meshd/",
            connector=aiohttp.UnixConnector(path=str(self._path)),
            timeout=ANSWER,
            read_bufsize=LONGEST_LINE,
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def status(self) -> Status:
        return msgspec.json.decode(await self._call("GET", "v1/status"), type=Status)

    async def deploy(self, project: Project, take_over: bool = False) -> DeployResult:
        """Makes ready what it needs (images are pulled and built), then stores the desired
        state; `progress` tells how it goes on."""
        body = project.model_dump_json().encode()
        where = f"v1/projects/{project.name}?take_over={int(take_over)}"
        raw = await self._call("PUT", where, body, limit=PATIENT)
        return self._result(raw)

    async def progress(self, project: str) -> DeployResult:
        return self._result(await self._call("GET", f"v1/projects/{project}"))

    async def plan(self, project: Project) -> str:
        """The operations that deploying it would take, one a line."""
        return (await self.planned(project)).plan

    async def planned(self, project: Project) -> PlanPreview:
        """The same, and what they mean on the way."""
        body = project.model_dump_json().encode()
        raw = await self._call("POST", f"v1/projects/{project.name}/plan", body)
        return msgspec.json.decode(raw, type=PlanPreview)

    async def policies(self, project: str) -> Sequence[ServicePolicy]:
        """Who may call each service of a project, and who did."""
        raw = await self._call("GET", f"v1/projects/{project}/policy")
        return msgspec.json.decode(raw, type=list[ServicePolicy])

    async def releases(self, project: str, service: str, limit: int = 20) -> Sequence[Release]:
        """The newest releases of a service, the newest first."""
        where = f"v1/projects/{project}/services/{service}/releases?limit={limit}"
        return msgspec.json.decode(await self._call("GET", where), type=list[Release])

    async def undo(self, project: str, service: str, to: int = 0) -> Release:
        """Goes back to release `to`, or to the last good one; the release that this begins."""
        where = f"v1/projects/{project}/services/{service}/undo?to={to}"
        return msgspec.json.decode(await self._call("POST", where, limit=PATIENT), type=Release)

    async def pause(self, project: str, service: str) -> None:
        """Leaves the rollout of a service as it is."""
        await self._call("POST", f"v1/projects/{project}/services/{service}/pause")

    async def resume(self, project: str, service: str) -> None:
        """Goes on with it."""
        await self._call("POST", f"v1/projects/{project}/services/{service}/resume")

    async def down(self, project: str) -> None:
        """Returns once every replica has ended."""
        await self._call("DELETE", f"v1/projects/{project}", limit=PATIENT)

    async def scale(
        self, project: str, service: str, replicas: int | None, seconds: float = 0.0
    ) -> None:
        body = msgspec.json.encode(ScaleOverride(replicas, seconds))
        await self._call("PUT", f"v1/projects/{project}/services/{service}/scale", body)

    async def drain(self, replica: str) -> None:
        await self._call("POST", f"v1/replicas/{replica}/drain", limit=PATIENT)

    async def shutdown(self, stop_replicas: bool) -> None:
        await self._call("POST", f"v1/shutdown?stop_replicas={int(stop_replicas)}", limit=PATIENT)

    async def logs(self, project: str, service: str, tail: int) -> Sequence[LogLine]:
        where = f"v1/projects/{project}/services/{service}/logs?tail={tail}"
        return msgspec.json.decode(await self._call("GET", where), type=list[LogLine])

    async def decisions(
        self, project: str, service: str, at: float = 0.0, limit: int = 10
    ) -> Sequence[ScaleDecision]:
        """Decisions up to `at` (Unix time; 0: now), newest first."""
        where = f"v1/projects/{project}/services/{service}/decisions?at={at:.0f}&limit={limit}"
        return msgspec.json.decode(await self._call("GET", where), type=list[ScaleDecision])

    async def traffic(self, project: str, service: str, since: float) -> Recording:
        """What was recorded of a service since then (Unix time)."""
        where = f"v1/projects/{project}/services/{service}/traffic?since={since:.0f}"
        return msgspec.json.decode(await self._call("GET", where), type=Recording)

    def follow_logs(self, project: str, service: str, tail: int) -> AsyncIterator[LogLine]:
        """The last `tail` lines of each replica, then what comes."""
        where = f"v1/projects/{project}/services/{service}/logs?tail={tail}&follow=1"
        return self._stream(where, LogLine)

    async def sizes(self) -> Sequence[Sizing]:
        """What replicas of each service used in the last week, and the limits proposed."""
        return msgspec.json.decode(await self._call("GET", "v1/sizes"), type=list[Sizing])

    async def events(self, since: int = 0, limit: int = 1000) -> Sequence[Event]:
        raw = await self._call("GET", f"v1/events?since={since}&limit={limit}")
        return msgspec.json.decode(raw, type=list[Event])

    async def last_events(
        self, count: int, pick: Callable[[Event], bool]
    ) -> tuple[list[Event], int]:
        """The newest `count` events that `pick` takes, oldest first, and the id of the newest
        stored event of all (0 when there is none)."""
        kept: collections.deque[Event] = collections.deque(maxlen=count)
        last = 0
        while page := await self.events(last, PAGE):
            kept.extend(event for event in page if pick(event))
            last = page[-1].id
        return list(kept), last

    def follow_events(self, since: int = 0) -> AsyncIterator[Event]:
        """Stored events with id > since, then what comes."""
        return self._stream(f"v1/events?since={since}&follow=1", Event)

    async def run(self, project: str, service: str, order: JobOrder) -> Job:
        """Orders a one-off job; it is kept when this returns."""
        where, body = f"v1/projects/{project}/services/{service}/jobs", msgspec.json.encode(order)
        return msgspec.json.decode(await self._call("POST", where, body), type=Job)

    async def jobs(self) -> JobList:
        return msgspec.json.decode(await self._call("GET", "v1/jobs"), type=JobList)

    async def job(self, id: str) -> Job:
        return msgspec.json.decode(await self._call("GET", f"v1/jobs/{id}"), type=Job)

    async def stop_job(self, id: str) -> Job:
        return msgspec.json.decode(await self._call("DELETE", f"v1/jobs/{id}"), type=Job)

    async def job_lines(self, id: str) -> Sequence[str]:
        """The last lines of a job that is over."""
        raw = await self._call("GET", f"v1/jobs/{id}/logs")
        return [each.line for each in msgspec.json.decode(raw, type=list[JobLine])]

    def follow_job(self, id: str) -> AsyncIterator[JobLine]:
        """All lines of a job until it ends, from its first on as far as they are kept."""
        return self._stream(f"v1/jobs/{id}/logs?follow=1", JobLine)

    @staticmethod
    def _result(raw: bytes) -> DeployResult:
        return msgspec.json.decode(raw, type=DeployResult)

    async def _call(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        limit: aiohttp.ClientTimeout = ANSWER,
    ) -> bytes:
        assert self._session is not None, "use `async with Client(...)`"
        try:
            async with self._session.request(method, path, data=body, timeout=limit) as response:
                raw = await response.read()
                _raise_for(response.status, raw)
                return raw
        except (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError) as error:
            raise NoDaemon(self._absent(error)) from error
        except TimeoutError as error:
            raise ApiFailure(f"the daemon at {self._path} did not answer in time") from error

    async def _stream(self, path: str, kind: type[T]) -> AsyncIterator[T]:
        assert self._session is not None, "use `async with Client(...)`"
        decoder = msgspec.json.Decoder(kind)
        try:
            async with self._session.get(path, timeout=PATIENT) as response:
                if response.status != 200:
                    _raise_for(response.status, await response.read())
                async for line in response.content:
                    if line.strip():
                        yield decoder.decode(line)
        except (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError) as error:
            raise NoDaemon(self._absent(error)) from error

    def _absent(self, error: Exception) -> str:
        if isinstance(error, aiohttp.ClientConnectorError):
            return f"no daemon answers at {self._path}; start one with `meshd up -f FILE`"
        return f"the daemon at {self._path} went away"


def _raise_for(status: int, raw: bytes) -> None:
    if status < 400:
        return
    try:
        text = str(msgspec.json.decode(raw, type=dict[str, Any])["error"])
    except (msgspec.MsgspecError, KeyError):
        text = raw.decode(errors="replace")[:500]
    if status == 404:
        raise NotFound(text)
    if status in (409, 507):
        raise Rejected(text)
    raise ApiFailure(f"the daemon answered {status}: {text}")


async def wait_for_daemon(socket_path: Path, seconds: float) -> Status | None:
    """The daemon's first status, or None when none answered within `seconds`."""
    end = asyncio.get_running_loop().time() + seconds
    async with Client(socket_path) as client:
        while True:
            try:
                return await client.status()
            except NoDaemon:
                if asyncio.get_running_loop().time() >= end:
                    return None
            await asyncio.sleep(0.05)
