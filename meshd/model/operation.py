"""Operations: the steps of a plan, each with its cause. Pure.

`meshd.reconcile.plan` makes them, and `meshd.reconcile.execute` carries them out. Each prints as
one line: `str(plan)` is the output of `meshd diff`.
"""

from enum import IntEnum

import msgspec

from meshd.model.job import Job
from meshd.model.replica import Version
from meshd.model.rollout import RolloutState
from meshd.model.runtime import Availability
from meshd.model.service_key import ServiceKey, service_key
from meshd.spec.model import Network, Service


class Urgency(IntEnum):
    """Purpose of a start. If not all replicas can start at once, lower values start first."""

    HEAL = 0
    SCALE = 1
    ROLLOUT = 2
    WARM = 3


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """One operation on the runtime or the state. `cause` says why, for people; events and logs
    repeat it."""

    cause: str

    @property
    def subject(self) -> str:
        """The object of the step; at most one operation on it runs at a time."""
        raise NotImplementedError


class PrepareRevision(Operation, frozen=True, kw_only=True):
    """Pull or build the image of one revision of a service, and create its networks."""

    project: str
    service: str
    revision: str

    @property
    def subject(self) -> str:
        return f"{self.project}/{self.service}@{self.revision}"

    def __str__(self) -> str:
        return f"prepare {self.subject}: {self.cause}"


class StartReplica(Operation, frozen=True, kw_only=True):
    """Start one replica.

    - `clone_of`: name of the adopted replica to copy; None: start it from its spec.
    - `attempt`: quick failures in a row before this start.
    - `warm`: pause it once it answers its probe, for the warm pool.
    - `avoid`: nodes on which it is not placed.
    """

    name: str
    project: str
    service: str
    revision: str
    clone_of: str | None = None
    attempt: int = 0
    warm: bool = False
    urgency: Urgency = Urgency.SCALE
    avoid: tuple[str, ...] = ()

    @property
    def key(self) -> ServiceKey:
        """`PROJECT/SERVICE`."""
        return service_key(self.project, self.service)

    @property
    def subject(self) -> str:
        return self.name

    def __str__(self) -> str:
        how = f" as a copy of {self.clone_of}" if self.clone_of else f" ({self.revision[:12]})"
        return f"start {self.name}{how}: {self.cause}"


class DrainReplica(Operation, frozen=True, kw_only=True):
    """Take a replica out of rotation for good.

    - `count_as_failure`: whether it counts as a failure of its revision, because it is unhealthy.
    """

    name: str
    count_as_failure: bool = False

    @property
    def subject(self) -> str:
        return self.name

    def __str__(self) -> str:
        return f"drain {self.name}: {self.cause}"


class PauseReplica(Operation, frozen=True, kw_only=True):
    """Pause a warm replica."""

    name: str

    @property
    def subject(self) -> str:
        return self.name

    def __str__(self) -> str:
        return f"pause {self.name}: {self.cause}"


class ResumeReplica(Operation, frozen=True, kw_only=True):
    """Resume a paused replica, so that it serves."""

    name: str

    @property
    def subject(self) -> str:
        return self.name

    def __str__(self) -> str:
        return f"resume {self.name}: {self.cause}"


class RestoreReplica(Operation, frozen=True, kw_only=True):
    """Bring an adopted replica back into rotation once it answers again: meshd must not stop it."""

    name: str

    @property
    def subject(self) -> str:
        return self.name

    def __str__(self) -> str:
        return f"restore {self.name}: {self.cause}"


class StopReplica(Operation, frozen=True, kw_only=True):
    """Stop a drained replica, with `grace` seconds between the stop signal and SIGKILL.

    - `version`: its service and revision, whose `pre_stop` commands run first.
    """

    name: str
    grace: float
    version: Version = ("", "")

    @property
    def subject(self) -> str:
        return self.name

    def __str__(self) -> str:
        return f"stop {self.name}: {self.cause}"


class RemoveReplica(Operation, frozen=True, kw_only=True):
    """Remove an ended replica. The last log lines of a `failed` one are kept."""

    name: str
    failed: bool = False

    @property
    def subject(self) -> str:
        return self.name

    def __str__(self) -> str:
        return f"remove {self.name}: {self.cause}"


class ReadOutput(Operation, frozen=True, kw_only=True):
    """Keep the last lines of output of a failed replica that stays on the runtime."""

    name: str

    @property
    def subject(self) -> str:
        return self.name

    def __str__(self) -> str:
        return f"read the output of {self.name}: {self.cause}"


class FinishRollout(Operation, frozen=True, kw_only=True):
    """End a rollout in the state `outcome`."""

    project: str
    service: str
    revision: str
    outcome: RolloutState

    @property
    def subject(self) -> str:
        return service_key(self.project, self.service)

    def __str__(self) -> str:
        return f"finish {self.subject} as {self.outcome.word}: {self.cause}"


class AdvanceRollout(Operation, frozen=True, kw_only=True):
    """End a stage of a rollout.

    - `stage`: number of completed stages from now on.
    - `next_stage`: description of what follows.
    """

    project: str
    service: str
    revision: str
    stage: int
    next_stage: str

    @property
    def subject(self) -> str:
        return service_key(self.project, self.service)

    def __str__(self) -> str:
        return f"shift {self.subject} to {self.revision[:12]}, {self.next_stage}: {self.cause}"


class RunHook(Operation, frozen=True, kw_only=True):
    """Run a rollout's hook once, as the job `id`.

    - `pre_start`: the number of the `pre_start` step that it runs, from 0; None: another hook.
    """

    project: str
    service: str
    id: str
    revision: str
    command: tuple[str, ...]
    timeout: float
    pre_start: int | None = None

    @property
    def subject(self) -> str:
        return self.id

    def __str__(self) -> str:
        command = " ".join(self.command) or "its image"
        return f"run {command} for {self.project}/{self.service}: {self.cause}"


class ForgetProject(Operation, frozen=True, kw_only=True):
    """Remove the networks and the state of a project, after its last replica was removed."""

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


class VolumeOperation(Operation, frozen=True, kw_only=True):
    """An operation on the content of the volume called `name` on the runtime."""

    name: str

    @property
    def subject(self) -> str:
        return f"volume {self.name}"


class RestoreVolume(VolumeOperation, frozen=True, kw_only=True):
    """Replace the content of a volume by what was staged."""

    def __str__(self) -> str:
        return f"restore volume {self.name}: {self.cause}"


class RemoveVolume(VolumeOperation, frozen=True, kw_only=True):
    """Delete a volume with its content."""

    def __str__(self) -> str:
        return f"remove volume {self.name}: {self.cause}"


class SetAvailability(Operation, frozen=True, kw_only=True):
    """Set whether a node takes replicas, and until when meshd drains it (Unix time; 0: it does
    not)."""

    node: str
    availability: Availability
    drain_until: float = 0.0

    @property
    def subject(self) -> str:
        return f"node {self.node}"

    def __str__(self) -> str:
        return f"set {self.subject} to {self.availability}: {self.cause}"


class Plan(msgspec.Struct, frozen=True):
    """Steps that are safe now, in order.

    - `waiting`: the service keys that have to wait, with the reasons.
    - `blocked`: those that wait for something that will not happen: a dependency has failed.
    """

    operations: tuple[Operation, ...] = ()
    waiting: tuple[tuple[str, str], ...] = ()
    blocked: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        return "\n".join(str(operation) for operation in self.operations)

    def __bool__(self) -> bool:
        return bool(self.operations)
