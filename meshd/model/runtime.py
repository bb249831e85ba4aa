"""What a runtime reports and takes: nodes, replicas, capabilities, usage. Pure.

`meshd.runtime` makes and reads these values; everything else sees runtimes through them.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Literal

from meshd.model.node_proxy import NodeLoad
from meshd.spec.model import Service

MESH_PORT: Final = 80
"""Port of the mesh on a gateway: HTTP's default, so that `http://NAME` reaches a service."""
DOWN: Final = "down"
"""The state of a node whose engine does not answer, or has left."""
VIRTUAL_PORT: Final = 15780
"""Port of the mesh on a gateway to which connections to virtual addresses are redirected. Below the
ports that the kernel gives to clients (32768 and up), and not registered for another use."""


@dataclass(frozen=True, slots=True, order=True)
class PortRedirect:
    """A TCP port of the host whose new connections are led to another port of the host.

    - `host`: the address that the port is published at; a wildcard for all of its IP version.
    - `port`: the port that clients connect to; `target`: the one that gets the connections.
    """

    host: str
    port: int
    target: int


@dataclass(frozen=True, slots=True)
class PortRedirects:
    """What became of the wanted redirects.

    - `applied`: those that are in effect now.
    - `settled`: whether nothing is left of earlier ones. Connections that were made through them
      need the host's rules as long as they exist.
    """

    applied: frozenset[PortRedirect] = frozenset()
    settled: bool = True


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a runtime can do. A spec that needs more is rejected or warned about.

    - `buildkit`: whether images can be built with BuildKit.
    - `tokens`: whether a token in the URL identifies a caller, because its source address does not.
    - `swarm`: whether replicas are services of a Swarm, which does not have all options of a
      container.
    - `engine_api`: the newest version of the engine's API; None without an engine, or before it
      was asked.
    """

    images: bool
    networks: bool
    cpu_limits: bool
    memory_limits: bool
    pause: bool
    container_health: bool
    volumes: bool
    buildkit: bool = False
    engine_api: tuple[int, int] | None = None
    tokens: bool = False
    swarm: bool = False


class ReplicaState(StrEnum):
    """State of a replica on the runtime, regardless of health and traffic."""

    CREATED = "created"
    RUNNING = "running"
    PAUSED = "paused"
    STOPPING = "stopping"
    EXITED = "exited"


class ContainerHealth(StrEnum):
    """Result of the runtime's own health check (Docker HEALTHCHECK); NONE: it has none."""

    NONE = "none"
    STARTING = "starting"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"


class Availability(StrEnum):
    """Whether a node runs tasks. The strings are Swarm's.

    - PAUSE: it takes no new tasks and keeps those that it has.
    - DRAIN: it takes none, and those that it had were ended.
    """

    ACTIVE = "active"
    PAUSE = "pause"
    DRAIN = "drain"


@dataclass(frozen=True, slots=True)
class Node:
    """A machine that replicas can be placed on, with its CPUs in cores and memory in bytes.

    - `id`: id on the runtime; `platform`: `OS/ARCHITECTURE` in the words of the engine. Empty: not
      known.
    - `role`: `manager`, `leader` (of the managers) or `worker`; empty on a runtime with one node.
    - `address`: where other nodes reach it; empty: not known.
    - `state`: `ready`, or the runtime's word for a node that does not answer.
    - `engine`: version of its engine.
    - `reserved_cpus`, `reserved_memory`: what its tasks reserve, those of others included.
    - `load`: how busy it is; None: not known.
    - `drain_until`: until when meshd moves its replicas to other nodes (Unix time); 0: it does not.
    - `has_proxy`: whether its proxy is part of the mesh, so that calls to and from it are
      encrypted.
    - `needs_proxy`: whether mesh-managed services are placed there only if it has one.
    - `lost_proxy`: whether that is not connected now, so that new replicas could not be probed.
    """

    name: str
    cpus: float
    memory: int
    labels: Mapping[str, str] = field(default_factory=dict)
    role: str = ""
    address: str = ""
    state: str = "ready"
    availability: Availability = Availability.ACTIVE
    engine: str = ""
    reserved_cpus: float = 0.0
    reserved_memory: int = 0
    drain_until: float = 0.0
    id: str = ""
    platform: str = ""
    has_proxy: bool = True
    needs_proxy: bool = False
    lost_proxy: bool = False
    load: NodeLoad | None = None

    @property
    def is_reachable(self) -> bool:
        """Whether proxies may send requests to replicas there."""
        return self.has_proxy or not self.needs_proxy

    @property
    def takes_replicas(self) -> bool:
        """Whether new replicas may be placed on it."""
        return self.state == "ready" and self.availability is Availability.ACTIVE


