"""One-off jobs: their states with a transition table, orders for jobs, and hooks' states. Pure.

`meshd.jobs` runs jobs and moves them from state to state. `meshd.store.jobs` keeps them, the API
answers with them, and rollouts run their hooks as jobs.
"""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final

import msgspec

from meshd.model.base import RequestBody, Value
from meshd.model.service_key import ServiceKey, service_key
from meshd.spec.model import InitContainer, Service


class JobState(StrEnum):
    """State of a job. The strings are stored and sent, so they never change."""

    WAITING = "waiting"
    """Ordered, but not started yet."""
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    """Exited with code 0."""
    FAILED = "failed"
    """Exited with another code, ran out of memory, or could not be started."""
    TIMED_OUT = "timed-out"
    STOPPED = "stopped"
    """Stopped by a user, or because its project goes down."""
    LOST = "lost"
    """Its container disappeared before meshd saw its end."""

    @property
    def is_final(self) -> bool:
        """Whether the job cannot leave this state."""
        return not JOB_TRANSITIONS[self]


JOB_TRANSITIONS: Final[Mapping[JobState, tuple[JobState, ...]]] = MappingProxyType(
    {
        JobState.WAITING: (
            JobState.RUNNING,
            JobState.SUCCEEDED,
            JobState.FAILED,
            JobState.STOPPED,
        ),
        JobState.RUNNING: (
            JobState.SUCCEEDED,
            JobState.FAILED,
            JobState.TIMED_OUT,
            JobState.STOPPED,
            JobState.LOST,
        ),
        JobState.SUCCEEDED: (),
        JobState.FAILED: (),
        JobState.TIMED_OUT: (),
        JobState.STOPPED: (),
        JobState.LOST: (),
    }
)
"""The states that can follow each state. A short job can end before meshd sees it run."""


class JobOrder(RequestBody, frozen=True):
    """A request to run a job.

    - `command`: what to run; empty: the service's own command.
    - `environment`: variables in addition to the service's own.
    - `timeout`: seconds after which the job is stopped; 0: no limit.
    - `id`: name of the job; empty: meshd chooses one. A second order with the same id does not
      run the job again.
    - `revision`: revision of the service; empty: the one that its replicas run.
    """

    command: tuple[str, ...] = ()
    environment: dict[str, str] = msgspec.field(default_factory=dict)
    timeout: float = 0.0
    id: str = ""
    revision: str = ""


class Job(Value, frozen=True):
    """One run of a command in a container of a service's revision.

    - `cause`: why it was ordered; `at`: when (Unix time).
    - `timeout`: seconds after which it is stopped; 0: no limit.
    - `schedule`: name of the schedule that ordered it; None: no schedule.
    - `started`, `ended`: Unix times; 0 while unknown.
    - `text`: why it waits for capacity, or details of its end.
    - `urgent`: it starts even without free capacity, because a rollout waits for it.
    - `pre_start`: number of the step of the service's `pre_start` that it runs, from 0; None: none.
    - `end_state`: the state it gets once it has ended, set when it is asked to stop; empty: its
      exit code decides.
    """

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
    state: JobState = JobState.WAITING
    started: float = 0.0
    ended: float = 0.0
    exit_code: int | None = None
    text: str = ""
    urgent: bool = False
    pre_start: int | None = None
    end_state: str = msgspec.field(default="", name="verdict")

    @property
    def key(self) -> ServiceKey:
        """`PROJECT/SERVICE`."""
        return service_key(self.project, self.service)

    @property
    def is_over(self) -> bool:
        """Whether it has ended."""
        return self.state.is_final

    @property
    def succeeded(self) -> bool:
        """Whether it ended with exit code 0."""
        return self.state is JobState.SUCCEEDED

    def adapt(self, service: Service) -> Service:
        """Return `service` with the job's command (if it has one) and its environment added, or
        as its `pre_start` step says."""
        if self.pre_start is not None and self.pre_start < len(service.pre_start):
            return adapt_to_step(service, service.pre_start[self.pre_start])
        return service.model_copy(
            update={
                "command": self.command or service.command,
                "environment": {**service.environment, **self.environment},
            }
        )


class JobLine(Value, frozen=True):
    """One line of a job's output."""

    line: str


def adapt_to_step(service: Service, step: InitContainer) -> Service:
    """Return `service` as its `pre_start` step runs: with the image, command, user, directory and
    variables of the step, where it has them."""
    changes: dict[str, object] = {
        "command": step.command or (None if step.image else service.command),
        "user": step.user or service.user,
        "working_dir": step.working_dir or service.working_dir,
        "environment": {**service.environment, **step.environment},
        "options": service.options.model_copy(
            update={"privileged": step.privileged or service.options.privileged}
        ),
    }
    if step.image:
        changes |= {"image": step.image, "image_id": "", "image_digest": "", "build": None}
        changes["entrypoint"] = None
    return service.model_copy(update=changes)


def update_job(job: Job, **fields: object) -> Job:
    """Return a copy of `job` with other values in some fields."""
    return msgspec.structs.replace(job, **fields)


class HookState(msgspec.Struct, frozen=True):
    """State of a rollout hook. `text` says how it ended, with its last lines of output."""

    is_over: bool
    ok: bool = False
    text: str = ""
