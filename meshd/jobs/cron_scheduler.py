"""Starts what is scheduled; whether it is due is decided in `schedule`."""

import asyncio
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Final

import structlog

from meshd.api.dto import ScheduleStatus
from meshd.jobs.manager import JobManager
from meshd.jobs.schedule import ScheduleDecision, decide, next_due
from meshd.model.errors import Rejected, StoreWriteError
from meshd.model.event import Kind
from meshd.model.job import Job, JobOrder
from meshd.spec.model import JobSchedule
from meshd.store.events import EventLog
from meshd.store.jobs import KEPT, JobLog
from meshd.store.store import Store

_log = structlog.stdlib.get_logger(__name__)
TICK: Final = 1.0
Key = tuple[str, str, str]
"""Project, service and the schedule's name."""


class CronScheduler:
    """The schedules of every deployed service. One that is new is due from now on."""

    def __init__(
        self,
        store: Store,
        log: JobLog,
        desk: JobManager,
        events: EventLog,
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._log = log
        self._desk = desk
        self._events = events
        self._clock = clock
        self._next: dict[Key, tuple[JobSchedule, float | None]] = {}

    async def run(self) -> None:
        """Look each second until cancelled."""
        while True:
            try:
                self.look(self._clock())
            except StoreWriteError as error:
                _log.error("schedules wait until the state can be written", reason=str(error))
            await asyncio.sleep(TICK)

    def look(self, now: float) -> None:
        """Start what is due."""
        known = dict(self._known())
        new = {key: now for key in known if self._log.looked(*key) is None}
        if new:
            self._log.look(new)
        self._next = {key: each for key, each in self._next.items() if key in known}
        for key, schedule in known.items():
            due = self._due(key, schedule)
            if due is not None and due <= now:
                self._run(key, schedule, now)

    def statuses(self) -> tuple[ScheduleStatus, ...]:
        """Every schedule with when it is due next and how its last run went."""
        return tuple(
            ScheduleStatus(
                *key,
                cron=schedule.cron,
                timezone=schedule.timezone,
                next=self._due(key, schedule),
                last=max(self._runs(key), key=lambda job: job.at, default=None),
            )
            for key, schedule in self._known()
        )

    def kept(self, job: Job) -> int:
        """How many ended runs like this one are remembered."""
        if job.schedule is None:
            return KEPT
        key = (job.project, job.service, job.schedule)
        return next((each.history for k, each in self._known() if k == key), KEPT)

    def _known(self) -> Iterator[tuple[Key, JobSchedule]]:
        for name, stored in self._store.projects.items():
            if not stored.leaving:
                for service in stored.project.services:
                    for schedule in service.mesh.schedule:
                        yield (name, service.name, schedule.name), schedule

    def _due(self, key: Key, schedule: JobSchedule) -> float | None:
        kept = self._next.get(key)
        if kept is None or kept[0] != schedule:
            looked = self._log.looked(*key)
            due = next_due(schedule, self._clock() if looked is None else looked)
            kept = self._next[key] = (schedule, due)
        return kept[1]

    def _runs(self, key: Key) -> list[Job]:
        return [job for job in self._desk.jobs() if (job.project, job.service, job.schedule) == key]

    def _run(self, key: Key, schedule: JobSchedule, now: float) -> None:
        """The run is ordered, under a name that its time gives, before the time counts as seen
        to: whatever happens in between, it comes off once."""
        live = [job for job in self._runs(key) if not job.is_over]
        verdict = decide(schedule, self._log.looked(*key) or now, bool(live), now)
        if verdict is not None:
            self._act(key, schedule, verdict, live)
        self._log.look({key: now})
        del self._next[key]

    def _act(
        self, key: Key, schedule: JobSchedule, verdict: ScheduleDecision, live: list[Job]
    ) -> None:
        project, service, name = key
        due = datetime.fromtimestamp(verdict.at, UTC)
        id = "-".join(filter(None, (project, service, name, due.strftime("%Y%m%d-%H%M"))))
        if verdict.missed:
            self._tell(key, f"{verdict.missed} earlier times were missed, and are not made up for")
        if verdict.act == "skip":
            self._tell(key, f"is not run for {due:%Y-%m-%d %H:%M} UTC: {verdict.text}")
            return
        for job in live if verdict.act == "replace" else ():
            self._desk.stop(job.id)
        order = JobOrder(schedule.command or (), timeout=schedule.timeout, id=id)
        try:
            self._desk.begin(project, service, order, f"schedule {name or schedule.cron}", name)
        except Rejected as error:
            self._tell(key, f"is not run for {due:%Y-%m-%d %H:%M} UTC: {error}")

    def _tell(self, key: Key, text: str) -> None:
        project, service, name = key
        text = f"schedule {name}: {text}" if name else f"schedule: {text}"
        self._events.record(self._clock(), Kind.JOB_SKIPPED, text, project=project, service=service)
