"""Whether the replicas of a node have a place on the other nodes, and the next step of a drain.
Pure.

`meshd.control.nodes` asks. Replicas count with what they reserve (`deploy.resources.reservations`),
because a Swarm places them by that.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from meshd.capacity.allocate import GIB, ROUNDING
from meshd.model.desired import DesiredService
from meshd.model.placement import allowed_nodes, describe_unreachable
from meshd.model.replica import Replica
from meshd.model.replica_phase import ALIVE, ENDED
from meshd.model.runtime import Availability, Node


class DrainAction(StrEnum):
    """What to do about a node that meshd drains.

    - WAIT: replacements start, or replicas finish their requests.
    - FINISH: no replica is left; the runtime may end the rest.
    - GIVE_UP: its time is over; the replicas that are left stay.
    """

    WAIT = "wait"
    FINISH = "finish"
    GIVE_UP = "give up"


def next_action(node: Node, left: int, now: float) -> DrainAction:
    """Return what to do about a node that is being drained; `left` replicas and jobs run on it."""
    if not left:
        return DrainAction.FINISH
    return DrainAction.GIVE_UP if now >= node.drain_until else DrainAction.WAIT


def replicas_on(node: str, replicas: Iterable[Replica]) -> list[Replica]:
    """Return the replicas that meshd started on a node and that have not ended."""
    return [r for r in replicas if r.node == node and r.managed and r.phase not in ENDED]


def to_replace(replicas: Iterable[Replica]) -> list[Replica]:
    """Return those that stay unless they are marked for replacement."""
    return [r for r in replicas if r.phase in ALIVE and not r.replaced_for]


@dataclass(slots=True)
class _Room:
    """What is free on a node."""

    node: Node
    cpus: float
    memory: int


def find_obstacles(
    node: Node,
    nodes: Sequence[Node],
    leaving: Sequence[Replica],
    services: Mapping[str, DesiredService],
    force: bool = False,
    staying: Iterable[Replica] = (),
) -> list[str]:
    """Return why the `leaving` replicas of a node cannot move to the other `nodes`, one line for
    each service; empty if they can. `services` are by key; `staying` are replicas on other nodes.
    With `force`, volumes are left behind. The largest replicas are placed first, which leaves the
    least space unused."""
    others = [each for each in nodes if each.name != node.name]
    rooms = [
        _Room(each, each.cpus - each.reserved_cpus, each.memory - each.reserved_memory)
        for each in others
        if each.takes_replicas
    ]
    if leaving and not rooms:
        words = ", ".join(f"{each.name} is {describe_state(each)}" for each in others)
        return [f"no other node takes replicas ({words or 'it is the only one'})"]
    found: dict[str, str] = {}
    at: dict[str, set[str]] = {}
    for each in staying:
        if each.phase not in ENDED:
            at.setdefault(each.key, set()).add(each.node)
    for replica in sorted(leaving, key=lambda each: _size(services.get(each.key))):
        service = services.get(replica.key)
        if service is None or replica.phase not in ALIVE or replica.key in found:
            continue
        apart = {
            name: at.get(f"{replica.project}/{name}", set())
            for name in service.spec.mesh.placement.apart_from
        }
        problem = _find_problem(service, node, rooms, force, apart)
        if problem:
            found[replica.key] = f"{replica.key}: {problem}"
    return [found[key] for key in sorted(found)]


def describe_state(node: Node) -> str:
    """Return why a node takes no replicas, in one word; `active` if it takes them."""
    if node.state != "ready":
        return node.state
    words = {Availability.PAUSE: "cordoned", Availability.DRAIN: "drained"}
    return words.get(node.availability, "active")


def _find_problem(
    service: DesiredService,
    node: Node,
    rooms: Sequence[_Room],
    force: bool,
    apart: Mapping[str, set[str]],
) -> str | None:
    """Take the place of one replica from `rooms`; return why there is none. `apart` are the nodes
    of the services that it is to be apart from, by name."""
    spec = service.spec
    if service.rollout.is_paused:
        return f"its rollout is paused; `meshd rollout resume {spec.name}` or undo it first"
    volumes = [each.source for each in spec.volumes if each.type == "volume" and each.source]
    if volumes and not force:
        return (
            f"volume {', '.join(volumes)} is on {node.name}, and a replica elsewhere gets an empty "
            "one; move the data first, or leave it behind with --force"
        )
    if spec.is_global:
        return None  # it has one on each of the other nodes already
    names = {node.name for node in allowed_nodes(spec, [room.node for room in rooms])}
    fitting = [room for room in rooms if room.node.name in names]
    if not fitting and not spec.plain and not any(room.node.is_reachable for room in rooms):
        return f"no other node can take it: {describe_unreachable(room.node for room in rooms)}"
    if not fitting:
        return f"no other node meets deploy.placement.constraints {', '.join(spec.constraints)}"
    taken = set().union(*apart.values())
    fitting = [room for room in fitting if room.node.name not in taken]
    if not fitting:
        others = ", ".join(name for name, nodes in apart.items() if nodes & names)
        return (
            f"x-mesh.placement keeps it apart from {others}, which is on "
            f"{', '.join(sorted(taken & names))}"
        )
    names -= taken
    if spec.max_per_node and service.desired > spec.max_per_node * len(fitting):
        return (
            f"deploy.placement.max_replicas_per_node: {spec.max_per_node} allows "
            f"{spec.max_per_node * len(fitting)} replicas on {', '.join(sorted(names))}, and it "
            f"has {service.desired}"
        )
    cpus, memory = spec.resources.reserved_cpus, spec.resources.reserved_memory
    free = [room for room in fitting if room.cpus >= cpus - ROUNDING and room.memory >= memory]
    if not free:
        most = max(fitting, key=lambda room: (room.memory, room.cpus))
        return (
            f"a replica reserves {cpus:g} CPUs and {memory / GIB:.2f} GiB, and {most.node.name}, "
            f"the emptiest node for it, has {max(0.0, most.cpus):g} and "
            f"{max(0, most.memory) / GIB:.2f} GiB free"
        )
    chosen = max(free, key=lambda room: (room.memory, room.cpus))
    chosen.cpus -= cpus
    chosen.memory -= memory
    return None


def _size(service: DesiredService | None) -> tuple[float, float]:
    """Sort key: the largest first."""
    if service is None:
        return 0.0, 0.0
    resources = service.spec.resources
    return -float(resources.reserved_memory), -resources.reserved_cpus
