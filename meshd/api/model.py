"""The values of the API, and `Control`: what the control process offers to its surface.

Names of services are unique within a project; `PROJECT/SERVICE` is the key used everywhere a
service is named across projects. Times are Unix seconds, latencies seconds.
"""

from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from meshd.model.base import Value
from meshd.model.event import Event
from meshd.model.release import Release
from meshd.model.scaling import CallerSeen, ScaleDecision, Sizing, TrafficSpan
from meshd.spec.model import Project

if TYPE_CHECKING:
    from meshd.api.jobs import Desk


class ReplicaStatus(Value, frozen=True):
    """One replica: its phase (see `meshd.model.replica_phase`), why, and its own numbers. `cpu` is
    the percentage of its limit, of one core where it has none; `cores` the same as cores."""

    name: str
    service: str
    revision: str
    phase: str
    node: str = ""
    address: str = ""
    managed: bool = True
    reason: str = ""
    since: float = 0.0
    restarts: int = 0
    in_flight: int = 0
    ejected: bool = False
    cpu: float | None = None
    memory: int | None = None
    cores: float | None = None


class ServiceStatus(Value, frozen=True):
    """One service over the last few seconds of traffic, with its replicas.

    `wanted` is what the autoscaler or the spec asks for; `last` says what happened last and
    why, in one line, or, as `waiting` does alone, what its next replica waits for. While a rollout
    is under way, `coming` is the revision that it brings in, `stage` the step that it is at, and
    `trial` what the traffic of that revision has said so far; a `stage` without `coming` goes back.
    """

    project: str
    name: str
    wanted: int
    running: int
    ready: int
    minimum: int
    maximum: int
    revision: str
    state: str = "ok"
    routes: tuple[str, ...] = ()
    rps: float = 0.0
    in_flight: float = 0.0
    p50: float | None = None
    p95: float | None = None
    p99: float | None = None
    requests_total: int = 0
    errors_total: int = 0
    errors_per_second: float = 0.0
    retries_total: int = 0
    parked: int = 0
    override: int | None = None
    override_until: float = 0.0
    paused: int = 0
    last: str = ""
    replicas: tuple[ReplicaStatus, ...] = ()
    waiting: str = ""
    coming: str = ""
    stage: str = ""
    trial: str = ""


class ProjectStatus(Value, frozen=True):
    """One project: `state` is `up`, `going down`, `adopted`, or `elsewhere` where another mesh
    holds it; how many services it has, and replicas are ready and wanted; who deployed it last
    and when (Unix time); `detail` says why it is left alone."""

    name: str
    state: str
    services: int
    ready: int
    wanted: int
    who: str = ""
    at: float = 0.0
    detail: str = ""


class Status(Value, frozen=True):
    """Everything `meshd ps` and `meshd top` show. `runtime_state` is `ok` while the runtime
    answers, else what is wrong with it. `adopts`: whether containers that something else started
    are taken in. `filter`: whether containers are kept from the host (`on`), else why not
    (`off: REASON`); empty where nothing has to be."""

    version: str
    runtime: str
    runtime_state: str
    generation: tuple[int, int]
    workers: tuple[int, ...]
    proxy: tuple[str, ...]
    services: tuple[ServiceStatus, ...] = ()
    projects: tuple[ProjectStatus, ...] = ()
    adopts: bool = True
    filter: str = ""


class Recording(Value, frozen=True):
    """What was recorded of a service, oldest first, and its `x-mesh.scale`, for a simulation."""

    service: str
    scale: dict[str, Any]
    spans: tuple[TrafficSpan, ...] = ()


class DeployResult(Value, frozen=True):
    """Where a deployment stands. `done` with `ok` False means it failed, and `detail` says
    where: the replica, its last log lines and probe answers. `releases` are the newest of each
    of its services; `lacks` is what they run without on this runtime, a line a service."""

    project: str
    done: bool
    ok: bool
    detail: str = ""
    plan: str = ""
    releases: tuple[Release, ...] = ()
    lacks: tuple[str, ...] = ()


