"""The runtime protocol: what the control path may ask of whatever runs replicas.

Times are Unix seconds as the runtime's own clock gives them; durations are seconds.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Protocol

from meshd.spec.model import Network, Service

MESH_PORT: Final = 80
"""Where the mesh listens on a gateway, so that `http://NAME` is all there is to a call."""


class RuntimeFailure(Exception):
    """Base of what a runtime raises; the text says what to do where that is known."""


class RuntimeUnavailable(RuntimeFailure):
    """The runtime does not answer (engine down, keeper gone); try again later."""


class ImageMissing(RuntimeFailure):
    """The image exists neither locally nor where it was pulled from."""


class StartFailed(RuntimeFailure):
    """The replica could not be created or started; the text is the runtime's own reason."""


class ReplicaNotFound(RuntimeFailure):
    """No replica of that name runs here (any more)."""


class ReplicaRunning(RuntimeFailure):
    """The replica has not ended, and what was asked for needs that; stop it first."""


class Unsupported(RuntimeFailure):
    """This runtime cannot do what was asked; its capabilities say so beforehand."""


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a runtime can do. A spec that needs what is False is refused or warned about."""

    images: bool
    networks: bool
    cpu_limits: bool
    memory_limits: bool
    secrets: bool
    pause: bool
    container_health: bool
    volumes: bool


class ReplicaState(StrEnum):
    """What the runtime says of a replica; health and traffic are judged elsewhere."""

    CREATED = "created"
    RUNNING = "running"
    PAUSED = "paused"
    STOPPING = "stopping"
    EXITED = "exited"


class ContainerHealth(StrEnum):
    """The runtime's own health check (Docker HEALTHCHECK); NONE when it has none."""

    NONE = "none"
    STARTING = "starting"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"


@dataclass(frozen=True, slots=True)
class Node:
    """A machine that replicas can be placed on; memory in bytes, CPUs in cores."""

    name: str
    cpus: float
    memory: int
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ReplicaSpec:
    """One replica to start.

    `name` is chosen by the caller and unique on the runtime; it is the replica's and the
    endpoint's id everywhere. `environment` is what the mesh adds to the service's own
    (`PORT`, `MESH_URL_*`). `clone_of` names the adopted replica whose container is copied
    instead of being built from `service`; a copy keeps its environment as it is. `directory`
    is where the project's file lies: local processes run there, and relative to it. `instance`
    is the mesh that starts it (`Holder.instance`). A `job` runs once: it is not listed among
    the replicas, and goes by no name on the networks.
    """

    name: str
    project: str
    service: Service
    revision: str
    environment: Mapping[str, str] = field(default_factory=dict)
    hosts: Mapping[str, str] = field(default_factory=dict)
    node: str | None = None
    clone_of: str | None = None
    directory: str = ""
    job: bool = False
    instance: str = ""


