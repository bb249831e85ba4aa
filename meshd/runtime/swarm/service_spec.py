"""The Swarm service for one replica, in the engine's JSON. Pure.

`SwarmRuntime` creates it; `observe` reads it back. One service with one task for each replica:
Swarm chooses by itself which task of a service ends when it shrinks, but meshd decides which
replica stops, after it is drained. Parts that a service has in common with a container come from
`meshd.runtime.docker.container`.
"""

import hashlib
import math
from collections.abc import Mapping
from typing import Final

from meshd.model.runtime import ReplicaSpec
from meshd.runtime.docker.container import (
    DEFAULT_LOG_DRIVER,
    LOG_LIMITS,
    NANOSECONDS,
    Info,
    dropped_capabilities,
    healthcheck_config,
    mount_config,
    network_name,
)
from meshd.spec import labels
from meshd.spec.image_name import parse_image_name
from meshd.spec.model import Mount, Service

STOPPED: Final = "mesh.stopped"
"""Label of a service whose replica is to end. It stays until the replica is removed, so that the
name is taken and the exit code is known."""
NO_NODE: Final = "node.id==meshd-stopped"
"""Constraint that no node meets. An update with it ends the running task and starts no other."""
SECRET_MODE: Final = 0o444
"""Mode of a secret or config of a file of the host, as Swarm's own default."""


def image_of(service: Service) -> str:
    """Return the image that tasks run: by digest if a registry has it, so that all nodes run the
    same; else by its id, which is the same on each node that it was loaded on, and is never pulled;
    else by name."""
    if service.image_digest:
        return f"{parse_image_name(service.image).repository}@{service.image_digest}"
    return f"sha256:{service.image_id}" if service.image_id else service.image


def secret_files(service: Service) -> list[Mount]:
    """Return the mounts that are secrets or configs of the Compose file."""
    return [mount for mount in service.volumes if _is_secret(mount)]


def secret_name(replica: ReplicaSpec, mount: Mount) -> str:
    """Return the name of the Swarm secret with the content of a mount. It is the same for all
    replicas of a revision. A hash of the content would allow an attacker to test guesses."""
    key = (replica.project, replica.service.name, replica.revision, mount.target)
    return f"meshd-{hashlib.sha256(repr(key).encode()).hexdigest()[:40]}"


def service_spec(
    replica: ReplicaSpec, secrets: Mapping[str, str], logging_driver: str = DEFAULT_LOG_DRIVER
) -> Info:
    """Return the body of the request that creates the service. `secrets` has the ids of the Swarm
    secrets by name. Tasks have no labels of meshd: another meshd, on the engine of a node, would
    take their containers for its own."""
    service = replica.service
    marks = labels.make_labels(
        replica.project,
        service.name,
        replica.revision,
        replica.name,
        service.port,
        replica.instance,
    )
    if replica.job:
        marks[labels.JOB] = replica.name
    if replica.attempt:
        marks[labels.ATTEMPT] = str(replica.attempt)
    if replica.placed:
        marks[labels.PLACED] = replica.placed
    ports = [] if replica.job else _ports(service)
    task: Info = {
        "ContainerSpec": _container(replica, secrets),
        "Resources": _resources(service),
        "RestartPolicy": {"Condition": "none"},  # meshd restarts replicas
        "Placement": _placement(replica),
        "Networks": [_attachment(replica, name) for name in service.networks],
    }
    if log := _log_driver(service, logging_driver):
        task["LogDriver"] = log
    return {
        "Name": replica.name,
        "Labels": marks,
        "TaskTemplate": task,
        "Mode": {"Replicated": {"Replicas": 1}},
        "UpdateConfig": {"Parallelism": 1, "Order": "stop-first", "FailureAction": "pause"},
        "EndpointSpec": {"Mode": "dnsrr", "Ports": ports},
    }


def stopped_spec(spec: Info) -> Info | None:
    """Return the `Spec` of a service with which its task ends; None if it is that already."""
    if STOPPED in (spec.get("Labels") or {}):
        return None
    task = {**spec["TaskTemplate"], "Placement": {"Constraints": [NO_NODE]}}
    return {**spec, "Labels": {**(spec.get("Labels") or {}), STOPPED: "1"}, "TaskTemplate": task}


def kept_port_spec(port: int, spec: Info) -> Info | None:
    """Return the `Spec` of a service that names the port of its node; None if it does already. Its
    task stays as it is."""
    marks = spec.get("Labels") or {}
    if marks.get(labels.NODE_PORT) == str(port):
        return None
    return {**spec, "Labels": {**marks, labels.NODE_PORT: str(port)}}


