"""Nodes and the constraints of Compose's `deploy.placement`. Pure.

Used by `meshd.capacity`, the reconciler, and the Swarm runtime, which chooses nodes. The syntax is
Swarm's: `node.hostname` is the name of a node, `node.labels.KEY` and `engine.labels.KEY` are labels
of it or its engine. Values are compared without case; a missing label is the empty value.
"""

from collections.abc import Iterable, Sequence

from meshd.model.runtime import Node
from meshd.spec.model import Service


def meets(node: Node, constraint: str) -> bool:
    """Return whether a node satisfies `NAME==VALUE` or `NAME!=VALUE`."""
    sign = "!=" if "!=" in constraint else "=="
    name, expected = (part.strip() for part in constraint.split(sign, 1))
    return (_value(node, name).lower() == expected.lower()) is (sign == "==")


def label_of(node: Node, name: str) -> str:
    """Return the value of `node.labels.KEY` or `engine.labels.KEY`; empty if the node has none."""
    return node.labels.get(name.split(".", 2)[2], "")


def _value(node: Node, name: str) -> str:
    match name:
        case "node.hostname":
            return node.name
        case "node.id":
            return node.id
        case "node.role":
            return "manager" if node.role == "leader" else node.role
        case "node.platform.os" | "node.platform.arch":
            system, _, machine = node.platform.partition("/")
            return system if name.endswith("os") else machine
    return label_of(node, name)


def allowed_nodes(service: Service, nodes: Sequence[Node]) -> list[Node]:
    """Return the nodes that satisfy all constraints of a service, and from which the mesh reaches
    it, if it is mesh-managed."""
    return [
        node
        for node in nodes
        if (service.plain or node.is_reachable)
        and all(meets(node, each) for each in service.constraints)
    ]


def describe_unreachable(nodes: Iterable[Node]) -> str:
    """Return which nodes get no mesh-managed services, why, and what to do; empty for none."""
    names = [node.name for node in nodes if not node.is_reachable]
    if not names:
        return ""
    have = "nodes {} have" if len(names) > 1 else "node {} has"
    return f"{have.format(', '.join(sorted(names)))} no proxy: run `meshd node join` there"


def count_global(service: Service, nodes: Sequence[Node]) -> int:
    """Return how many replicas a service with `mode: global` has on these nodes."""
    return sum(node.takes_replicas for node in allowed_nodes(service, nodes))