@dataclass(frozen=True, slots=True)
class ObservedReplica:
    """One replica as the runtime sees it now.

    `host` and `port` are where the proxy reaches it; None and 0 while it has no address.
    `managed` is True for what meshd started, False for what it adopted. `addresses` are all
    its source addresses on the runtime's networks, and `gateways` the host's addresses there,
    each with the network in CIDR notation. `labels` are the runtime's own record. `drift` says how
    it is no longer what meshd made, because somebody changed it; empty while it is.
    """

    name: str
    runtime_id: str
    project: str
    service: str
    revision: str
    state: ReplicaState
    managed: bool
    host: str | None = None
    port: int = 0
    node: str = ""
    health: ContainerHealth = ContainerHealth.NONE
    exit_code: int | None = None
    oom_killed: bool = False
    created_at: float = 0.0
    started_at: float = 0.0
    finished_at: float = 0.0
    addresses: tuple[str, ...] = ()
    gateways: tuple[tuple[str, str], ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    drift: str = ""


@dataclass(frozen=True, slots=True)
class Holder:
    """A mesh as others on the same runtime know it: the id of its state, the machine that its
    daemon runs on, and the state directory there."""

    instance: str
    host: str
    state: str


@dataclass(frozen=True, slots=True)
class Usage:
    """What a running replica uses: CPU seconds since some fixed moment, resident memory in
    bytes without what the kernel only caches, and when that was read (monotonic seconds)."""

    cpu_seconds: float
    memory: int
    at: float


class EventKind(StrEnum):
    """What happened to a replica. RESYNC means that events may have been lost: list again.
    CUT, that none will come until the next RESYNC: see whether the runtime still answers.

    STOPPING is the first sign of an end that was asked for (the engine's `kill` event with
    the stop signal or 9); DIED is the end of the process.
    """

    RESYNC = "resync"
    CUT = "cut"
    STARTED = "started"
    STOPPING = "stopping"
    DIED = "died"
    REMOVED = "removed"
    HEALTH = "health"
    PAUSED = "paused"
    UNPAUSED = "unpaused"
    CHANGED = "changed"


@dataclass(frozen=True, slots=True)
class RuntimeEvent:
    """One event. `replica` is the full observation after it, where the runtime could tell."""

    kind: EventKind
    name: str = ""
    at: float = 0.0
    replica: ObservedReplica | None = None


@dataclass(frozen=True, slots=True)
class MeshAddress:
    """Where the mesh must listen so that replicas of `service` can call other services, and
    the host that those replicas use for it. `host` is a network's gateway on Docker and a
    loopback address for local processes; `port` 0 lets the caller choose. `subnet` is the
    network that those replicas call from, in CIDR notation, where there is such."""

    service: str
    host: str
    port: int
    subnet: str = ""


class Runtime(Protocol):
    """What runs replicas. Every method may raise RuntimeUnavailable."""

    @property
    def name(self) -> str:
        """`docker` or `process`."""

    @property
    def capabilities(self) -> Capabilities:
        """What this runtime can do; constant over its life."""

    async def open(self) -> None:
        """Connect, and check that the runtime answers."""

    async def close(self) -> None:
        """Let go of connections; replicas run on."""

    async def nodes(self) -> Sequence[Node]:
        """The machines replicas can be placed on."""

    async def list(self) -> Sequence[ObservedReplica]:
        """Every replica that carries the mesh's labels, ours and adopted, of all projects."""

    async def jobs(self) -> Sequence[ObservedReplica]:
        """Every one-off that a mesh started here (`ReplicaSpec.job`), ended ones included until
        they are removed. `stop`, `remove`, `logs` and `follow` take their names too; `watch`
        tells nothing of them."""

    def watch(self) -> AsyncIterator[RuntimeEvent]:
        """Events from now on, without end. The first is RESYNC, once the subscription stands,
        and another follows each time the stream was cut and stands again."""

    async def resolve(self, services: Sequence[Service], fetch: bool = False) -> Sequence[Service]:
        """The services with what they would be built from (`Build.digest`), or which image their
        `image` stands for (`Service.image_id`) pinned, where that makes a difference to this
        runtime. With `fetch`, images are pulled first as `Service.pull` says; without, one that
        is not here stays open. Raises StartFailed when it cannot be read, ImageMissing."""

    async def prepare(
        self, project: str, service: Service, networks: Sequence[Network] = ()
    ) -> None:
        """Make ready what replicas of `service` need: image, networks, volumes. Idempotent.
        `networks` are the project's declared ones; they say which are internal.
        Raises ImageMissing, StartFailed."""

    async def mesh_addresses(self, project: str, services: Sequence[str]) -> Sequence[MeshAddress]:
        """Where the mesh listens for calls from each of these services (after `prepare`)."""

    async def start(self, replica: ReplicaSpec) -> ObservedReplica:
        """Create and start one replica. Raises ImageMissing, StartFailed, Unsupported."""

    async def stop(self, name: str, grace: float) -> None:
        """Stop signal, then KILL after `grace` seconds; returns once it has ended.
        Raises ReplicaNotFound."""

    async def remove(self, name: str) -> None:
        """Forget an ended replica and what was made for it alone. Raises ReplicaNotFound,
        ReplicaRunning."""

    async def pause(self, name: str) -> None:
        """Freeze a running replica. Raises ReplicaNotFound, Unsupported."""

    async def unpause(self, name: str) -> None:
        """Wake a frozen replica. Raises ReplicaNotFound, Unsupported."""

    async def usage(self, names: Sequence[str]) -> Mapping[str, Usage]:
        """What these replicas use now; those that do not run are left out."""

    async def logs(self, name: str, tail: int) -> Sequence[str]:
        """The last `tail` lines of its output, ended replicas included, oldest first.
        Raises ReplicaNotFound."""

    def follow(self, name: str, past: bool = False) -> AsyncIterator[str]:
        """Output lines from now on until the replica ends; with `past` all that are kept of what
        it wrote before come first, none twice. Raises ReplicaNotFound."""

    async def claims(self) -> Mapping[str, Holder]:
        """The projects that some mesh claimed on this runtime, each with its holder."""

    async def claim(self, project: str, holder: Holder, instead_of: Holder | None = None) -> Holder:
        """Claim a project where nobody has, or only `instead_of`; atomic, and kept by the
        runtime itself. Gives the holder from now on, who may be another one."""

    async def unclaim(self, project: str, holder: Holder) -> None:
        """Give a project back; nothing where `holder` does not have it."""

    async def teardown(self, project: str) -> None:
        """Remove what `prepare` made for a project that has no replicas left; data volumes
        are kept."""
