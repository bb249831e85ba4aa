"""Keys of a Compose file that a Swarm does not have. Pure.

Used by `meshd.runtime.support`: they are refused by name if the service would run on other data,
with other rights or in another network without them; otherwise it runs without them, with a
warning.
"""

import re
from collections.abc import Iterator
from typing import Final

from meshd.runtime.docker.container import network_name
from meshd.spec.model import Mount, Project, Service

LONGEST_NAME: Final = 63
"""Characters of the name of a service or network of a Swarm, at most."""
LARGEST_SECRET: Final = 511_999
"""Bytes of a secret of a Swarm, at most."""
_NAME: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_-]*[A-Za-z0-9])?")
"""Names of services and networks that a Swarm accepts."""
_ENDING: Final = "xxxxx"
"""In messages: the random end of the names of replicas and jobs."""

_NEEDED: Final = {
    "privileged": "tasks never are",
    "devices": "tasks have none",
    "device_cgroup_rules": "tasks have no devices",
    "gpus": "tasks have no devices",
    "network_mode": "tasks join overlay networks",
    "ipc": "tasks share no namespaces",
    "pid": "tasks share no namespaces",
    "uts": "tasks share no namespaces",
    "cgroup": "tasks share no namespaces",
    "userns_mode": "tasks share no namespaces",
    "volumes_from": "tasks may run on different nodes",
    "external_links": "other containers may be on different nodes",
    "mac_address": "the Swarm chooses it",
    "runtime": "the Swarm takes the default of each node",
    "storage_opt": "the Swarm takes the default of each node",
}
"""Keys without which a service would be another one, each with the reason."""
_TUNING: Final = (
    "annotations",
    "blkio_config",
    "cgroup_parent",
    "cpu_count",
    "cpu_percent",
    "cpu_period",
    "cpu_quota",
    "cpu_rt_period",
    "cpu_rt_runtime",
    "cpu_shares",
    "cpuset",
    "domainname",
    "mem_swappiness",
    "memswap_limit",
    "oom_kill_disable",
    "oom_score_adj",
)
"""Keys without which a service runs all the same."""


def refused(service: Service) -> Iterator[str]:
    """Yield why a Swarm cannot run the service, one line for each key."""
    given = service.options.model_dump(exclude_defaults=True)
    for key, reason in _NEEDED.items():
        if key in given:
            yield f"{key} does not exist in a Swarm: {reason}"
    if service.build is not None:
        yield (
            "build does not exist in a Swarm: its nodes get images from a registry; build and push "
            "the image, and name it in image"
        )
    if service.security_opt:
        yield "security_opt does not exist in a Swarm: tasks have the defaults of the engine"
    if any(":" in link for link in service.options.links):
        yield "links with an alias do not exist in a Swarm; use an alias of the network"
    if service.mode == "global-job":
        yield "deploy.mode: global-job is not supported in a Swarm; use replicated-job"
    if service.is_global and service.mesh.scale is not None:
        yield "x-mesh.scale is of no use with deploy.mode: global, one replica for each node"
    for name in ("post_start", "pre_stop"):
        if getattr(service, name):
            yield f"{name} does not exist in a Swarm: a manager runs no commands on other nodes"
    for name, attachment in service.attachments.items():
        if attachment.has_address or attachment.link_local_ips:
            yield f"networks.{name}: fixed addresses do not exist in a Swarm; use names"
    for port in service.engine_ports:
        if port.host_ip:
            yield f"port {port}: a Swarm publishes on all addresses of a node; remove the address"
        if "-" in port.published:
            yield f"port {port}: a Swarm takes one port, not a range"
    for mount in service.volumes:
        yield from _refused_mount(mount)


def refused_names(project: Project, network_suffix: str = "") -> Iterator[str]:
    """Yield which names of a project a Swarm does not accept, one line for each key: its services
    are called as the replicas and jobs are. `network_suffix` may follow the names of networks."""
    networks: dict[str, str] = {}
    external = {network.name for network in project.networks if network.external}
    for service in project.services:
        usual = f"{project.name}-{service.name}"
        names = [f"{usual}-{_ENDING}"]
        steps = [at for at, step in enumerate(service.pre_start, 1) if step.per_replica]
        if steps:
            names.append(f"{usual}-{_ENDING}-init{steps[-1]}")
        if service.mesh.schedule:
            names.append(f"{usual}-job-{_ENDING}")
        if problem := _name_problem(max(names, key=len)):
            yield (
                f"services.{service.name}: its replicas and jobs would have names like {problem}; "
                "give the service another name"
            )
        for name in service.networks:
            if name not in external:
                networks[name] = network_name(project.name, service, name)
    for name, called in networks.items():
        if problem := _name_problem(called + network_suffix):
            yield (
                f"networks.{name}: it would have the name {problem}; set networks.{name}.name to "
                "another one"
            )


def _name_problem(name: str) -> str:
    """Return a name with why a Swarm does not accept it; empty if it does."""
    if not _NAME.fullmatch(name):
        return (
            f"{name}, and a Swarm accepts only letters, digits, - and _ in names, with a letter or "
            "digit at both ends"
        )
    if len(name) > LONGEST_NAME:
        return f"{name}, and a Swarm accepts at most {LONGEST_NAME} characters, not {len(name)}"
    return ""


def size_problem(size: int) -> str:
    """Return why a Swarm takes no secret or config of this size in bytes; empty if it does."""
    if not size:
        return "is empty, and a Swarm refuses empty secrets and configs"
    if size > LARGEST_SECRET:
        return f"has {size} bytes, and a Swarm accepts at most {LARGEST_SECRET}"
    return ""


def _refused_mount(mount: Mount) -> Iterator[str]:
    if mount.type == "file" and (problem := size_problem(len(mount.content.encode()))):
        yield f"the secret or config at {mount.target} {problem}"
    if mount.type == "tmpfs" and mount.options:
        yield f"the options of the tmpfs at {mount.target} do not exist in a Swarm, only size, mode"
    if mount.type == "image":
        yield f"the image at {mount.target} cannot be mounted in a Swarm"
    if mount.subpath:
        yield f"the subpath at {mount.target} does not exist in a Swarm"


def ignored(service: Service) -> Iterator[str]:
    """Yield what the service runs without."""
    given = service.options.model_dump(exclude_defaults=True)
    if keys := [key for key in _TUNING if key in given]:
        yield f"{', '.join(keys)} have no effect in a Swarm"
    for mount in service.volumes:
        if mount.selinux:
            yield f"the SELinux label of {mount.target} has no effect in a Swarm"
        if mount.type == "volume" and mount.source:
            yield (
                f"volume {mount.source} is on the node where a replica runs; one that moves to "
                "another node gets an empty volume (see docs/many-machines.md)"
            )
        elif mount.type == "bind" and not mount.version:
            yield f"{mount.source} must exist on each node where a replica may run"
    if service.mesh.allow is not None:
        yield (
            "x-mesh.allow holds for calls through the mesh; on a shared overlay network, other "
            "containers reach replicas directly"
        )
    if service.passthrough_ports:
        ports = ", ".join(map(str, service.passthrough_ports))
        yield (
            f"the mesh passes no connections on to TCP port {ports} in a Swarm; the name "
            f"{service.name} has the addresses of all replicas"
        )
