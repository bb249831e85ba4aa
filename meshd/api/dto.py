"""Values that the API sends as JSON: status, deployments, plans, logs, jobs. Pure.

`meshd.control` and `meshd.jobs` fill them in, `handlers` encodes and `client` decodes them; events,
releases, jobs and decisions are values of `meshd.model`. `PROJECT/SERVICE` names a service across
projects. Times are Unix seconds, latencies and durations seconds. The JSON names are a contract;
where a Python name is better, `rename` maps it.
"""

from typing import Any, Final

import msgspec

from meshd.model.base import RequestBody, Value
from meshd.model.event import Event
from meshd.model.job import Job
from meshd.model.node_proxy import NodeLoad, NodeProxyStatus
from meshd.model.release import Release
from meshd.model.scaling import CallerSeen, TrafficSpan


class Exposition(Value, frozen=True):
    """All metrics in one of the formats that Prometheus reads."""

    content_type: str
    body: bytes


class ReplicaStatus(Value, frozen=True):
    """One replica in the status.

    - `phase`: see `meshd.model.replica_phase`; `reason`: why it is in that phase.
    - `since`: Unix time at which the phase began.
    - `managed`: False if it was adopted.
    - `ejected`: the proxy sends it no requests, because too many failed.
    - `cpu`: percent of its CPU limit, or of one core if it has none; `cores`: the same in cores.
    - `memory`: bytes. None: not known yet.
    - `placed`: why it is on its node; empty where nothing was to choose.
    """

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
    placed: str = ""


_SERVICE_NAMES: Final = {"desired": "wanted", "new_revision": "coming", "analysis": "trial"}
_PLAN_NAMES: Final = {"impact": "outlook", "unsupported": "lacks"}


class ServiceStatus(Value, frozen=True, rename=_SERVICE_NAMES):
    """One service with its replicas, and its traffic over the last few seconds.

    - `desired`: number of replicas that the override, the autoscaler or the spec sets; `minimum`
      and `maximum`: the bounds of the autoscaler.
    - `rps`: requests per second; `p50` to `p99`: latency quantiles in seconds.
    - `parked`: requests that wait for a first replica; `paused`: replicas of the warm pool;
      `completed`: replicas that ended with code 0 and are not restarted.
    - `override`: number of replicas set by hand, until `override_until` (Unix time; 0: no end).
    - `waiting`: what the next replica waits for.
    - `last`: the last event with its reason, or `waiting`, in one line.
    - `new_revision`: revision that the current rollout brings in; empty if there is none.
    - `stage`: current stage of the rollout; with an empty `new_revision`, the rollout rolls back.
    - `analysis`: interim result of the canary analysis.
    - `streams`: open TCP connections, tunnels and event streams; they are in flight.
    - `kind`: `plain`, `HTTP`, `TCP` or `HTTP+TCP`; `why`: the reason.
    - `reached`: how others reach it: names with ports, ports of the host, routes, addresses.
    - `ports`: ports that it publishes on the host, as in Compose.
    """

    project: str
    name: str
    desired: int
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
    new_revision: str = ""
    stage: str = ""
    analysis: str = ""
    kind: str = ""
    why: str = ""
    reached: tuple[str, ...] = ()
    ports: tuple[str, ...] = ()
    completed: int = 0
    streams: int = 0


class ProjectStatus(Value, frozen=True, rename={"desired": "wanted"}):
    """One project in the status.

    - `state`: `up`, `going down`, `adopted`, or `elsewhere` if another mesh holds it.
    - `services`: number of services; `ready` and `desired`: numbers of replicas.
    - `who` and `at`: who deployed it last, and when (Unix time).
    - `detail`: why it is left alone.
    - `trace_url`: address of a trace, with `{trace_id}`; empty if the project names none.
    """

    name: str
    state: str
    services: int
    ready: int
    desired: int
    who: str = ""
    at: float = 0.0
    detail: str = ""
    trace_url: str = ""


class ImageStatus(Value, frozen=True):
    """An image that is being pulled or built for a deployment.

    - `action`: `pull` or `build`; `detail`: how far it is, for people.
    - `current`, `total`: bytes downloaded, and bytes known so far; 0: unknown.
    - `since`: Unix time of the start.
    """

    image: str
    service: str
    action: str
    detail: str = ""
    current: int = 0
    total: int = 0
    since: float = 0.0


