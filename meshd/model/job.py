"""One-off jobs and the states they pass through."""

from typing import Final

import msgspec

from meshd.model.base import Value

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


def ended_well(job: Job) -> bool:
    """Whether it is over and did what it was for."""
    return job.state == SUCCEEDED


def changed(job: Job, **fields: object) -> Job:
    """The job with other fields."""
    return msgspec.structs.replace(job, **fields)


class HookState(msgspec.Struct, frozen=True):
    """How a hook stands; `text` is how it ended, with its last lines."""

    over: bool
    ok: bool = False
    text: str = ""
