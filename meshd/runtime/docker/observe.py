"""A replica from the engine's inspection of a container. Pure.

Used by `runtime`, `events` and `container`.
"""

import re
import signal
from collections.abc import Collection, Mapping
from dataclasses import replace
from datetime import datetime
from ipaddress import ip_network
from typing import Any

from meshd.model.runtime import ContainerHealth, ObservedReplica, ReplicaState
from meshd.runtime.base import EventKind
from meshd.runtime.docker.drift import describe_drift
from meshd.spec import labels
from meshd.spec.signals import parse_signal

Info = dict[str, Any]

CONTAINER_ID = re.compile(r"[0-9a-f]{64}")
ONE_OFF = "com.docker.compose.oneoff"
PEER_ADDRESSES = "PeerAddresses"
"""Key that `create` adds to the inspection of a container in another one's network: the addresses
of the latter."""
DEFAULT_PORT = 8080
"""Port of an adopted container that names none."""
_STATES = {
    "created": ReplicaState.CREATED,
    "running": ReplicaState.RUNNING,
    "paused": ReplicaState.PAUSED,
    "stopping": ReplicaState.STOPPING,  # Podman; a Docker Engine calls it running
}
_KINDS = {
    "start": EventKind.STARTED,
    "die": EventKind.DIED,
    "destroy": EventKind.REMOVED,
    "remove": EventKind.REMOVED,  # Podman
    "pause": EventKind.PAUSED,
    "unpause": EventKind.UNPAUSED,
    "update": EventKind.CHANGED,
    "rename": EventKind.CHANGED,
}


def is_replica(container_labels: dict[str, str]) -> bool:
    """Return whether a container is a replica of a mesh. A container that `docker-compose run`
    or a job started is not, whatever its labels say."""
    once = container_labels.get(ONE_OFF, "False") == "True" or is_job(container_labels)
    return labels.is_meshed(container_labels) and not once


def is_job(container_labels: dict[str, str]) -> bool:
    """Return whether a mesh started the container for a job."""
    return labels.JOB in container_labels and labels.is_managed(container_labels)


def own_network(project: str, service: str) -> str:
    """Return the name of the network of one service. The dot separates it from declared networks
    (`PROJECT_NETWORK`), whose names have none."""
    return f"{project}.{service}"


def observe(
    info: Info, node: str, first_limits: Mapping[str, object] | None = None
) -> ObservedReplica:
    """Return the replica from the engine's answer to `GET /containers/ID/json`. `first_limits`: see
    `describe_drift`."""
    config, state = info["Config"], info["State"]
    marks: dict[str, str] = config.get("Labels") or {}
    name = replica_name(info["Name"].removeprefix("/"), marks)
    project, service = labels.project_of(marks), labels.service_of(marks) or name
    status = _STATES.get(state["Status"], ReplicaState.EXITED)
    networks: dict[str, str] = {
        network: endpoint["IPAddress"]
        for network, endpoint in sorted((info["NetworkSettings"]["Networks"] or {}).items())
        if endpoint.get("IPAddress")
    }
    own = own_network(project, service)
    hosts = _hosts(info, networks, own) if state["Running"] else ()
    host = next(iter(hosts), None)
    return ObservedReplica(
        name=name,
        runtime_id=info["Id"],
        project=project,
        service=service,
        revision=_revision(info, marks),
        state=status,
        managed=labels.is_managed(marks),
        host=host,
        port=_port(config, marks) if host else 0,
        node=node,
        health=_health(state),
        exit_code=state["ExitCode"] if status is ReplicaState.EXITED else None,
        oom_killed=bool(state.get("OOMKilled")),
        created_at=_time(info["Created"]),
        started_at=_time(state["StartedAt"]),
        finished_at=_time(state["FinishedAt"]),
        addresses=tuple(networks.values()),
        gateways=_gateways(info) if state["Running"] else (),
        labels=marks,
        drift=describe_drift(info, first_limits) if state["Running"] else "",
        alternatives=() if own in networks else hosts[1:],
        pid=int(state.get("Pid") or 0) if labels.is_managed(marks) else 0,
    )


