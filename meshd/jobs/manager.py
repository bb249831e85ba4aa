"""The desk for one-off jobs: takes orders, answers for them, and sees to them pass after pass; what
to do is decided in `plan` and done by the executor."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Final, Protocol

import structlog

from meshd.api.dto import JobList, ScheduleStatus
from meshd.capacity.job_demand import JobDemand
from meshd.jobs import plan
from meshd.jobs.executor import UNWRITABLE, JobExecutor, Specs, find
from meshd.jobs.factory import JobFactory
from meshd.model.errors import Rejected, StoreWriteError
from meshd.model.event import Kind
from meshd.model.job import Job, JobOrder, JobState, update_job
from meshd.model.replica import RandomSource
from meshd.model.runtime import ObservedReplica
from meshd.runtime.base import ReplicaNotFound, Runtime, RuntimeFailure
from meshd.store.events import EventLog
from meshd.store.jobs import KEPT, JobLog
from meshd.store.store import Store

_log = structlog.stdlib.get_logger(__name__)
TICK: Final = 0.25
"""Seconds between two looks at the runtime while a job is about."""


class JobCapacity(Protocol):
    """Whether there is room; see `meshd.capacity.job_demand.JobAdmission`."""

    def refused(self, job: JobDemand) -> str:
        """Why it is not taken at all; empty when it is."""

    def lacking(self, job: JobDemand, running: Sequence[JobDemand]) -> str:
        """Why it has to wait beside those that run; empty when it need not."""


class JobManager:
    """The one implementation of `meshd.api.port.JobControl`. `spec_of` turns a job into what the
    runtime is told (None: there is no such service or revision any more), `may_start` says
    whether anything can be told where the mesh is, `wake` has the workers learn of a new
    caller."""

    def __init__(
        self,
        runtime: Runtime,
        store: Store,
        log: JobLog,
        events: EventLog,
        spec_of: Specs,
        may_start: Callable[[], bool],
        wake: Callable[[], None],
        clock: Callable[[], float],
        dice: RandomSource,
    ) -> None:
        self.kept: Callable[[Job], int] = lambda _: KEPT
        self.schedules: Callable[[], tuple[ScheduleStatus, ...]] = tuple
        self.room: JobCapacity | None = None
        self._runtime = runtime
        self._store = store
        self._log = log
        self._events = events
        self._spec_of = spec_of
        self._wake = wake
        self._clock = clock
        self._orders = JobFactory(store, log, clock, dice)
        self._executor = JobExecutor(
            runtime,
            log,
            events,
            spec_of,
            may_start,
            lambda job: self.kept(job),  # noqa: PLW0108 (who wires the desk sets it later)
            clock,
        )
        self._seen: Mapping[str, ObservedReplica] | None = None
        self._read: Counter[str] = Counter()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._soon = asyncio.Event()
        self._news = asyncio.Condition()

    # Orders

    def begin(
        self,
        project: str,
        service: str,
        order: JobOrder,
        cause: str,
        schedule: str | None = None,
        urgent: bool = False,
    ) -> Job:
        """See `Desk.begin`. An `urgent` one does not wait for room."""
        if (known := self._orders.known(project, service, order)) is not None:
            return known
        job = self._orders.job(project, service, order, cause, schedule, urgent)
        burden = None if urgent else self._burden(job)
        if burden is not None and self.room is not None and (why := self.room.refused(burden)):
            raise Rejected(f"a job of {service} cannot run: {why}")
        self._log.put(job)
        self._soon.set()
        self._wake()
        return job

    def job(self, id: str) -> Job:
        """See `Desk.job`."""
        return find(self._log, id)

    def jobs(self) -> Sequence[Job]:
        """All that are remembered, the oldest first."""
        return tuple(self._log.jobs.values())

    def list(self) -> JobList:
        """See `Desk.list`."""
        newest = sorted(self.jobs(), key=lambda job: job.at, reverse=True)
        return JobList(tuple(newest), self.schedules())

    def stop(self, id: str) -> Job:
        """See `Desk.stop`."""
        job = self.job(id)
        if job.is_over or job.end_state:
            return job
        self._halt(job, JobState.STOPPED, "was stopped by hand")
        return self.job(id)

    def lines(self, id: str) -> Sequence[str]:
        """See `Desk.lines`."""
        self.job(id)
        return self._log.lines(id)

    async def follow(self, id: str) -> AsyncIterator[str]:
        """See `Desk.follow`."""
        told = False
        self._read[id] += 1
        try:
            job = await self._until(id, lambda job: job.state is not JobState.WAITING)
            if not job.is_over or id in (self._seen or {}):
                with contextlib.suppress(ReplicaNotFound):
                    lines = self._runtime.follow(id, past=True)
                    async with aclosing(lines):  # type: ignore[type-var]
                        async for line in lines:
                            told = True
                            yield line
                self._soon.set()
                await self._until(id, lambda job: job.is_over)
            if not told:
                for line in self.lines(id):
                    yield line
        finally:
            self._read[id] -= 1
            if not self._read[id]:
                del self._read[id]

    async def _until(self, id: str, true: Callable[[Job], bool]) -> Job:
        async with self._news:
            await self._news.wait_for(lambda: true(self.job(id)))
        return self.job(id)

    # What others ask

    def callers(self) -> dict[str, str]:
        """The service that each job which is not over calls for, by its id."""
        return {job.id: job.key for job in self._log.jobs.values() if not job.is_over}

    def working(self) -> frozenset[str]:
        """The projects whose networks may be in use by a job."""
        if self._seen is None:
            return frozenset(self._store.projects)
        live = {job.project for job in self._log.jobs.values() if not job.is_over}
        return frozenset(live | {seen.project for seen in self._seen.values()})

    def burdens(self) -> Sequence[JobDemand]:
        """What the jobs take that run, or are being started."""
        seen = self._seen or {}
        there = [
            job
            for job in self._log.jobs.values()
            if not job.is_over
            and (job.state is JobState.RUNNING or job.id in self._tasks or job.id in seen)
        ]
        return tuple(burden for job in there if (burden := self._burden(job)) is not None)

    def _burden(self, job: Job) -> JobDemand | None:
        found = self._spec_of(job)
        return JobDemand(job.id, job.project, found[0].service) if found else None

    # The loop

    async def run(self) -> None:
        """Pass after pass until cancelled."""
        try:
            while True:
                try:
                    await self.look(self._clock())
                except StoreWriteError as error:
                    _log.error("jobs wait until the state can be written", reason=str(error))
                    await asyncio.sleep(UNWRITABLE)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(TICK):
                        await self._soon.wait()
                self._soon.clear()
        finally:
            for task in self._tasks.values():
                task.cancel()
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def look(self, now: float) -> None:
        """One pass. The runtime is asked only while there is something to see."""
        self._log.keep(self._store.projects)
        if self._seen == {} and not self._about():
            return
        try:
            found = await self._runtime.jobs()
        except RuntimeFailure as error:
            _log.debug("what becomes of jobs is not known", reason=str(error))
            return
        self._seen = {seen.name: seen for seen in found if seen.project in self._store.projects}
        leaving = {name for name, stored in self._store.projects.items() if stored.leaving}
        todo = plan.steps(self.jobs(), self._seen, leaving, self._read, now)
        for step in todo:
            self._take(step)
        await self._told()

    def _about(self) -> bool:
        return any(not job.is_over for job in self._log.jobs.values())

    def _take(self, step: plan.JobStep) -> None:
        job = self._log.jobs.get(step.id)
        match step:
            case plan.Started() if job is not None:
                self._log.put(plan.running(job, step.at))
            case plan.Begin() if job is not None and self._waits(job):
                pass
            case plan.Halt(end_state=end_state, text=text) if end_state and job is not None:
                self._halt(job, end_state, text)
            case _ if step.id not in self._tasks:
                task = asyncio.create_task(self._carry_out(step))
                self._tasks[step.id] = task
                task.add_done_callback(lambda _: self._done(step.id))

    def _waits(self, job: Job) -> bool:
        """Whether there is no room for it now; that is told when it begins, and when the reason
        changes."""
        burden = None if job.urgent or job.id in self._tasks else self._burden(job)
        if burden is None or self.room is None:
            return False
        why = self.room.lacking(burden, self.burdens())
        if why and job.text != f"waits for room: {why}":
            waiting = update_job(job, text=f"waits for room: {why}")
            self._log.put(waiting)
            self._executor.tell(Kind.JOB_WAITING, waiting, f"{job.id} {waiting.text}")
        return bool(why)

    def _done(self, id: str) -> None:
        del self._tasks[id]

    def _halt(self, job: Job, end_state: str, text: str) -> None:
        """Keep what the end will be called, and have it come."""
        self._log.put(update_job(job, end_state=end_state, text=text))
        if job.state is JobState.RUNNING:
            self._take(plan.Halt(job.id))
        self._soon.set()

    async def _carry_out(self, step: plan.JobStep) -> None:
        await self._executor.carry_out(step)
        await self._told()
        self._soon.set()

    async def _told(self) -> None:
        """Have those look who wait for what becomes of a job."""
        async with self._news:
            self._news.notify_all()
