"""Carries out one step of the jobs' plan: requests operations, and records what became of a job.

Owned by `manager`. The reconciler's executor acts on the runtime; this module only requests that,
and reads the output of containers.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol, overload

import structlog

from meshd.jobs import plan
from meshd.jobs.schedule_table import ScheduleTable
from meshd.jobs.table import JobTable
from meshd.model.desired import DesiredService
from meshd.model.errors import NotFound, StoreWriteError
from meshd.model.event import Kind
from meshd.model.job import Job, JobState, update_job
from meshd.model.operation import Operation, RemoveJob, StartJob, StopJob
from meshd.model.runtime import ObservedReplica
from meshd.runtime.base import (
    ReplicaNotFound,
    RevisionMissing,
    Runtime,
    RuntimeFailure,
    RuntimeUnavailable,
)
from meshd.store.events import EventLog
from meshd.store.jobs import JobLog

_log = structlog.stdlib.get_logger(__name__)
RETRY: Final = 0.25
"""Seconds before a start is tried again while the runtime is unavailable."""
LINES_KEPT: Final = 1000
"""Lines of output stored of an ended job."""
GRACE: Final = 10.0
"""Seconds between the stop signal and KILL: Docker's default."""
UNWRITABLE: Final = 2.0
"""Seconds before a write to the state is tried again."""


class DesiredServices(Protocol):
    """The desired services and operations, as the reconciler's view has them."""

    @property
    def running(self) -> tuple[Operation, ...]:
        """The operations that run now."""

    def service(self, key: str) -> DesiredService | None:
        """Return a service by key."""


class JobRequests(Protocol):
    """The reconciler, as jobs see it; see `meshd.reconcile.loop.Reconciler`."""

    def view(self) -> DesiredServices:
        """Return the state as of the last pass."""

    @overload
    def request(self, request: StartJob) -> Awaitable[ObservedReplica]: ...
    @overload
    def request(self, request: StopJob | RemoveJob) -> Awaitable[None]: ...


class JobStepRunner:
    """Carries out the steps of a job plan. The runtime is only read: output comes from there."""

    def __init__(
        self,
        runtime: Runtime,
        reconciler: JobRequests,
        log: JobLog,
        table: JobTable,
        schedules: ScheduleTable,
        events: EventLog,
        clock: Callable[[], float],
    ) -> None:
        self._runtime = runtime
        self._reconciler = reconciler
        self._log = log
        self._table = table
        self._schedules = schedules
        self._events = events
        self._clock = clock

    async def run(self, step: plan.JobStep) -> None:
        """Carry out `step` as far as possible now; the next pass sees what remains to do."""
        try:
            match step:
                case plan.Begin():
                    await self._start(self._table.find(step.id))
                case plan.Halt():
                    await self._stop(step.id, step.text or "it was asked to stop")
                case plan.Clear():
                    await self._reconciler.request(RemoveJob(id=step.id, cause="it has ended"))
                case plan.End():
                    await self._end(self._table.find(step.id), step)
        except ReplicaNotFound:
            _log.debug("job's container does not exist any more", job=step.id)
        except RuntimeFailure as error:
            name = type(step).__name__
            _log.info(
                "job step failed; it is tried again", job=step.id, step=name, error=str(error)
            )
        except NotFound:
            _log.debug("job was forgotten", job=step.id)
        except StoreWriteError as error:
            _log.error("job cannot be stored", job=step.id, reason=str(error))
            await asyncio.sleep(UNWRITABLE)

    def record(self, kind: Kind, job: Job, text: str) -> None:
        """Record an event about a job."""
        now = self._clock()
        self._events.record(now, kind, text, project=job.project, service=job.service)

    async def _start(self, job: Job) -> None:
        now = self._clock()
        try:
            request = StartJob(id=job.id, job=job, cause=job.cause)
            seen = await self._reconciler.request(request)
        except RuntimeUnavailable:
            await asyncio.sleep(RETRY)
            return
        except RuntimeFailure as error:
            prefix = "" if isinstance(error, RevisionMissing) else "could not be started: "
            text = f"{prefix}{error}"
            end = plan.End(job.id, JobState.FAILED, now, text=text, has_container=False)
            await self._end(job, end)
            return
        started = plan.running(self._table.find(job.id), seen.started_at or now)
        self._log.put(started)
        self.record(Kind.JOB_STARTED, started, f"{job.id} started: {job.cause}")
        if started.end_state:  # it was asked to stop while it started
            await self._stop(job.id, started.text)

    async def _stop(self, id: str, cause: str) -> None:
        await self._reconciler.request(StopJob(id=id, grace=GRACE, cause=cause))

    async def _end(self, job: Job, end: plan.End) -> None:
        lines: Sequence[str] = ()
        if end.has_container:
            lines = await self._runtime.logs(job.id, LINES_KEPT)
        over = update_job(
            job, state=end.state, ended=end.at, exit_code=end.exit_code, text=end.text
        )
        self._log.put(over, lines, self._schedules.history(over))
        kind = Kind.JOB_DONE if over.succeeded else Kind.JOB_FAILED
        took = f" after {over.ended - over.started:.1f} s" if over.started else ""
        detail = f": {end.text}" if end.text else ""
        self.record(kind, over, f"{over.id} {over.state}{took}{detail}")
