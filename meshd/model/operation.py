"""Operations: the steps of a plan, each with its cause. Frozen values that print as text."""

from enum import IntEnum

import msgspec

from meshd.model.job import Job
from meshd.model.rollout import RolloutState
from meshd.spec.model import Network, Service


class Urgency(IntEnum):
    """What a start is for; where not all can start at once, the lower goes first."""

    HEAL = 0
    SCALE = 1
    ROLLOUT = 2
    RESERVE = 3


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """One step. `cause` says why, for people; it is recorded with what comes of it."""

    cause: str

    @property
    def subject(self) -> str:
        """What the step acts on; at most one operation of it is under way at a time."""
        raise NotImplementedError


class Prepare(Operation, frozen=True, kw_only=True):
    """Make image and networks of one revision of a service ready."""

    project: str
    service: str
    revision: str

    @property
    def subject(self) -> str:
        return f"{self.project}/{self.service}@{self.revision}"

    def __str__(self) -> str:
        return f"prepare {self.subject}: {self.cause}"


class StartReplica(Operation, frozen=True, kw_only=True):
    """Start one replica. `attempt` counts the quick failures that led to this start; a
    `reserve` one is to be paused once it answers."""

    name: str
    project: str
    service: str
    revision: str
    clone_of: str | None = None
    attempt: int = 0
    reserve: bool = False
    urgency: Urgency = Urgency.SCALE

    @property
    def key(self) -> str:
        """`PROJECT/SERVICE`."""
        return f"{self.project}/{self.service}"

    @property
    def subject(self) -> str:
        return self.name

    def __str__(self) -> str:
        how = f" as a copy of {self.clone_of}" if self.clone_of else f" ({self.revision[:12]})"
        return f"start {self.name}{how}: {self.cause}"


class DrainReplica(Operation, frozen=True, kw_only=True):
    """Take a replica out of rotation for good. `blame` counts it as a failure of its
    revision (it never got healthy, or stopped being so)."""

    name: str
    blame: bool = False

    @property
    def subject(self) -> str:
        return self.name

    def __str__(self) -> str:
        return f"drain {self.name}: {self.cause}"


class PauseReplica(Operation, frozen=True, kw_only=True):
    """Freeze a replica that is kept for later."""

    name: str

    @property
    def subject(self) -> str:
        return self.name

    def __str__(self) -> str:
        return f"pause {self.name}: {self.cause}"


class ResumeReplica(Operation, frozen=True, kw_only=True):
    """Let a replica that was kept for later serve."""

    name: str

    @property
    def subject(self) -> str:
        return self.name

    def __str__(self) -> str:
        return f"wake {self.name}: {self.cause}"


class Restore(Operation, frozen=True, kw_only=True):
    """Bring an adopted replica back into rotation: it answers again, and is not ours to stop."""

    name: str

    @property
    def subject(self) -> str:
        return self.name

    def __str__(self) -> str:
        return f"restore {self.name}: {self.cause}"


class StopReplica(Operation, frozen=True, kw_only=True):
    """Stop a drained replica; `grace` seconds between the stop signal and KILL."""

    name: str
    grace: float

    @property
    def subject(self) -> str:
        return self.name

    def __str__(self) -> str:
        return f"stop {self.name}: {self.cause}"


class RemoveReplica(Operation, frozen=True, kw_only=True):
    """Forget an ended replica; `failed` ones leave their last log lines as evidence."""

    name: str
    failed: bool = False

    @property
    def subject(self) -> str:
        return self.name

    def __str__(self) -> str:
        return f"remove {self.name}: {self.cause}"


class Settle(Operation, frozen=True, kw_only=True):
    """End a rollout."""

    project: str
    service: str
    revision: str
    outcome: RolloutState

    @property
    def subject(self) -> str:
        return f"{self.project}/{self.service}"

    def __str__(self) -> str:
        return f"settle {self.subject} as {self.outcome.word}: {self.cause}"


class Advance(Operation, frozen=True, kw_only=True):
    """A stage of a rollout is over; `stage` of them are passed now. `what` is the next."""

    project: str
    service: str
    revision: str
    stage: int
    what: str

    @property
    def subject(self) -> str:
        return f"{self.project}/{self.service}"

    def __str__(self) -> str:
        return f"shift {self.subject} to {self.revision[:12]}, {self.what}: {self.cause}"


class RunHook(Operation, frozen=True, kw_only=True):
    """Run a command of a rollout once, as a job called `id`."""

    project: str
    service: str
    id: str
    revision: str
    command: tuple[str, ...]
    timeout: float

    @property
    def subject(self) -> str:
        return self.id

    def __str__(self) -> str:
        return f"run {' '.join(self.command)} for {self.project}/{self.service}: {self.cause}"


class Forget(Operation, frozen=True, kw_only=True):
    """A project has no replica left and was taken down: remove what was made for it."""

    project: str

    @property
    def subject(self) -> str:
        return self.project

    def __str__(self) -> str:
        return f"forget {self.project}: {self.cause}"


class PrepareService(Operation, frozen=True, kw_only=True):
    """Make image and networks of one revision ready before the revision is deployed. `networks`
    are those that its project declares."""

    project: str
    spec: Service
    revision: str
    networks: tuple[Network, ...] = ()

    @property
    def subject(self) -> str:
        return f"{self.project}/{self.spec.name}@{self.revision}"

    def __str__(self) -> str:
        return f"prepare {self.subject}: {self.cause}"


class JobOperation(Operation, frozen=True, kw_only=True):
    """An operation on the container of the job called `id`."""

    id: str

    @property
    def subject(self) -> str:
        return f"job {self.id}"


class StartJob(JobOperation, frozen=True, kw_only=True):
    """Prepare what a job needs and start its container."""

    job: Job

    def __str__(self) -> str:
        return f"start job {self.id}: {self.cause}"


class StopJob(JobOperation, frozen=True, kw_only=True):
    """Stop the container of a job; `grace` seconds between the stop signal and KILL."""

    grace: float

    def __str__(self) -> str:
        return f"stop job {self.id}: {self.cause}"


class RemoveJob(JobOperation, frozen=True, kw_only=True):
    """Remove the ended container of a job."""

    def __str__(self) -> str:
        return f"remove job {self.id}: {self.cause}"


class Plan(msgspec.Struct, frozen=True):
    """Steps that are safe now, in order. `waiting` names what cannot go on yet, and why."""

    operations: tuple[Operation, ...] = ()
    waiting: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        return "\n".join(str(operation) for operation in self.operations)

    def __bool__(self) -> bool:
        return bool(self.operations)
