"""What `meshd migrate --to swarm` does with each service: which move, which stay and why, and what
prevents it. Pure.

A service moves if its replicas may run anywhere, or only where its data is. One with data of this
host stays: a replica on another node would begin with an empty volume.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from meshd.model.runtime import Capabilities
from meshd.model.service_key import service_key
from meshd.model.volume import volume_name
from meshd.runtime.support import unsupported
from meshd.runtime.swarm.limits import refused_names
from meshd.runtime.swarm.networks import DRIVERS, SUFFIX
from meshd.spec.model import Mount, Project, Service

LOCAL: Final = ("", "local")
"""Drivers whose volumes are on one engine."""
REMOTE_TYPES: Final = frozenset({"nfs", "nfs4", "cifs"})
"""Kinds of file systems that every node mounts alike, with the driver `local`."""
PINNED: Final = "node.hostname=="
"""Beginning of the constraint that gives a service one node."""


@dataclass(frozen=True, slots=True)
class MigrationFacts:
    """What is known before a migration.

    - `projects`: those that are deployed, as they are stored.
    - `can`: capabilities of the Swarm.
    - `node`: the node of this host; `nodes`: all that take replicas.
    - `on_engine`: number of replicas on the engine that meshd started, by service key; services
      without any are left out.
    - `adopted`: keys of services with containers that something else started.
    - `rolling`: keys of services with a rollout under way.
    - `anonymous`: paths of the anonymous volumes on the engine, by service key.
    - `files`: what a Swarm refuses in the files of secrets and configs, by service key.
    - `data_moved`: services whose data is on their node already, by key or by name.
    """

    projects: Sequence[Project]
    can: Capabilities
    node: str
    nodes: tuple[str, ...]
    on_engine: Mapping[str, int]
    adopted: Collection[str] = ()
    rolling: Collection[str] = ()
    anonymous: Mapping[str, Sequence[str]] = field(default_factory=dict)
    files: Mapping[str, Sequence[str]] = field(default_factory=dict)
    data_moved: Collection[str] = ()


@dataclass(frozen=True, slots=True)
class MovingService:
    """A service that moves. `replicas`: how many; `notes`: what the user should know."""

    key: str
    replicas: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class StayingService:
    """A service that stays on the engine, and what to do to move it."""

    key: str
    reason: str


@dataclass(frozen=True, slots=True)
class MigrationPlan:
    """The plan for all `projects`. With `problems`, nothing may be changed."""

    projects: frozenset[str] = frozenset()
    moving: tuple[MovingService, ...] = ()
    staying: tuple[StayingService, ...] = ()
    problems: tuple[str, ...] = ()

    @property
    def staying_keys(self) -> tuple[str, ...]:
        """The keys of the services that stay."""
        return tuple(each.key for each in self.staying)


def plan_migration(facts: MigrationFacts) -> MigrationPlan:
    """Return what moves, what stays, and everything that prevents the migration."""
    moving, staying, problems = [], [], []
    known = set()
    for project in facts.projects:
        problems += [f"{project.name}: {text}" for text in refused_names(project, SUFFIX)]
        for service in project.services:
            key = service_key(project.name, service.name)
            known |= {key, service.name}
            problems += _find_problems(key, project, service, facts)
            reason = _why_it_stays(key, project, service, facts)
            if reason:
                staying.append(StayingService(key, reason))
            else:
                notes = tuple(_notes(service, facts))
                moving.append(MovingService(key, facts.on_engine.get(key, 0), notes))
    for name in sorted(set(facts.data_moved) - known):
        problems.append(f"--data-moved {name}: there is no such service")
    names = frozenset(project.name for project in facts.projects)
    return MigrationPlan(names, tuple(moving), tuple(staying), tuple(problems))


def data_of(service: Service) -> list[Mount]:
    """Return the mounts whose content is on the host of the replica."""
    return [mount for mount in service.volumes if _is_local_data(mount)]


def _is_local_data(mount: Mount) -> bool:
    if mount.type == "bind":
        return not mount.version  # with one it is a secret or config, which the Swarm has
    if mount.type != "volume" or mount.volume_driver not in LOCAL:
        return False
    return (mount.volume_options or {}).get("type") not in REMOTE_TYPES


def _find_problems(
    key: str, project: Project, service: Service, facts: MigrationFacts
) -> list[str]:
    found = [f"{key}: {lack.text}" for lack in unsupported(service, facts.can) if lack.refuse]
    found += [f"{key}: {text}" for text in facts.files.get(key, ())]
    declared = {network.name: network for network in project.networks}
    found += [
        f"{key}: network {name} has the driver {declared[name].driver}, and the networks of a "
        "Swarm are overlays; remove the key"
        for name in service.networks
        if name in declared and declared[name].driver not in (*DRIVERS, "bridge")
    ]
    inside = [name in declared and declared[name].internal for name in service.networks]
    if inside and all(inside) and not service.plain:
        found.append(
            f"{key}: all its networks are internal, and in a Swarm the mesh reaches replicas "
            "through ports of their nodes; add a network that is not internal"
        )
    if key in facts.rolling:
        found.append(f"{key}: its rollout is not over; wait, or `meshd rollout undo` it")
    return found


def _why_it_stays(key: str, project: Project, service: Service, facts: MigrationFacts) -> str:
    """Return why a service stays on the engine; empty if it moves."""
    if key in facts.adopted:
        return "its containers were started by something else, which a Swarm cannot adopt"
    moved = service.name in facts.data_moved or key in facts.data_moved
    if (paths := facts.anonymous.get(key)) and not moved:
        return (
            f"the anonymous volume at {', '.join(paths)} is on {facts.node}, and a task in a Swarm "
            "gets a new one; give the service a named volume with its data, or leave it behind "
            f"with --data-moved {service.name}"
        )
    data = [mount for mount in data_of(service) if mount.source]
    if not data:
        return _why_its_ports_stay(service, facts)
    words = ", ".join(_describe(project.name, mount) for mount in data)
    node = next((c.removeprefix(PINNED) for c in map(_plain, service.constraints)
                 if c.startswith(PINNED)), "")  # fmt: skip
    if node == facts.node:
        return ""
    names = [volume_name(project.name, each) for each in data if each.type == "volume"]
    copies = "; ".join(f"meshd volume copy {name} HOST" for name in names if name)
    if not node:
        return (
            f"{words} is on {facts.node}; to move it within this host, add the constraint "
            f"{PINNED}{facts.node} and deploy; for another node add that of the other node, "
            f"`meshd scale {service.name}=0`, {copies or 'copy the directory there'}, then "
            f"repeat with --data-moved {service.name}"
        )
    if moved:
        return ""
    return (
        f"{words} is on {facts.node}, and it is to run on {node}: `meshd scale {service.name}=0`, "
        f"{copies or 'copy the directory there'}, then repeat with --data-moved {service.name}"
    )


def _why_its_ports_stay(service: Service, facts: MigrationFacts) -> str:
    """Return why a service whose ports are opened by an engine stays; empty if it moves. On another
    node, clients of this host would not find them."""
    ports = [str(port) for port in service.engine_ports if port.published]
    if not ports or service.constraints or not set(facts.nodes) - {facts.node}:
        return ""
    return (
        f"the engine publishes {', '.join(ports)} on {facts.node}, and in a Swarm only the node "
        f"that it runs on does; add the constraint {PINNED}{facts.node}, or another one, and deploy"
    )


def _plain(constraint: str) -> str:
    """Return a constraint without spaces."""
    return "".join(constraint.split())


def _describe(project: str, mount: Mount) -> str:
    if mount.type == "bind":
        return f"the directory {mount.source}"
    return f"volume {volume_name(project, mount)}"


def _notes(service: Service, facts: MigrationFacts) -> list[str]:
    """Return what the user should know about a service that moves."""
    notes = []
    others = [name for name in facts.nodes if name != facts.node]
    if service.image_id and not service.image_digest and others:
        notes.append(
            f"no registry has {service.image}: `meshd node load` it on {', '.join(others)}"
        )
    if service.update_order == "stop-first" and facts.on_engine:
        notes.append("its replicas stop before their successors start (order stop-first)")
    notes += [lack.text for lack in unsupported(service, facts.can) if not lack.refuse]
    return notes