class ServicePolicy(Value, frozen=True):
    """Who may call a service, as `PROJECT/SERVICE` (None: all), whether others are let through and
    counted, and who called in the last 30 days."""

    service: str
    allow: tuple[str, ...] | None
    audit: bool
    callers: tuple[CallerSeen, ...] = ()


class PlanPreview(Value, frozen=True):
    """What a deployment would do: its operations, one a line, what that means on the way, and
    what its services would run without on this runtime."""

    plan: str
    outlook: tuple[str, ...] = ()
    lacks: tuple[str, ...] = ()


class LogLine(Value, frozen=True):
    """One line that a replica wrote."""

    replica: str
    line: str


class ScaleOverride(Value, frozen=True):
    """A number of replicas set by hand, for `seconds` (0: until taken back); `replicas` None
    takes it back."""

    replicas: int | None
    seconds: float = 0.0


class Control(Protocol):
    """What the control process offers; every name may raise NoSuchThing."""

    def status(self) -> Status:
        """What is, now."""

    async def deploy(self, project: Project, who: str, take_over: bool = False) -> None:
        """Make `project` the desired state (idempotent); returns once it is stored and the
        loop is woken. `take_over`: also where another mesh that does not run holds it. Raises
        Refused when the runtime cannot do what the spec needs."""

    def progress(self, project: str) -> DeployResult:
        """Where the last deployment of `project` stands."""

    async def plan(self, project: Project) -> PlanPreview:
        """The operations that deploying `project` would take, as text, one a line; empty
        when there is nothing to do. And what they mean on the way."""

    async def down(self, project: str) -> None:
        """Drain and stop every replica of `project`, then forget it; returns when done."""

    async def scale(self, project: str, service: str, replicas: int | None, seconds: float) -> None:
        """Override the number of replicas by hand, for `seconds` (0: until taken back);
        None takes the override back."""

    async def drain(self, replica: str) -> None:
        """Take one replica out of rotation, let it finish, replace it."""

    async def logs(self, project: str, service: str, tail: int) -> Sequence[tuple[str, str]]:
        """(replica, line) of every replica of a service, oldest first a replica."""

    def follow(self, project: str, service: str) -> AsyncIterator[tuple[str, str]]:
        """(replica, line) from now on, new replicas included."""

    def events(self, since: int, limit: int) -> Sequence[Event]:
        """Stored events with id > since, oldest first."""

    def decisions(
        self, project: str, service: str, at: float, limit: int
    ) -> Sequence[ScaleDecision]:
        """Decisions of the autoscaler up to `at` (Unix time; 0: now), newest first. Those that
        changed something, and one a minute of the others."""

    def traffic(self, project: str, service: str, since: float) -> Recording:
        """What was recorded of a service since then (Unix time); seven days at most."""

    def policies(self, project: str) -> Sequence[ServicePolicy]:
        """Who may call each service of a project, and who did."""

    def sizes(self) -> Sequence[Sizing]:
        """What replicas of each deployed service used in the last week, and the limits that
        this proposes."""

    def subscribe(self) -> AsyncIterator[Event]:
        """Events from now on."""

    async def metrics(self) -> bytes:
        """Prometheus text exposition of everything."""

    def desk(self) -> "Desk":
        """What there is for one-off jobs. Raises Refused while there is nothing yet."""

    def rollouts(self) -> "Rollouts":
        """What there is for rollouts by hand. Raises Refused while there is nothing yet."""

    async def shutdown(self, stop_replicas: bool) -> None:
        """End the whole daemon in order; with `stop_replicas` every project goes down first."""


class Rollouts(Protocol):
    """Every method may raise NoSuchThing, and Refused for what makes no sense now."""

    def releases(self, project: str, service: str, limit: int) -> Sequence[Release]:
        """The newest releases of a service, the newest first."""

    async def undo(self, project: str, service: str, to: int, who: str) -> Release:
        """Go back to release `to`; 0 is the last good one of another revision than runs. The
        release that this begins."""

    def pause(self, project: str, service: str, who: str) -> None:
        """Leave the rollout that is under way as it is."""

    def resume(self, project: str, service: str, who: str) -> None:
        """Go on with a paused rollout."""
