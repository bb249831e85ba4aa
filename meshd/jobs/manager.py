"""Runs one-off jobs: takes orders, answers questions about jobs, and runs a pass over them.

`JobManager` implements the API's job operations. `plan` (pure) decides the next step of each job;
`step_runner` carries it out by requests to the reconciler. `cron_scheduler` orders scheduled jobs.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from typing import Final, Protocol

import structlog

from meshd.api.dto import JobList
from meshd.capacity.job_demand import JobDemand
from meshd.jobs import plan
from meshd.jobs.factory import JobFactory
from meshd.jobs.schedule_table import ScheduleTable
from meshd.jobs.step_runner import UNWRITABLE, JobRequests, JobStepRunner
from meshd.jobs.table import JobTable
from meshd.model.errors import Rejected, StoreWriteError
from meshd.model.event import Kind
from meshd.model.job import Job, JobOrder, JobState, update_job
from meshd.model.operation import StartReplica
from meshd.model.output import ALL_LINES, OutputQuery
from meshd.runtime.base import ReplicaNotFound, Runtime, RuntimeFailure
from meshd.spec.model import Service
from meshd.store.events import EventLog
from meshd.store.jobs import JobLog
from meshd.store.store import Store

_log = structlog.stdlib.get_logger(__name__)
TICK: Final = 0.25
"""Seconds between two passes while a job is active."""


class JobCapacity(Protocol):
    """Whether there is capacity for a job; see `meshd.capacity.job_demand.JobAdmission`."""

    def find_rejection(self, job: JobDemand) -> str | None:
        """Return why the job can never run; empty if it can."""

    def find_shortage(self, job: JobDemand, running: Sequence[JobDemand]) -> str | None:
        """Return why the job must wait besides the running ones; empty if it need not."""


class JobManager:
    """The jobs of all projects. The runtime is only read: containers and their output."""

    def __init__(
        self,
        *,
        runtime: Runtime,
        reconciler: JobRequests,
        store: Store,
        log: JobLog,
        table: JobTable,
        factory: JobFactory,
        schedules: ScheduleTable,
        capacity: JobCapacity,
        events: EventLog,
        clock: Callable[[], float],
    ) -> None:
        self._runtime = runtime
        self._reconciler = reconciler
        self._store = store
        self._log = log
        self._table = table
        self._factory = factory
        self._schedules = schedules
        self._capacity = capacity
        self._clock = clock
        self._runner = JobStepRunner(runtime, reconciler, log, table, schedules, events, clock)
        self._followers: Counter[str] = Counter()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._news = asyncio.Condition()

    # Operations of the API

    def begin(
        self, project: str, service: str, order: JobOrder, cause: str, schedule: str | None = None
    ) -> Job:
        """See `JobControl.begin`."""
        if (existing := self._factory.find_existing(project, service, order)) is not None:
            return existing
        job = self._factory.create(project, service, order, cause, schedule, urgent=False)
        demand = self._demand(job)
        if demand is not None and (reason := self._capacity.find_rejection(demand)):
            raise Rejected(f"a job of {service} cannot run: {reason}")
        self._table.add(job)
        return job

    def job(self, id: str) -> Job:
        """See `JobControl.job`."""
        return self._table.find(id)

    def list(self) -> JobList:
        """See `JobControl.list`."""
        newest = sorted(self._table.jobs(), key=lambda job: job.at, reverse=True)
        return JobList(tuple(newest), self._schedules.statuses())

    def stop(self, id: str) -> Job:
        """See `JobControl.stop`."""
        job = self.job(id)
        if job.is_over or job.end_state:
            return job
        self._ask_to_stop(job, JobState.STOPPED, "was stopped by hand")
        return self.job(id)

    def lines(self, id: str) -> Sequence[str]:
        """See `JobControl.lines`."""
        self.job(id)
        return self._log.lines(id)

    async def follow(self, id: str) -> AsyncIterator[str]:
        """See `JobControl.follow`."""
        has_lines = False
        self._followers[id] += 1
        try:
            job = await self._until(id, lambda job: job.state is not JobState.WAITING)
            if not job.is_over or id in (self._table.containers or {}):
                with contextlib.suppress(ReplicaNotFound):
                    lines = self._runtime.follow(id, OutputQuery(ALL_LINES))
                    async with aclosing(lines):  # type: ignore[type-var]
                        async for line in lines:
                            has_lines = True
                            yield line.text
                self._table.changed.set()
                await self._until(id, lambda job: job.is_over)
            if not has_lines:
                for text in self.lines(id):
                    yield text
        finally:
            self._followers[id] -= 1
            if not self._followers[id]:
                del self._followers[id]

    async def _until(self, id: str, is_reached: Callable[[Job], bool]) -> Job:
        async with self._news:
            await self._news.wait_for(lambda: is_reached(self.job(id)))
        return self.job(id)

    # Capacity

    def demands(self) -> Sequence[JobDemand]:
        """Return the demand of each job that runs or is being started."""
        containers = self._table.containers or {}
        jobs = [
            job
            for job in self._table.active()
            if job.state is JobState.RUNNING or job.id in self._tasks or job.id in containers
        ]
        return tuple(demand for job in jobs if (demand := self._demand(job)) is not None)

    def _demand(self, job: Job) -> JobDemand | None:
        """Return the demand of a job; None if its revision no longer exists."""
        service = self._service_of(job)
        return JobDemand(job.id, job.project, job.adapt(service)) if service else None

    def _service_of(self, job: Job) -> Service | None:
        if job.project not in self._store.projects:
            return None
        found = self._reconciler.view().service(job.key)
        if found is not None and found.revision == job.revision:
            return found.spec
        return self._store.revision(job.key, job.revision)

    # The loop

    async def run(self) -> None:
        """Run passes until cancelled."""
        try:
            while True:
                try:
                    await self.run_pass(self._clock())
                except StoreWriteError as error:
                    _log.error("jobs wait: state cannot be written", reason=str(error))
                    await asyncio.sleep(UNWRITABLE)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(TICK):
                        await self._table.changed.wait()
                self._table.changed.clear()
        finally:
            for task in self._tasks.values():
                task.cancel()
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def run_pass(self, now: float) -> None:
        """Run one pass. The runtime is listed only while there are jobs or their containers."""
        self._log.keep(self._store.projects)
        if self._table.containers == {} and not self._table.active():
            return
        try:
            found = await self._runtime.jobs()
        except RuntimeFailure as error:
            _log.debug("jobs cannot be listed", reason=str(error))
            return
        ours = [seen for seen in found if seen.project in self._store.projects]
        starting = self._starting_replicas()
        containers = {s.name: s for s in ours if not plan.is_init_container(s, starting)}
        self._table.set_containers(containers)
        leaving = {name for name, stored in self._store.projects.items() if stored.leaving}
        for step in plan.steps(self._table.jobs(), containers, leaving, self._followers, now):
            self._take(step)
        await self._notify()

    def _starting_replicas(self) -> Sequence[str]:
        """Return the replicas that are being started; the containers of their `pre_start` steps
        are no jobs."""
        running = self._reconciler.view().running
        return [each.name for each in running if isinstance(each, StartReplica)]

    def _take(self, step: plan.JobStep) -> None:
        job = self._log.jobs.get(step.id)
        match step:
            case plan.Started() if job is not None:
                self._log.put(plan.running(job, step.at))
            case plan.Begin() if job is not None and self._must_wait(job):
                pass
            case plan.Halt(end_state=end_state, text=text) if end_state and job is not None:
                self._ask_to_stop(job, end_state, text)
            case _ if step.id not in self._tasks:
                task = asyncio.create_task(self._run_step(step))
                self._tasks[step.id] = task
                task.add_done_callback(lambda _: self._on_task_done(step.id))

    def _must_wait(self, job: Job) -> bool:
        """Whether the job must wait for capacity. The reason is recorded when it begins to wait,
        and when the reason changes."""
        demand = None if job.urgent or job.id in self._tasks else self._demand(job)
        if demand is None:
            return False
        reason = self._capacity.find_shortage(demand, self.demands())
        text = f"waits for capacity: {reason}"
        if reason and job.text != text:
            waiting = update_job(job, text=text)
            self._log.put(waiting)
            self._runner.record(Kind.JOB_WAITING, waiting, f"{job.id} {text}")
        return bool(reason)

    def _on_task_done(self, id: str) -> None:
        del self._tasks[id]

    def _ask_to_stop(self, job: Job, end_state: JobState, text: str) -> None:
        """Store the state that the job will end in, and stop its container."""
        self._log.put(update_job(job, end_state=end_state, text=text))
        if job.state is JobState.RUNNING:
            self._take(plan.Halt(job.id))
        self._table.changed.set()

    async def _run_step(self, step: plan.JobStep) -> None:
        await self._runner.run(step)
        await self._notify()
        self._table.changed.set()

    async def _notify(self) -> None:
        """Wake everything that waits for a change of a job."""
        async with self._news:
            self._news.notify_all()
