"""On which nodes a service may run: Compose's `deploy.placement`. Pure.

`meshd.control.deploy` checks every deployment with it.
`meshd.model.placement` compares nodes with constraints.
"""

from collections.abc import Sequence

from meshd.model.placement import describe_unreachable, meets
from meshd.model.runtime import Node
from meshd.spec.model import Service


def check(services: Sequence[Service], nodes: Sequence[Node], swarm: bool = False) -> list[str]:
    """Return a line for each service without a node for all its replicas; empty if each has one, or
    if no node is known. Only a Swarm checks what only a Swarm has."""
    problems = []
    for service in services if nodes else ():
        wanted = service.constraints if swarm else service.placement
        meeting = [node for node in nodes if all(meets(node, each) for each in wanted)]
        allowed = [node for node in meeting if service.plain or node.is_reachable]
        most = service.most_per_node * len(allowed)
        if meeting and not allowed:
            problems.append(f"service {service.name}: {describe_unreachable(meeting)}")
        elif not allowed:
            problems.append(
                f"service {service.name}: no node meets deploy.placement.constraints "
                f"{', '.join(wanted)}; the nodes are {', '.join(map(_describe, nodes))}"
            )
        elif swarm and most and not service.is_global and service.replicas > most:
            names = ", ".join(node.name for node in allowed)
            problems.append(
                f"service {service.name}: deploy.placement.max_replicas_per_node: "
                f"{service.max_per_node} allows {most} replicas on {names}, and deploy.replicas is "
                f"{service.replicas}"
            )
    return problems


def _describe(node: Node) -> str:
    labels = ", ".join(f"{name}={value}" for name, value in sorted(node.labels.items()))
    return f"{node.name} ({f'labels {labels}' if labels else 'no labels'})"