class Status(Value, frozen=True):
    """The daemon with its projects and services: everything that `meshd ps` and `meshd top` show.

    - `runtime_state`: `ok`, or the problem with the runtime.
    - `generation`: epoch and number of the current routing snapshot.
    - `workers`: process ids; `proxy`: addresses that the proxy listens on.
    - `adopts`: whether containers that something else started are adopted.
    - `filter`: whether containers are kept from the host: `on`, `off: REASON`, or
      `missing: NETWORKS` where the free part of a network is missing; empty if the
      runtime has no filter.
    - `images`: images that are being pulled or built now.
    - `addresses`: whether services have virtual addresses: `on`, or `off: REASON`; empty if the
      runtime has none, or nothing needs them.
    - `store_state`: `ok`, or why the state cannot be written.
    - `standby`: which other process leads, if this one stands by; else empty. `leader`: the host
      of that process, once it is known.
    - `enforcement`: whether `x-mesh.enforce` holds: `on`, or `off: REASON`; empty if no service
      has it.
    - `ending`: whether the daemon ends, so that it accepts no deployment.
    """

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
    images: tuple[ImageStatus, ...] = ()
    addresses: str = ""
    store_state: str = "ok"
    enforcement: str = ""
    standby: str = ""
    leader: str = ""
    ending: bool = False


class CallEdge(Value, frozen=True):
    """Requests from one service to another over the last few seconds.

    - `caller`: the calling service (`PROJECT/SERVICE`); empty: from outside of the mesh.
    - `rps`: requests per second; `errors`: 5xx answers per second, None: not known.
    - `p95`: latency in seconds; None without answers.
    """

    caller: str
    service: str
    rps: float
    errors: float | None = None
    p95: float | None = None


class LiveUpdate(Value, frozen=True):
    """What changed in the mesh since the update before.

    - `at`: Unix time.
    - `full`: whether it has everything: what it does not list no longer exists.
    - `daemon`: the status without its services.
    - `services`: services that changed; `removed`: those that no longer exist.
    - `calls`: who calls whom now.
    - `events`: new events, oldest first; in a full update the latest.
    """

    at: float
    full: bool
    daemon: Status
    services: tuple[ServiceStatus, ...]
    removed: tuple[str, ...]
    calls: tuple[CallEdge, ...]
    events: tuple[Event, ...]


class Recording(Value, frozen=True):
    """Recorded traffic of a service for the simulator: its `x-mesh.scale`, and `spans`, oldest
    first."""

    service: str
    scale: dict[str, Any]
    spans: tuple[TrafficSpan, ...] = ()


class DeployResult(Value, frozen=True, rename=_PLAN_NAMES):
    """Progress or result of a deployment.

    - `done` with `ok` False: it failed, and `detail` says where: the replica with its last log
      lines and probe responses.
    - `plan`: operations, one per line.
    - `releases`: the newest release of each service.
    - `unsupported`: one line per service that uses a feature which this runtime does not support.
    """

    project: str
    done: bool
    ok: bool
    detail: str = ""
    plan: str = ""
    releases: tuple[Release, ...] = ()
    unsupported: tuple[str, ...] = ()


class ServicePolicy(Value, frozen=True):
    """Who may call a service.

    - `service`, `allow`: `PROJECT/SERVICE`; `allow` None: everyone may call it.
    - `audit`: other callers are let through and counted.
    - `callers`: who called in the last 30 days.
    """

    service: str
    allow: tuple[str, ...] | None
    audit: bool
    callers: tuple[CallerSeen, ...] = ()


class PlanPreview(Value, frozen=True, rename=_PLAN_NAMES):
    """What a deployment would do.

    - `plan`: operations, one per line; empty if there is nothing to do.
    - `impact`: the impact of those operations, for people.
    - `unsupported`: one line per service that uses a feature which this runtime does not support.
    - `missing`: one line per service whose image cannot be had, so that the deployment would be
      rejected.
    """

    plan: str
    impact: tuple[str, ...] = ()
    unsupported: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()


