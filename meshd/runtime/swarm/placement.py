"""The node for a new replica, as Swarm would choose it for a task of a service with many. Pure.

`SwarmRuntime.start` asks. Each replica is a separate Swarm service, so that Swarm knows neither how
many replicas of a service a node has (`max_replicas_per_node`, `mode: global`) nor how they are
spread (`preferences`). What Swarm checks in addition, such as ports of the host, may rule the node
out; the replica then starts wherever Swarm finds a place within the limits.
"""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from meshd.model.placement import allowed_nodes, label_of
from meshd.model.runtime import Node
from meshd.spec.model import Service

ROUNDING: Final = 1e-9
"""Cores by which sums of CPU shares may be off as floating-point numbers."""


@dataclass(frozen=True, slots=True)
class NodeChoice:
    """Where a replica is placed.

    - `node`: its node; None: the Swarm chooses.
    - `full`: nodes that must not get one, because they have the most replicas that they may have.
    - `apart`: nodes that must not get one, because of a service that it is to be apart from.
    - `closed`: nodes that must not get one, because their proxy is missing or lost.
    - `reason`: why that node, for people; empty if the Swarm chooses, or if there is one node.
    """

    node: str | None = None
    full: tuple[str, ...] = ()
    apart: tuple[str, ...] = ()
    closed: tuple[str, ...] = ()
    reason: str = field(default="", compare=False)

    @property
    def excluded(self) -> tuple[str, ...]:
        """Nodes that must not get one."""
        return (*self.full, *self.apart, *self.closed)


def choose(
    service: Service,
    nodes: Sequence[Node],
    own: Mapping[str, int],
    tasks: Mapping[str, int],
    avoid: Collection[str] = (),
    apart: Collection[str] = (),
) -> NodeChoice:
    """Return where one more replica is placed.

    - `own`: replicas of the service by node, those that start included.
    - `tasks`: tasks of all services by node.
    - `avoid`: nodes without an answer.
    - `apart`: nodes with a replica of a service that it is to be apart from.
    """
    most = service.most_per_node
    closed = tuple(
        sorted(
            each.name
            for each in nodes
            if not service.plain and (not each.is_reachable or each.lost_proxy)
        )
    )
    full = tuple(sorted(name for name, count in own.items() if most and count >= most))
    cpus, memory = service.resources.reserved_cpus, service.resources.reserved_memory
    fitting = [
        node
        for node in allowed_nodes(service, nodes)
        if node.takes_replicas
        and node.name not in full
        and node.name not in apart
        and node.name not in closed
        and node.name not in avoid
        and node.cpus - node.reserved_cpus >= cpus - ROUNDING
        and node.memory - node.reserved_memory >= memory
    ]
    apart = tuple(sorted(apart))
    if not fitting:
        return NodeChoice(None, full, apart, closed)
    steps = [
        (f"fewest replicas by {label}", partial(_emptiest_group, label, own=own))
        for label in service.spread
    ]
    steps += [(text, partial(_least, key)) for text, key in _order(service, fitting, own, tasks)]
    reasons = ["the only node that fits"] if len(fitting) == 1 < len(nodes) else []
    for text, narrow in steps:
        left = narrow(fitting)
        if len(left) < len(fitting):
            reasons.append(text)
        fitting = left
    return NodeChoice(fitting[0].name, full, apart, closed, ", then ".join(reasons))


def _order(
    service: Service, nodes: Sequence[Node], own: Mapping[str, int], tasks: Mapping[str, int]
) -> Sequence[tuple[str, Callable[[Node], Any]]]:
    """Return what decides between nodes, in order: a text, and a key of which the least is best."""
    by_name = ("first by name among equals", lambda n: n.name)
    if service.mesh.placement.strategy == "pack":
        return (
            ("not busy", _is_busy),
            ("least room left", _free),
            ("most tasks", lambda n: -tasks.get(n.name, 0)),
            by_name,
        )
    busy = ", of which a busy node counts one more" if any(map(_is_busy, nodes)) else ""
    return (
        # A busy node counts as if it had one replica more: more would end the spread over nodes.
        (f"fewest replicas of the service{busy}", lambda n: own.get(n.name, 0) + _is_busy(n)),
        ("less busy", _load_step),
        ("fewest tasks", lambda n: tasks.get(n.name, 0)),
        by_name,
    )


def _least(key: Callable[[Node], Any], nodes: Sequence[Node]) -> list[Node]:
    """Return the nodes with the least key."""
    least = min(map(key, nodes))
    return [node for node in nodes if key(node) == least]


def _is_busy(node: Node) -> bool:
    return node.load is not None and node.load.is_busy


def _load_step(node: Node) -> int:
    """Return how busy a node is, in steps. One that reports nothing is like an idle one."""
    return node.load.step if node.load is not None else 0


def _free(node: Node) -> tuple[int, float]:
    """Return the bytes and cores that nothing reserves on a node."""
    return node.memory - node.reserved_memory, node.cpus - node.reserved_cpus


def _emptiest_group(label: str, nodes: Sequence[Node], own: Mapping[str, int]) -> list[Node]:
    """Return the nodes with the value of a label that the fewest replicas have."""
    counts = Counter({label_of(node, label): 0 for node in nodes})
    for node in nodes:
        counts[label_of(node, label)] += own.get(node.name, 0)
    least = min(counts, key=lambda value: (counts[value], value), default="")
    return [node for node in nodes if label_of(node, label) == least]


@dataclass(slots=True)
class PendingPlaces:
    """The nodes of replicas whose tasks are not listed yet, by replica. Starts run at the same
    time, and each has to know of the others."""

    nodes: dict[str, tuple[str, str]] = field(default_factory=dict)

    def nodes_of(self, services: Collection[str]) -> set[str]:
        """Return the nodes on which replicas of services (`PROJECT/NAME`) start."""
        return {node for key, node in self.nodes.values() if key.rpartition("/")[0] in services}

    def count(self, key: str, listed: Collection[str]) -> Counter[str]:
        """Return the number of replicas of a service by node that start, without the listed
        ones."""
        return Counter(
            node
            for name, (service, node) in self.nodes.items()
            if service == key and name not in listed
        )
