"""What a runtime reports and takes: nodes, replicas, capabilities, usage."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from meshd.spec.model import Service

MESH_PORT: Final = 80
"""Where the mesh listens on a gateway, so that `http://NAME` is all there is to a call."""


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
