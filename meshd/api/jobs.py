"""The API's values for one-off jobs, and `Desk`: what is offered for them.

A job's id is also its container's name. Times are Unix seconds, durations seconds.
"""

from collections.abc import AsyncIterator, Sequence
from typing import Final, Protocol

import msgspec

from meshd.api.model import Value

WAITING: Final = "waiting"
RUNNING: Final = "running"
SUCCEEDED: Final = "succeeded"
FAILED: Final = "failed"
TIMED_OUT: Final = "timed-out"
STOPPED: Final = "stopped"
LOST: Final = "lost"


class JobOrder(Value, frozen=True):
    """What to run: `command` instead of the service's own (empty: that), with `environment`
    besides, for `timeout` at most (0: without end). `id` names the job; whoever gives one may
    order it again, and it is run once. `revision` is the service's (empty: the one that its
    replicas are of)."""

    command: tuple[str, ...] = ()
    environment: dict[str, str] = msgspec.field(default_factory=dict)
    timeout: float = 0.0
    id: str = ""
    revision: str = ""


class Job(Value, frozen=True):
    """One run. `state` is `waiting` (where it is for room, `text` says why), `running`, or how it
    ended: `succeeded`, `failed`, `timed-out`, `stopped` or `lost` (its container went away before
    its end was seen); `text` says more. `cause` is why it was run, `schedule` the schedule's
    name, where one did."""

    id: str
    project: str
    service: str
    revision: str
    command: tuple[str, ...]
    cause: str
    at: float
    environment: dict[str, str] = msgspec.field(default_factory=dict)
    timeout: float = 0.0
    schedule: str | None = None
    state: str = WAITING
    started: float = 0.0
    ended: float = 0.0
    exit_code: int | None = None
    text: str = ""
    urgent: bool = False
    """It waits for no room: what it is part of would wait for it."""
    verdict: str = ""
    """What its end is to be called, once it was told to end."""

    @property
    def key(self) -> str:
        """`PROJECT/SERVICE`."""
        return f"{self.project}/{self.service}"

    @property
    def over(self) -> bool:
        """Whether nothing more becomes of it."""
        return self.state not in (WAITING, RUNNING)


class JobLine(Value, frozen=True):
    """One line that a job wrote."""

    line: str


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


def ended_well(job: Job) -> bool:
    """Whether it is over and did what it was for."""
    return job.state == SUCCEEDED


def changed(job: Job, **fields: object) -> Job:
    """The job with other fields."""
    return msgspec.structs.replace(job, **fields)
