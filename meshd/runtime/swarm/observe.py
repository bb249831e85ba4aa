"""A replica from a Swarm service, its tasks and their nodes, in the engine's JSON. Pure.

Used by `SwarmRuntime` and `watch`. `service_spec` writes what is read here.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from meshd.model.node_proxy import NodeLoad
from meshd.model.runtime import Availability, ContainerHealth, Node, ObservedReplica, ReplicaState
from meshd.runtime.swarm.service_spec import NO_NODE, STOPPED
from meshd.spec import labels

Info = dict[str, Any]

_BEFORE_RUNNING: Final = frozenset(
    {"new", "pending", "assigned", "accepted", "preparing", "ready", "starting"}
)
"""States of a task whose process does not run yet, or whose health check has not passed yet."""
_ENDING: Final = frozenset({"shutdown", "remove", "complete"})
"""Desired states of a task that is to end."""
_ENDED: Final = frozenset({"complete", "shutdown", "failed", "rejected", "remove", "orphaned"})
"""States of a task that has ended."""
DRAIN_UNTIL: Final = "mesh.drain-until"
"""Label of a node that meshd drains, with the Unix time at which it gives up. It is in the Raft, so
that a meshd that takes over continues."""
_NO_ADDRESS: Final = frozenset({"", "0.0.0.0", "127.0.0.1", "::", "::1"})
"""Addresses that a node may report when it does not know by which one others reach it."""


@dataclass(frozen=True, slots=True)
class TaskHistory:
    """What the Swarm does not keep about tasks, by id, as far as meshd saw it.

    - `started`: Unix time of the start; the time of a task is that of its last change.
    - `out_of_memory`: tasks of this node that were killed because memory ran out.
    """

    started: Mapping[str, float] = field(default_factory=dict)
    out_of_memory: Collection[str] = ()


@dataclass(frozen=True, slots=True)
class SwarmNode:
    """A node of the Swarm.

    - `address`: where other nodes reach it; empty if unknown.
    - `ready`: whether its engine answers the managers.
    - `availability`: `active`, `pause` or `drain`.
    - `role`: `manager`, `leader` or `worker`; `state`: the Swarm's word for `ready`.
    - `engine`: the version of its engine.
    - `drain_until`, `platform`: see `meshd.model.runtime.Node`.
    """

    id: str
    name: str
    address: str
    role: str
    ready: bool
    availability: str
    cpus: float
    memory: int
    labels: Mapping[str, str]
    state: str = "ready"
    engine: str = ""
    drain_until: float = 0.0
    platform: str = ""
    has_proxy: bool = True
    needs_proxy: bool = False
    lost_proxy: bool = False

    @property
    def takes_tasks(self) -> bool:
        """Whether new tasks may run there."""
        return self.ready and self.availability == "active"

    def as_node(self, reserved: tuple[float, int] = (0.0, 0), load: NodeLoad | None = None) -> Node:
        """Return it as a machine on which replicas can be placed. `reserved`: the cores and bytes
        that its tasks reserve; `load`: how busy it is."""
        return Node(
            self.name,
            self.cpus,
            self.memory,
            self.labels,
            role=self.role,
            address=self.address,
            state=self.state,
            availability=Availability(self.availability),
            engine=self.engine,
            reserved_cpus=reserved[0],
            reserved_memory=reserved[1],
            drain_until=self.drain_until,
            id=self.id,
            platform=self.platform,
            has_proxy=self.has_proxy,
            needs_proxy=self.needs_proxy,
            lost_proxy=self.lost_proxy,
            load=load,
        )


def parse_node(info: Info) -> SwarmNode:
    """Return a node from the answer to `GET /nodes`. A manager may only know its address from its
    part in the Raft."""
    about, spec = info["Description"], info["Spec"]
    address = str(info["Status"].get("Addr") or "")
    if address in _NO_ADDRESS:
        manager = str((info.get("ManagerStatus") or {}).get("Addr") or "")
        address = manager.rpartition(":")[0].strip("[]")
    resources = about.get("Resources") or {}
    engine = (about.get("Engine") or {}).get("Labels") or {}
    own = spec.get("Labels") or {}
    leads = bool((info.get("ManagerStatus") or {}).get("Leader"))
    return SwarmNode(
        id=info["ID"],
        name=about.get("Hostname") or info["ID"],
        address=address,
        role="leader" if leads else spec["Role"],
        ready=info["Status"]["State"] == "ready",
        availability=spec["Availability"],
        cpus=resources.get("NanoCPUs", 0) / 1e9,
        memory=int(resources.get("MemoryBytes", 0)),
        labels={**engine, **{key: own[key] for key in own if key != DRAIN_UNTIL}},
        state=info["Status"]["State"],
        engine=str((about.get("Engine") or {}).get("EngineVersion") or ""),
        platform="/".join(
            str((about.get("Platform") or {}).get(part, "")) for part in ("OS", "Architecture")
        ),
        drain_until=_parse_number(own.get(DRAIN_UNTIL, "")),
    )


def available_spec(spec: Info, availability: Availability, drain_until: float) -> Info | None:
    """Return the `Spec` of a node with this availability; None if it has it already."""
    own = {key: value for key, value in (spec.get("Labels") or {}).items() if key != DRAIN_UNTIL}
    if drain_until:
        own[DRAIN_UNTIL] = f"{drain_until:.0f}"
    wanted = {**spec, "Availability": str(availability), "Labels": own}
    return None if wanted == {**spec, "Labels": spec.get("Labels") or {}} else wanted


def reserved_by_node(tasks: Iterable[Info]) -> dict[str, tuple[float, int]]:
    """Return the cores and bytes that tasks reserve, by the id of their node."""
    found: dict[str, tuple[float, int]] = {}
    for task in tasks:
        if task["DesiredState"] in _ENDING or task["Status"]["State"] in _ENDED:
            continue
        wanted = (task["Spec"].get("Resources") or {}).get("Reservations") or {}
        cpus, memory = found.get(task.get("NodeID", ""), (0.0, 0))
        found[task.get("NodeID", "")] = (
            cpus + wanted.get("NanoCPUs", 0) / 1e9,
            memory + int(wanted.get("MemoryBytes", 0)),
        )
    return found


def _parse_number(text: str) -> float:
    """Return a Unix time in a label; 0 if it is not one."""
    return float(text) if text.isdecimal() else 0.0


def is_replica(service: Info) -> bool:
    """Whether a service is a replica or job that a meshd started."""
    marks = service["Spec"].get("Labels") or {}
    return labels.is_managed(marks) and labels.REPLICA in marks


def is_job(service: Info) -> bool:
    """Whether a service is a job."""
    return labels.JOB in (service["Spec"].get("Labels") or {})


def tasks_by_service(tasks: Iterable[Info]) -> dict[str, list[Info]]:
    """Return tasks by the id of their service."""
    found: dict[str, list[Info]] = {}
    for task in tasks:
        found.setdefault(task["ServiceID"], []).append(task)
    return found


def task_of(tasks: Iterable[Info]) -> Info | None:
    """Return the newest task of a service that is not the one which never starts; None if there is
    none."""
    real = [each for each in tasks if not _never_starts(each)]
    return max(real, key=lambda each: str(each["CreatedAt"]), default=None)


def observe(
    service: Info,
    tasks: Iterable[Info],
    nodes: Mapping[str, SwarmNode],
    history: TaskHistory,
) -> ObservedReplica:
    """Return the replica of a service. `nodes` are by id."""
    spec = service["Spec"]
    marks: Mapping[str, str] = spec.get("Labels") or {}
    task = task_of(tasks)
    state = _state(task, marks, nodes)
    common = {
        "name": spec["Name"],
        "project": marks.get(labels.PROJECT, ""),
        "service": marks.get(labels.SERVICE, ""),
        "revision": marks.get(labels.REVISION, ""),
        "managed": True,
        "created_at": parse_time(service["CreatedAt"]),
        "labels": dict(marks),
    }
    if task is None:
        return ObservedReplica(runtime_id=service["ID"], state=state, **common)
    status = task["Status"]
    changed = parse_time(status["Timestamp"])
    ended = state is ReplicaState.EXITED
    runs = state in (ReplicaState.RUNNING, ReplicaState.STOPPING)
    node = nodes.get(task.get("NodeID", ""))
    begun = changed if status["State"] == "running" else history.started.get(task["ID"], 0.0)
    if not begun and ended and (status.get("ContainerStatus") or {}).get("ContainerID"):
        begun = parse_time(task["CreatedAt"])
    host, port = _address(task, spec, node) if runs else (None, 0)
    return ObservedReplica(
        runtime_id=task["ID"],
        state=state,
        host=host,
        port=port,
        node=node.name if node else "",
        health=_health(task),
        exit_code=_exit_code(task) if ended else None,
        oom_killed=ended and task["ID"] in history.out_of_memory,
        started_at=begun,
        finished_at=changed if ended else 0.0,
        addresses=_addresses(task) if runs else (),
        error=_end(task, nodes) if ended else "",
        **common,
    )


def _end(task: Info, nodes: Mapping[str, SwarmNode]) -> str:
    """Return why a task without an exit code ended; empty if the Swarm does not say."""
    if _exit_code(task) is not None:
        return ""
    node = nodes.get(task.get("NodeID", ""))
    if task["Status"]["State"] in ("running", *_BEFORE_RUNNING) and task.get("NodeID"):
        return f"is lost: node {node.name if node else task['NodeID']} is down"
    text = describe_error(task, nodes)
    return f"did not start: {text}" if text else ""


def describe_error(task: Info | None, nodes: Mapping[str, SwarmNode]) -> str:
    """Return why a task does not run, in the words of the Swarm and with the name of its node;
    empty if the Swarm gives no reason."""
    if task is None:
        return ""
    status = task["Status"]
    text = str(status.get("Err") or "").strip()
    node = nodes.get(task.get("NodeID", ""))
    if text and node is not None:
        return f"node {node.name}: {text}"
    return text


def is_missing_image(task: Info) -> bool:
    """Whether a task was refused because its node has no such image and cannot pull it."""
    text = str(task["Status"].get("Err") or "").lower()
    return task["Status"]["State"] == "rejected" and "no such image" in text


def container_of(task: Info) -> str:
    """Return the id of a task's container; empty if it has none yet."""
    return str((task["Status"].get("ContainerStatus") or {}).get("ContainerID") or "")


