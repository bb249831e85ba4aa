"""Carries out one step about a job: starts it, ends it, keeps what it left, and tells."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

import structlog

from meshd.jobs import plan
from meshd.model.errors import NotFound, StoreWriteError
from meshd.model.event import Kind
from meshd.model.job import Job, JobState, update_job
from meshd.model.runtime import ReplicaSpec
from meshd.runtime.base import ReplicaNotFound, Runtime, RuntimeFailure, RuntimeUnavailable
from meshd.spec.model import Network
from meshd.store.events import EventLog
from meshd.store.jobs import JobLog

_log = structlog.stdlib.get_logger(__name__)
RETRY: Final = 0.25
"""Seconds before a start is tried again that nothing could be told for."""
LINES_KEPT: Final = 1000
GRACE: Final = 10.0
UNWRITABLE: Final = 2.0
"""Seconds before it is tried again to keep something."""
START_AT_ONCE: Final = 2

Specs = Callable[[Job], tuple[ReplicaSpec, Sequence[Network]] | None]


def find(log: JobLog, id: str) -> Job:
    """The job of that name. Raises NoSuchThing."""
    found = log.jobs.get(id)
    if found is None:
        raise NotFound(f"there is no job {id}")
    return found


class JobExecutor:
    """Acts on the runtime. `spec_of` and `may_start` as for the desk; `kept` is how many ended
    runs like this one are remembered."""

    def __init__(
        self,
        runtime: Runtime,
        log: JobLog,
        events: EventLog,
        spec_of: Specs,
        may_start: Callable[[], bool],
        kept: Callable[[Job], int],
        clock: Callable[[], float],
    ) -> None:
        self._runtime = runtime
        self._log = log
        self._events = events
        self._spec_of = spec_of
        self._may_start = may_start
        self._kept = kept
        self._clock = clock
        self._gate = asyncio.Semaphore(START_AT_ONCE)

    async def carry_out(self, step: plan.JobStep) -> None:
        """Do it, as far as it can be done now: what is left shows in the next look."""
        try:
            match step:
                case plan.Begin():
                    await self._start(find(self._log, step.id))
                case plan.Halt():
                    await self._runtime.stop(step.id, GRACE)
                case plan.Clear():
                    await self._runtime.remove(step.id)
                case plan.End():
                    await self._end(find(self._log, step.id), step)
        except ReplicaNotFound:
            _log.debug("gone already", job=step.id)
        except RuntimeFailure as error:
            _log.info("not done yet", job=step.id, step=type(step).__name__, reason=str(error))
        except NotFound:
            _log.debug("forgotten meanwhile", job=step.id)
        except StoreWriteError as error:
            _log.error("not kept", job=step.id, reason=str(error))
            await asyncio.sleep(UNWRITABLE)

    async def _start(self, job: Job) -> None:
        if not self._may_start():
            await asyncio.sleep(RETRY)
            return
        found = self._spec_of(job)
        now = self._clock()
        if found is None:
            text = f"revision {job.revision[:12]} of {job.key} is not there any more"
            await self._end(job, plan.End(job.id, JobState.FAILED, now, text=text, there=False))
            return
        spec, networks = found
        try:
            async with self._gate:
                await self._runtime.prepare(job.project, spec.service, networks)
                seen = await self._runtime.start(spec)
        except RuntimeUnavailable:
            await asyncio.sleep(RETRY)
            return
        except RuntimeFailure as error:
            text = f"could not be started: {error}"
            await self._end(job, plan.End(job.id, JobState.FAILED, now, text=text, there=False))
            return
        started = plan.running(find(self._log, job.id), seen.started_at or now)
        self._log.put(started)
        self.tell(Kind.JOB_STARTED, started, f"{job.id} started: {job.cause}")
        if started.end_state:  # it was stopped while it was being started
            await self._runtime.stop(job.id, GRACE)

    async def _end(self, job: Job, end: plan.End) -> None:
        lines: Sequence[str] = ()
        if end.there:
            lines = await self._runtime.logs(job.id, LINES_KEPT)
        over = update_job(
            job, state=end.state, ended=end.at, exit_code=end.exit_code, text=end.text
        )
        self._log.put(over, lines, self._kept(over))
        kind = Kind.JOB_DONE if over.succeeded else Kind.JOB_FAILED
        took = f" after {over.ended - over.started:.1f} s" if over.started else ""
        self.tell(
            kind, over, f"{over.id} {over.state}{took}" + (f": {end.text}" if end.text else "")
        )

    def tell(self, kind: Kind, job: Job, text: str) -> None:
        """Write it into the log of events."""
        now = self._clock()
        self._events.record(now, kind, text, project=job.project, service=job.service)
