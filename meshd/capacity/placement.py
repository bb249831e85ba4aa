"""On which nodes a service may run: Compose's `deploy.placement.constraints`. Pure.

`meshd.control.deploy` checks every deployment with it. The syntax is Swarm's: `node.hostname` is
the name of a node, `node.labels.KEY` and `engine.labels.KEY` are labels of its engine. Values are
compared without case; a missing label is the empty value.
"""

from collections.abc import Sequence

from meshd.model.runtime import Node
from meshd.spec.model import Service


def meets(node: Node, constraint: str) -> bool:
    """Return whether a node satisfies `NAME==VALUE` or `NAME!=VALUE`."""
    sign = "!=" if "!=" in constraint else "=="
    name, expected = (part.strip() for part in constraint.split(sign, 1))
    actual = node.name if name == "node.hostname" else node.labels.get(name.split(".", 2)[2], "")
    return (actual.lower() == expected.lower()) is (sign == "==")


def check(services: Sequence[Service], nodes: Sequence[Node]) -> list[str]:
    """Return a line for each service whose constraints no node meets; empty if every service has a
    node, or if no node is known."""
    return [
        f"service {service.name}: no node meets deploy.placement.constraints "
        f"{', '.join(service.placement)}; the nodes are {', '.join(map(_describe, nodes))}"
        for service in services
        if nodes and not any(all(meets(node, each) for each in service.placement) for node in nodes)
    ]


def _describe(node: Node) -> str:
    labels = ", ".join(f"{name}={value}" for name, value in sorted(node.labels.items()))
    return f"{node.name} ({f'labels {labels}' if labels else 'no labels'})"