def _container(replica: ReplicaSpec, secrets: Mapping[str, str]) -> Info:
    service, options = replica.service, replica.service.options
    environment = {**service.environment, **replica.environment}
    if not service.plain:
        environment = {"PORT": str(service.port), **environment}
    found: Info = {
        "Image": image_of(service),
        "Labels": dict(service.labels),
        "Env": [f"{key}={value}" for key, value in environment.items()],
        "Dir": service.working_dir,
        "User": service.user,
        "Groups": list(service.group_add),
        "Hostname": options.hostname,
        "TTY": options.tty,
        "OpenStdin": options.stdin_open,
        "ReadOnly": service.read_only,
        "Init": service.init,
        "Mounts": _mounts(replica),
        "StopGracePeriod": math.ceil(service.stop_grace_period) * NANOSECONDS,
        "Hosts": [
            f"{address} {name}"
            for name, addresses in {**service.extra_hosts, **replica.hosts}.items()
            for address in addresses.split(",")
        ],
        "DNSConfig": {
            "Nameservers": list(service.dns),
            "Search": list(service.dns_search),
            "Options": list(service.dns_opt),
        },
        "Secrets": [
            _secret(mount, secret_name(replica, mount), secrets) for mount in secret_files(service)
        ],
        "Sysctls": service.sysctls,
        "CapabilityAdd": list(service.cap_add),
        "CapabilityDrop": dropped_capabilities(service),
        "Ulimits": [
            {"Name": name, "Soft": limit.soft, "Hard": limit.hard}
            for name, limit in service.ulimits.items()
        ],
    }
    if service.stop_signal:  # otherwise the image's STOPSIGNAL holds
        found["StopSignal"] = service.stop_signal
    if service.entrypoint is not None:
        found["Command"] = list(service.entrypoint)
    if service.command is not None:
        found["Args"] = list(service.command)
    if replica.job:
        found["Healthcheck"] = {"Test": ["NONE"]}
    elif service.healthcheck is not None:
        found["Healthcheck"] = healthcheck_config(service.healthcheck)
    return found


def _mounts(replica: ReplicaSpec) -> list[Info]:
    """Return the mounts. A volume is created on the node where the task runs; a size of /dev/shm is
    a tmpfs, because the engine has no other setting for tasks."""
    service = replica.service
    found = [_mount(replica.project, mount) for mount in service.volumes if not _is_secret(mount)]
    if service.shm_size:
        size = {"SizeBytes": service.shm_size}
        found.append({"Type": "tmpfs", "Target": "/dev/shm", "TmpfsOptions": size})  # noqa: S108
    return found


def _mount(project: str, mount: Mount) -> Info:
    found = mount_config(project, mount)
    if mount.type == "volume" and mount.source and not mount.external:
        options: Info = found.setdefault("VolumeOptions", {})
        options["Labels"] = {
            **mount.volume_labels,
            labels.MANAGED: "1",
            labels.PROJECT: project,
        }
        if mount.volume_driver or mount.volume_options:
            options["DriverConfig"] = {
                "Name": mount.volume_driver or "local",
                "Options": mount.volume_options,
            }
    return found


def _is_secret(mount: Mount) -> bool:
    """Whether a mount is a secret or config: one with content, or a file of the host."""
    return mount.type == "file" or (mount.type == "bind" and bool(mount.version))


def _secret(mount: Mount, name: str, secrets: Mapping[str, str]) -> Info:
    mode = mount.mode if mount.type == "file" else SECRET_MODE
    file = {"Name": mount.target, "UID": str(mount.uid), "GID": str(mount.gid), "Mode": mode}
    return {"SecretID": secrets[name], "SecretName": name, "File": file}


def _resources(service: Service) -> Info:
    limits = service.resources
    capped: Info = {
        "NanoCPUs": round(limits.cpus * NANOSECONDS),
        "MemoryBytes": limits.memory,
        "Pids": limits.pids,
    }
    reserved: Info = {
        "NanoCPUs": round(limits.reserved_cpus * NANOSECONDS),
        "MemoryBytes": limits.reserved_memory,
    }
    return {"Limits": capped, "Reservations": reserved}


def _placement(replica: ReplicaSpec) -> Info:
    constraints = list(replica.service.constraints)
    if replica.node is not None:
        constraints.append(f"node.hostname=={replica.node}")
    constraints += [f"node.hostname!={node}" for node in replica.avoid]
    found: Info = {"Constraints": constraints}
    if replica.service.options.platform:
        system, _, machine = replica.service.options.platform.partition("/")
        found["Platforms"] = [{"OS": system, "Architecture": machine.partition("/")[0]}]
    return found


def _attachment(replica: ReplicaSpec, name: str) -> Info:
    """Return how the task joins a network. All replicas have the name of their service there, with
    the address of each: `dnsrr` gives no virtual address. A job has no name."""
    service = replica.service
    found: Info = {"Target": network_name(replica.project, service, name)}
    if not replica.job:
        names = [service.name, *service.aliases.get(name, ())]
        if service.plain:
            options = service.options
            names += [each for each in (options.hostname, options.container_name) if each]
        found["Aliases"] = list(dict.fromkeys(names))
    given = service.attachments.get(name)
    if given is not None and given.driver_opts:
        found["DriverOpts"] = given.driver_opts
    return found


def _ports(service: Service) -> list[Info]:
    """Return the ports to publish on the node of the task. The main port of a mesh-managed replica
    gets a free port there: the proxy reaches the replica by the node's address."""
    found: list[Info] = []
    if not service.plain:
        found.append({"Protocol": "tcp", "TargetPort": service.port, "PublishMode": "host"})
    for port in service.engine_ports:
        body: Info = {
            "Protocol": port.protocol,
            "TargetPort": port.target,
            "PublishMode": "host",
        }
        if port.published:
            body["PublishedPort"] = int(port.published)
        found.append(body)
    return found


def _log_driver(service: Service, default: str) -> Info:
    """Return the log driver; empty for the engine's default."""
    given = service.logging
    if given is not None and (given.driver or given.options):
        return {"Name": given.driver or default, "Options": given.options}
    if default == DEFAULT_LOG_DRIVER:
        return {"Name": default, "Options": LOG_LIMITS}
    return {}
