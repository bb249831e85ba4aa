"""Which nodes a service may be on: Compose's `deploy.placement.constraints`. Pure.

The words are those of Swarm: a node goes by `node.hostname`, and by its engine's labels as
`node.labels.KEY` or `engine.labels.KEY`; values compare without regard to case, and a label that is
not there is the empty value.
"""

from collections.abc import Iterator, Sequence

from meshd.model.runtime import Node
from meshd.spec.model import Service


def meets(node: Node, constraint: str) -> bool:
    """Whether a node is as `NAME==VALUE` or `NAME!=VALUE` says."""
    sign = "!=" if "!=" in constraint else "=="
    name, value = (part.strip() for part in constraint.split(sign, 1))
    there = node.name if name == "node.hostname" else node.labels.get(name.split(".", 2)[2], "")
    return (there.lower() == value.lower()) is (sign == "==")


def refusals(services: Sequence[Service], nodes: Sequence[Node]) -> Iterator[str]:
    """A line for each service that no node may have."""
    for service in services:
        wanted = service.placement
        if nodes and not any(all(meets(node, each) for each in wanted) for node in nodes):
            yield (
                f"service {service.name}: no node meets deploy.placement.constraints "
                f"{', '.join(wanted)}; there is {', '.join(map(_described, nodes))}"
            )


def _described(node: Node) -> str:
    labels = ", ".join(f"{name}={value}" for name, value in sorted(node.labels.items()))
    return f"{node.name} ({f'labels {labels}' if labels else 'without labels'})"