class ScaleResult(Value, frozen=True):
    """What limits a number that was set by hand.

    - `shortage`: why the nodes do not have room for it; empty if they have.
    """

    shortage: str = ""


class VolumeStatus(Value, frozen=True):
    """One named volume.

    - `name`: on the runtime; `project`: the project that it belongs to, if known.
    - `services`: the services that mount it (`PROJECT/SERVICE`).
    - `containers`: the containers that have it, whether they run or not.
    - `state`: `used`, `unused` (no service mounts it), `incomplete` (a restore of it was
      interrupted and is completed before a container with it starts), or `not resumed`.
    - `resume_problems`: the containers that a backup quiesced and could not resume, with reasons.
    - `external`: whether the file says that it is managed elsewhere.
    """

    name: str
    project: str = ""
    services: tuple[str, ...] = ()
    containers: tuple[str, ...] = ()
    driver: str = "local"
    state: str = "used"
    external: bool = False
    resume_problems: tuple[str, ...] = ()


class VolumeName(Value, frozen=True):
    """The name of a volume on the runtime."""

    name: str


class NodeStatus(Value, frozen=True):
    """One node of the runtime.

    - `state`: `ready`, or the runtime's word for one that does not answer, such as `down`.
    - `availability`: `active`, `pause` (it takes no new replicas) or `drain` (it runs none).
    - `role`: `leader`, `manager` or `worker`; empty on a runtime with one node.
    - `engine`: version of its engine; `address`: where other nodes reach it.
    - `replicas`: number of replicas of this mesh on it.
    - `cpus` (cores), `memory` (bytes): its size; `reserved_cpus`, `reserved_memory`: what its tasks
      reserve, those of others included.
    - `drain`: how far the drain is; empty: it is not being drained.
    - `problem`: why the last drain failed.
    - `proxy`: its proxy, if that has joined (`meshd node join`).
    - `has_proxy`: whether proxies of other nodes reach it through its own one.
    - `needs_proxy`: whether mesh-managed services are placed on it only then.
    - `load`: how busy it is, by its proxy; None while it is not known.
    """

    name: str
    state: str
    availability: str
    role: str = ""
    address: str = ""
    engine: str = ""
    replicas: int = 0
    cpus: float = 0.0
    memory: int = 0
    reserved_cpus: float = 0.0
    reserved_memory: int = 0
    labels: dict[str, str] = msgspec.field(default_factory=dict)
    drain: str = ""
    problem: str = ""
    proxy: NodeProxyStatus | None = None
    has_proxy: bool = True
    needs_proxy: bool = False
    load: NodeLoad | None = None


class NodeDrain(Value, frozen=True):
    """The drain of a node.

    - `replicas`: those that move to other nodes.
    - `obstacles`: why they cannot; empty if they can.
    """

    node: str
    replicas: tuple[str, ...] = ()
    obstacles: tuple[str, ...] = ()


class Rebalance(Value, frozen=True):
    """Number of replicas that move, so that each service is spread evenly over the nodes."""

    moves: int


class Health(Value, frozen=True):
    """Whether the control process runs, and the state of the runtime."""

    status: str
    runtime: str


class LogLine(Value, frozen=True):
    """One line of a replica's output. `at`: when it was written (Unix time); 0: unknown."""

    replica: str
    line: str
    at: float = 0.0


class ScaleOverride(RequestBody, frozen=True):
    """Set the number of replicas by hand for `seconds` (0: until it is removed); `replicas` None
    removes the override."""

    replicas: int | None
    seconds: float = 0.0


class RestartOrder(Value, frozen=True):
    """The replicas that a restart replaces.

    - `order`: `start-first` or `stop-first`: whether a successor is ready before a replica leaves.
    """

    replicas: tuple[str, ...]
    order: str


class ScheduleStatus(Value, frozen=True):
    """One schedule with its last job; `next`: Unix time at which it is due, None if never again."""

    project: str
    service: str
    name: str
    cron: str
    timezone: str
    next: float | None
    last: Job | None = None


class JobList(Value, frozen=True):
    """Jobs, newest first, and all schedules."""

    jobs: tuple[Job, ...] = ()
    schedules: tuple[ScheduleStatus, ...] = ()