def find_left(nodes: Iterable[Node]) -> frozenset[str]:
    """Return the ids of entries whose nodes left and joined again: a Swarm keeps the old entry as
    `down`, next to the new one with the same name. With several new ones it is not known which
    node a name means, so that none is left out."""
    by_name: dict[str, list[Node]] = {}
    for node in nodes:
        by_name.setdefault(node.name, []).append(node)
    return frozenset(
        node.id
        for same in by_name.values()
        if sum(each.state != DOWN for each in same) == 1
        for node in same
        if node.state == DOWN
    )


@dataclass(frozen=True, slots=True)
class ReplicaSpec:
    """One replica to start.

    - `name`: unique on the runtime; also the id of the replica and its endpoint everywhere.
    - `environment`: variables in addition to the service's own (`PORT`, `MESH_URL_*`).
    - `hosts`: additional host names and their addresses.
    - `node`: where to place it; None: the runtime chooses.
    - `avoid`: nodes on which it is not placed.
    - `clone_of`: name of the adopted replica whose container is copied, with its environment;
      None: it is built from `service`.
    - `directory`: the directory of the project's file; local processes run there.
    - `job`: it runs once, is not listed among the replicas, and has no name on the networks.
    - `instance`: id of the mesh that starts it (`Holder.instance`).
    - `attempt`: quick failures in a row before this start.
    - `placed`: why it is placed on `node`, for people.
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
    attempt: int = 0
    avoid: tuple[str, ...] = ()
    placed: str = ""


@dataclass(frozen=True, slots=True)
class ImageProgress:
    """An image that is being pulled or built.

    - `service`: the service that needs it.
    - `detail`: how far it is, for people: layers, or the step of the build.
    - `current`: bytes downloaded.
    - `total`: bytes of the layers whose download began; 0: unknown.
    - `since`: Unix time of the start.
    """

    image: str
    service: str
    action: Literal["pull", "build"]
    detail: str = ""
    current: int = 0
    total: int = 0
    since: float = 0.0


@dataclass(frozen=True, slots=True)
class CommandResult:
    """How a command in a replica ended, with its last lines of output."""

    exit_code: int
    lines: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ObservedReplica:
    """One replica as the runtime sees it now. Times are Unix times in seconds; 0: never.

    - `managed`: True if meshd started it, False if it is adopted.
    - `host`, `port`: its address for the proxy; None and 0: none yet.
    - `addresses`: all its source addresses on the runtime's networks.
    - `error`: how it ended, in words that follow its name, if there is no exit code to say so.
    - `alternatives`: more addresses for the proxy, of a container that something else started: the
      host may not reach each of its networks.
    - `gateways`: the host's addresses there, each with its network in CIDR notation.
    - `labels`: the labels on the runtime.
    - `drift`: how something other than meshd changed it; empty: unchanged.
    - `pid`: its first process on its node, for a container that meshd started; 0: unknown.
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
    alternatives: tuple[str, ...] = ()
    pid: int = 0
    error: str = ""


@dataclass(frozen=True, slots=True)
class Holder:
    """A mesh, as others on the same runtime see it.

    - `instance`: id of its state; `state`: its state directory.
    - `host`: the machine of its daemon.
    """

    instance: str
    host: str
    state: str


@dataclass(frozen=True, slots=True)
class Usage:
    """CPU time and memory of a running replica.

    - `cpu_seconds`: CPU time since a fixed moment.
    - `memory`: resident bytes, without the page cache.
    - `at`: when it was read (monotonic seconds).
    """

    cpu_seconds: float
    memory: int
    at: float


@dataclass(frozen=True, slots=True)
class MeshAddress:
    """Address on which the mesh listens for calls from the replicas of `service`.

    - `host`: a network's gateway on Docker, a loopback address for local processes.
    - `port`: 0: the caller chooses.
    - `subnet`: the network that the calls come from, in CIDR notation; empty: none.
    """

    service: str
    host: str
    port: int
    subnet: str = ""


@dataclass(frozen=True, slots=True)
class AddressRange:
    """The part of a network's addresses that the runtime leaves free for virtual addresses.

    - `network`: name of the network on the runtime.
    - `project`, `service`: whose network it is; without a service, several services share it.
    - `gateway`: the host's address there.
    - `subnet`, `block`: the network and its free part, in CIDR notation.
    - `usable`: whether connections to the block reach the mesh.
    """

    network: str
    project: str
    service: str
    gateway: str
    subnet: str
    block: str
    usable: bool = True
