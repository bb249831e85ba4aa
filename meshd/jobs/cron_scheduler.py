"""Starts the jobs of schedules that are due, once a second.

Made by `meshd.daemon.wiring`. `schedule_table` knows which schedules are due; `schedule.decide`
(pure) says whether a run starts, replaces the previous one, or is skipped.
"""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

import structlog

from meshd.jobs.manager import JobManager
from meshd.jobs.schedule import ScheduleDecision, decide
from meshd.jobs.schedule_table import ScheduleKey, ScheduleTable
from meshd.model.errors import Rejected, StoreWriteError
from meshd.model.event import Kind
from meshd.model.job import Job, JobOrder
from meshd.spec.model import JobSchedule
from meshd.store.events import EventLog

_log = structlog.stdlib.get_logger(__name__)
TICK: Final = 1.0
"""Seconds between two checks; cron's resolution is a minute."""


class CronScheduler:
    """Orders the jobs of schedules from the job manager."""

    def __init__(
        self,
        table: ScheduleTable,
        jobs: JobManager,
        events: EventLog,
        clock: Callable[[], float],
    ) -> None:
        self._table = table
        self._jobs = jobs
        self._events = events
        self._clock = clock

    async def run(self) -> None:
        """Check every second until cancelled."""
        while True:
            try:
                self.check(self._clock())
            except StoreWriteError as error:
                _log.error("schedules wait: state cannot be written", reason=str(error))
            await asyncio.sleep(TICK)

    def check(self, now: float) -> None:
        """Start the jobs that are due."""
        for key, schedule in self._table.due(now):
            self._handle_due(key, schedule, now)

    def _handle_due(self, key: ScheduleKey, schedule: JobSchedule, now: float) -> None:
        """Handle a schedule that is due. The job is ordered before the time is marked as handled,
        under an id made from that time: after a crash in between, it still runs exactly once."""
        active = [job for job in self._table.runs(key) if not job.is_over]
        checked = self._table.checked_until(key) or now
        decision = decide(schedule, checked, bool(active), now)
        if decision is not None:
            self._act(key, schedule, decision, active)
        self._table.mark_checked(key, now)

    def _act(
        self, key: ScheduleKey, schedule: JobSchedule, decision: ScheduleDecision, active: list[Job]
    ) -> None:
        project, service, name = key
        due = datetime.fromtimestamp(decision.at, UTC)
        repeated = "again" if self._table.repeats(key, decision.at) else ""
        parts = (project, service, name, due.strftime("%Y%m%d-%H%M"), repeated)
        id = "-".join(filter(None, parts))
        if decision.missed:
            self._record_skip(key, f"missed {decision.missed} earlier runs, which are dropped")
        if decision.act == "skip":
            self._record_skip(key, f"skips its run for {due:%Y-%m-%d %H:%M} UTC: {decision.text}")
            return
        for job in active if decision.act == "replace" else ():
            self._jobs.stop(job.id)
        order = JobOrder(schedule.command or (), timeout=schedule.timeout, id=id)
        try:
            self._jobs.begin(project, service, order, f"schedule {name or schedule.cron}", name)
        except Rejected as error:
            self._record_skip(key, f"skips its run for {due:%Y-%m-%d %H:%M} UTC: {error}")

    def _record_skip(self, key: ScheduleKey, text: str) -> None:
        project, service, name = key
        text = f"schedule {name}: {text}" if name else f"schedule: {text}"
        self._events.record(self._clock(), Kind.JOB_SKIPPED, text, project=project, service=service)
