"""The API's values for one-off jobs, and `Desk`: what is offered for them.

A job's id is also its container's name. Times are Unix seconds, durations seconds.
"""

from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from meshd.model.base import Value
from meshd.model.job import (
    Job,
    JobOrder,
)


class ScheduleStatus(Value, frozen=True):
    """One schedule: when it is due next (None: never again), and its last run."""

    project: str
    service: str
    name: str
    cron: str
    timezone: str
    next: float | None
    last: Job | None = None


class JobList(Value, frozen=True):
    """Jobs, the newest first, and all schedules."""

    jobs: tuple[Job, ...] = ()
    schedules: tuple[ScheduleStatus, ...] = ()


class Desk(Protocol):
    """What the control process offers for jobs; every name may raise NoSuchThing."""

    def begin(self, project: str, service: str, order: JobOrder, cause: str) -> Job:
        """Take an order; it is kept before this returns, and started soon. Raises Refused
        where the project is being taken down, or the id is another service's."""

    def job(self, id: str) -> Job:
        """A job as it is now."""

    def list(self) -> JobList:
        """All that are remembered."""

    def stop(self, id: str) -> Job:
        """Have a job end; nothing where it has."""

    def lines(self, id: str) -> Sequence[str]:
        """The last lines of a job that is over; empty before."""

    def follow(self, id: str) -> AsyncIterator[str]:
        """All lines of a job, from its first on as far as they are kept, until it ends."""