def parse_time(text: str) -> float:
    """Return Unix seconds; the engine's zero time (year 1) is 0."""
    moment = datetime.fromisoformat(text)
    return moment.timestamp() if moment.year > 1 else 0.0


def _never_starts(task: Info) -> bool:
    constraints = (task["Spec"].get("Placement") or {}).get("Constraints") or ()
    return NO_NODE in constraints


def _state(
    task: Info | None, marks: Mapping[str, str], nodes: Mapping[str, SwarmNode]
) -> ReplicaState:
    """Return the state of a replica. A task on a node that is down will not come back: meshd
    replaces its replica, and the node ends the task should it return."""
    stopped = STOPPED in marks
    if task is None:
        return ReplicaState.EXITED if stopped else ReplicaState.CREATED
    state = task["Status"]["State"]
    ending = stopped or task["DesiredState"] in _ENDING
    node = nodes.get(task.get("NodeID", ""))
    lost = bool(task.get("NodeID")) and (node is None or not node.ready)
    if state in _BEFORE_RUNNING:
        if ending or lost:
            return ReplicaState.EXITED
        return ReplicaState.RUNNING if _is_checked(task) else ReplicaState.CREATED
    if state != "running":
        return ReplicaState.EXITED
    if ending:
        return ReplicaState.EXITED if lost else ReplicaState.STOPPING
    return ReplicaState.RUNNING


