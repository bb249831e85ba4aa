"""The values of the API, and `Control`: what the control process offers to its surface.

Names of services are unique within a project; `PROJECT/SERVICE` is the key used everywhere a
service is named across projects. Times are Unix seconds, latencies seconds.
"""

from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from meshd.spec.model import Project

if TYPE_CHECKING:
    from meshd.api.jobs import Desk
    from meshd.api.rollouts import Rollouts


class Value(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=False):
    """Base of everything that the API answers with."""


class Load(Value, frozen=True):
    """What a replica uses: CPU as cores (None: not known yet), memory in bytes."""

    cores: float | None
    memory: int


class ReplicaStatus(Value, frozen=True):
    """One replica: its phase (see `meshd.reconcile.phase`), why, and its own numbers. `cpu` is
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


class Event(Value, frozen=True):
    """One thing that happened or was decided, with its cause.

    `kind` is a stable word (`replica.started`, `replica.ready`, `replica.died`,
    `replica.unhealthy`, `replica.stopped`, `endpoint.ejected`, `scale.up`, `scale.down`,
    `rollout.started`, `rollout.done`, `rollout.failed`, `deploy`, `worker.replaced`,
    `runtime.lost`, `runtime.back`, …); `text` is for people; `numbers` are what it was
    decided from.
    """

    id: int
    at: float
    kind: str
    project: str = ""
    service: str = ""
    replica: str = ""
    text: str = ""
    numbers: dict[str, float] = msgspec.field(default_factory=dict)


class ScaleDecision(Value, frozen=True):
    """One decision of the autoscaler, with everything it was made from.

    - `desired` replicas from `at` on, `previous` before; `wanted` is the number before limits.
    - `cause` is a short stable word, `reason` a line for people.
    - `objectives`: what was asked; `signals`: what was seen in the last second; `model`: what
      the policy has learned and reckoned with; `candidates`: what each objective alone wants.
    - `limits`: what changed the number; `rejected`: what else was considered, and why not.
    - `override`: the number set by hand at that time, which counts instead.
    """

    at: float
    desired: int
    previous: int
    wanted: int
    cause: str
    reason: str
    objectives: tuple[str, ...] = ()
    signals: dict[str, float] = msgspec.field(default_factory=dict)
    model: dict[str, float] = msgspec.field(default_factory=dict)
    candidates: dict[str, int] = msgspec.field(default_factory=dict)
    limits: tuple[str, ...] = ()
    rejected: tuple[str, ...] = ()
    override: int | None = None


class TrafficSpan(Value, frozen=True):
    """`seconds` of a service from `at` (Unix time) on: the requests that came, the seconds one
    takes when it need not wait (0: not known), how many a replica serves at once, and how long a
    replica takes to start, as learned by then."""

    at: int
    seconds: int
    arrivals: int
    service_time: float
    workers: float
    startup: float


class Recording(Value, frozen=True):
    """What was recorded of a service, oldest first, and its `x-mesh.scale`, for a simulation."""

    service: str
    scale: dict[str, Any]
    spans: tuple[TrafficSpan, ...] = ()


class RevisionCounts(Value, frozen=True):
    """What was sent to one revision and how that ended: `served` answers under 500, `failed`
    ones without a good answer, `retried` ones that failed and were then tried elsewhere, so
    that no client saw it. Not in any of them: what the client gave up, and tunnels."""

    served: int = 0
    failed: int = 0
    retried: int = 0


class Tally(Value, frozen=True):
    """Everything that a service was asked while a release was under way, by the proxy's own
    counts. `requests` were answered, `errors` of them with a 5xx, by a replica or by the proxy;
    `parked` waited for a first replica. `unknown` are worker-seconds of which no report came,
    while the control process was away; the last report told of the time `until` then."""

    requests: int = 0
    errors: int = 0
    parked: int = 0
    unknown: float = 0.0
    until: float = 0.0
    revisions: dict[str, RevisionCounts] = msgspec.field(default_factory=dict)


class Release(Value, frozen=True):
    """One revision of a service that was brought in: by whom and `how` (`deploy`, `undo`), what
    it `changed`, and what came of it: `rolling`, `paused`, `done`, `rolled-back`, or `overtaken`
    by the next. Releases are numbered within their service."""

    project: str
    service: str
    number: int
    revision: str
    previous: str
    how: str
    who: str
    at: float
    changed: str
    outcome: str
    cause: str = ""
    ended: float = 0.0
    tally: Tally | None = None

    def counted(self, tally: Tally | None) -> "Release":
        """The same with these counts."""
        return msgspec.structs.replace(self, tally=tally)


class Sizing(Value, frozen=True):
    """What replicas of a service (`PROJECT/SERVICE`) used since then, of so many readings: cores
    of a replica by quantile, CPU seconds a request (None: none came), the most memory of one, how
    many were killed for memory. Its limits and reservations (0: none), those proposed (0: not
    enough is known), and why."""

    service: str
    since: float
    samples: int
    cpu_p50: float
    cpu_p95: float
    cpu_max: float
    cpu_per_request: float | None
    memory_max: int
    ooms: int
    limit_cpus: float
    limit_memory: int
    reserved_cpus: float
    reserved_memory: int
    proposed_cpus: float = 0.0
    proposed_memory: int = 0
    proposed_reserved_cpus: float = 0.0
    proposed_reserved_memory: int = 0
    why: tuple[str, ...] = ()


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


class CallerSeen(Value, frozen=True):
    """One caller of a service (`PROJECT/SERVICE`, or `unknown`): its calls that got through, those
    that the service's `allow` did not cover at the time, and when it first and last called."""

    caller: str
    calls: int
    uncovered: int
    first: float
    last: float


class ServicePolicy(Value, frozen=True):
    """Who may call a service, as `PROJECT/SERVICE` (None: all), whether others are let through and
    counted, and who called in the last 30 days."""

    service: str
    allow: tuple[str, ...] | None
    audit: bool
    callers: tuple[CallerSeen, ...] = ()


class Planned(Value, frozen=True):
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


class Refused(Exception):
    """The request cannot be carried out and changed nothing; the text says why and what to
    do. The API answers 409 with it."""


class NoSuchThing(Exception):
    """No project, service or replica of that name. The API answers 404 with it."""


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

    async def plan(self, project: Project) -> Planned:
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
