"""The schedules of every deployed service: when each is due, and how many of its runs to keep.

`cron_scheduler` starts what is due; the job manager lists schedules and asks for their history.
When a schedule is due is computed by `schedule` (pure).
"""

from collections.abc import Callable, Iterator

from meshd.api.dto import ScheduleStatus
from meshd.jobs.schedule import follows_set_back, next_due
from meshd.model.job import Job
from meshd.spec.model import JobSchedule
from meshd.store.jobs import KEPT, JobLog
from meshd.store.store import Store

ScheduleKey = tuple[str, str, str]
"""Project, service and the schedule's name."""


class ScheduleTable:
    """All job schedules by key. The times of a new schedule count from when it is first seen."""

    def __init__(self, store: Store, log: JobLog, clock: Callable[[], float]) -> None:
        self._store = store
        self._log = log
        self._clock = clock
        self._next: dict[ScheduleKey, tuple[JobSchedule, float | None]] = {}
        self._repeats_until: dict[ScheduleKey, float] = {}

    def schedules(self) -> dict[ScheduleKey, JobSchedule]:
        """Return the schedules of all projects that are not being taken down."""
        return dict(self._iterate())

    def due(self, now: float) -> list[tuple[ScheduleKey, JobSchedule]]:
        """Return the schedules that are due; begin to follow new ones, and drop old ones."""
        known = self.schedules()
        new = {key: now for key in known if self._log.looked(*key) is None}
        for key, schedule in known.items():
            checked = self._log.looked(*key)
            if checked is not None and follows_set_back(schedule, checked, now):
                new[key] = now
                self._next.pop(key, None)
                self._repeats_until[key] = checked
        if new:
            self._log.look(new)
        self._next = {key: each for key, each in self._next.items() if key in known}
        found = []
        for key, schedule in known.items():
            due = self._next_due(key, schedule)
            if due is not None and due <= now:
                found.append((key, schedule))
        return found

    def repeats(self, key: ScheduleKey, at: float) -> bool:
        """Whether the schedule may have been due at `at` once before, because the clock was set
        back since."""
        return at <= self._repeats_until.get(key, at - 1.0)

    def checked_until(self, key: ScheduleKey) -> float | None:
        """Return the Unix time up to which the schedule was handled; None for a new one."""
        return self._log.looked(*key)

    def mark_checked(self, key: ScheduleKey, now: float) -> None:
        """Store that the schedule was handled up to `now`."""
        self._log.look({key: now})
        del self._next[key]

    def runs(self, key: ScheduleKey) -> list[Job]:
        """Return the jobs of a schedule, oldest first."""
        jobs = self._log.jobs.values()
        return [job for job in jobs if (job.project, job.service, job.schedule) == key]

    def statuses(self) -> tuple[ScheduleStatus, ...]:
        """Return every schedule with the time it is due next, and its last run."""
        return tuple(
            ScheduleStatus(
                *key,
                cron=schedule.cron,
                timezone=schedule.timezone,
                next=self._next_due(key, schedule),
                last=max(self.runs(key), key=lambda job: job.at, default=None),
            )
            for key, schedule in self._iterate()
        )

    def history(self, job: Job) -> int:
        """Return how many ended runs like this one to keep."""
        if job.schedule is None:
            return KEPT
        key = (job.project, job.service, job.schedule)
        return next((each.history for k, each in self._iterate() if k == key), KEPT)

    def _iterate(self) -> Iterator[tuple[ScheduleKey, JobSchedule]]:
        for name, stored in self._store.projects.items():
            if not stored.leaving:
                for service in stored.project.services:
                    for schedule in service.mesh.schedule:
                        yield (name, service.name, schedule.name), schedule

    def _next_due(self, key: ScheduleKey, schedule: JobSchedule) -> float | None:
        cached = self._next.get(key)
        if cached is None or cached[0] != schedule:
            checked = self._log.looked(*key)
            due = next_due(schedule, self._clock() if checked is None else checked)
            cached = self._next[key] = (schedule, due)
        return cached[1]