def _is_checked(task: Info) -> bool:
    """Whether a task runs already, but Swarm waits for its health check."""
    check = task["Spec"]["ContainerSpec"].get("Healthcheck") or {}
    given = bool(check.get("Test")) and check["Test"] != ["NONE"]
    return given and task["Status"]["State"] == "starting"


def _health(task: Info) -> ContainerHealth:
    """Return the result of the health check of a service. Swarm ends a task whose check fails."""
    check = task["Spec"]["ContainerSpec"].get("Healthcheck") or {}
    if not check.get("Test") or check["Test"] == ["NONE"]:
        return ContainerHealth.NONE
    running = task["Status"]["State"] == "running"
    return ContainerHealth.HEALTHY if running else ContainerHealth.STARTING


def _address(task: Info, spec: Info, node: SwarmNode | None) -> tuple[str | None, int]:
    """Return where a process on any host reaches the main port of a replica: the port of its node.
    No host has a route to the addresses on an overlay network, so that a replica whose port is not
    known has none. A plain replica has the address of its task, which other tasks reach."""
    marks: Mapping[str, str] = spec.get("Labels") or {}
    target = int(marks.get(labels.PORT) or 0)
    port = _published_port(task, target) or int(marks.get(labels.NODE_PORT) or 0)
    if port and node is not None and node.address:
        return node.address, port
    asked = (spec.get("EndpointSpec") or {}).get("Ports") or ()
    if task["Status"]["State"] != "running" or any(_leads_to(each, target) for each in asked):
        return None, 0
    addresses = _addresses(task)
    return (addresses[0], target) if addresses else (None, 0)


def _published_port(task: Info, target: int) -> int:
    """Return the port of its node that leads to a port of a task, according to the Swarm; 0 if it
    does not say. It no longer does once the node has reported to another leading manager."""
    ports = (task["Status"].get("PortStatus") or {}).get("Ports") or ()
    known = (each.get("PublishedPort") for each in ports if _leads_to(each, target))
    return int(next(filter(None, known), 0))


def lacks_kept_port(seen: ObservedReplica) -> bool:
    """Whether a replica is reached by a port of its node that its service does not name yet."""
    by_node = bool(seen.port) and seen.host not in seen.addresses
    return by_node and seen.labels.get(labels.NODE_PORT) != str(seen.port)


def _leads_to(port: Info, target: int) -> bool:
    return port.get("TargetPort") == target and port.get("Protocol", "tcp") == "tcp"


def _addresses(task: Info) -> tuple[str, ...]:
    """Return the addresses of a task on its overlay networks."""
    return tuple(
        address.partition("/")[0]
        for each in task.get("NetworksAttachments") or ()
        for address in each.get("Addresses") or ()
    )


def _exit_code(task: Info) -> int | None:
    """Return the exit code of an ended task; None if its process did not run or the node is
    lost."""
    status = task["Status"].get("ContainerStatus") or {}
    if not status.get("ContainerID") or task["Status"]["State"] in ("running", "rejected"):
        return None
    return int(status.get("ExitCode", 0))