def add_lost_peer(seen: ObservedReplica, info: Info, alive: Collection[str]) -> ObservedReplica:
    """Return the replica with a drift if it shares a namespace or mounts with a container that is
    not among those `alive`, by id: then it must be created again, with the successor."""
    host = info["HostConfig"]
    modes = (str(host.get(key) or "") for key in ("NetworkMode", "IpcMode", "PidMode"))
    shared = [mode.partition(":")[2] for mode in modes if mode.startswith("container:")]
    shared += [str(each).partition(":")[0] for each in host.get("VolumesFrom") or ()]
    lost = [each for each in shared if CONTAINER_ID.fullmatch(each) and each not in alive]
    if not lost or not seen.managed or seen.drift or not info["State"]["Running"]:
        return seen
    return replace(seen, drift=f"shares a namespace or mounts with {lost[0][:12]}, which has ended")


def replica_name(container: str, marks: dict[str, str]) -> str:
    """Return the name of a replica: that of its container, unless the file gives this one."""
    given = marks.get(labels.CONTAINER_NAME)
    return marks.get(labels.REPLICA, container) if given == container else container


def stop_signal(info: Info) -> int:
    """Return the number of the signal that asks this container to end: its own, which the engine
    takes from the image if it was created without one."""
    return parse_signal(str(info["Config"].get("StopSignal") or "")) or int(signal.SIGTERM)


def event_kind(action: str, attributes: dict[str, str], stop: int) -> EventKind | None:
    """Return what an engine event means for a replica with the stop signal `stop`; None if nothing.

    `stop` and `stopped` arrive when everything is over. The first sign of an end is `kill`, which
    also reports harmless signals.
    """
    if action == "kill":
        ends = attributes.get("signal") in (str(stop), str(int(signal.SIGKILL)))
        return EventKind.STOPPING if ends else None
    if action.startswith("health_status"):
        return EventKind.HEALTH
    return _KINDS.get(action)


def _health(state: Info) -> ContainerHealth:
    """Return the result of the container's own check. A failure from before its last start does
    not count: some engines keep it until the first check after the start."""
    found: Info = state.get("Health") or {}
    health = ContainerHealth(found.get("Status") or "none")
    checks = found.get("Log") or ()
    if health is ContainerHealth.UNHEALTHY and checks and state["Running"]:
        newest = max(_time(each["Start"]) for each in checks)
        return ContainerHealth.STARTING if newest < _time(state["StartedAt"]) else health
    return health


def _hosts(info: Info, networks: dict[str, str], own: str) -> tuple[str, ...]:
    """Return the addresses for the proxy, the one on the service's own network first."""
    if info["HostConfig"].get("NetworkMode") == "host":
        return ("127.0.0.1",)
    first = [networks[own]] if own in networks else []
    others = [address for name, address in networks.items() if name != own]
    return (*first, *others, *info.get(PEER_ADDRESSES, ()))


def _gateways(info: Info) -> tuple[tuple[str, str], ...]:
    """Return the host's address in each of its networks with the network itself, without
    duplicates."""
    found = {}
    for endpoint in (info["NetworkSettings"]["Networks"] or {}).values():
        if endpoint.get("Gateway") and endpoint.get("IPAddress"):
            address = f"{endpoint['IPAddress']}/{endpoint['IPPrefixLen']}"
            found[endpoint["Gateway"]] = str(ip_network(address, strict=False))
    return tuple(sorted(found.items()))


def _port(config: Info, marks: dict[str, str]) -> int:
    """Return the port: the label; otherwise, for an adopted container, $PORT; otherwise the
    lowest exposed port."""
    if marks.get(labels.PORT, "").isdigit():
        return int(marks[labels.PORT])
    environment = dict(item.partition("=")[::2] for item in config.get("Env") or ())
    if environment.get("PORT", "").isdigit():
        return int(environment["PORT"])
    exposed = [
        int(port.partition("/")[0])
        for port in config.get("ExposedPorts") or ()
        if not port.endswith("/udp")
    ]
    return min(exposed, default=DEFAULT_PORT)


def _revision(info: Info, marks: dict[str, str]) -> str:
    """Return the revision: ours, or Compose's configuration hash, or the image. These change
    with a new version of an adopted container."""
    known = marks.get(labels.REVISION) or marks.get(labels.COMPOSE_CONFIG_HASH, "")[:12]
    return known or str(info["Image"]).removeprefix("sha256:")[:12]


def _time(text: str) -> float:
    """Return Unix seconds; the engine's zero time (year 1) is 0."""
    moment = datetime.fromisoformat(text)
    return moment.timestamp() if moment.year > 1 else 0.0
