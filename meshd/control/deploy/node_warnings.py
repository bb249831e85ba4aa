"""What leaves a node of a Swarm in clear text, or cannot leave it, as lines for `meshd up`. Pure.

`Deployments` and `ProgressTracker` add them to what the runtime does not support.
"""

from collections.abc import Iterator, Sequence

from meshd.model.placement import describe_unreachable
from meshd.model.runtime import Node
from meshd.spec.model import Project

DEFAULT_NETWORK = "default"
"""The network of services that name none."""


def find_node_warnings(project: Project, nodes: Sequence[Node]) -> tuple[str, ...]:
    """Return a line for each; empty if the project has no mesh-managed services, or there is one
    node."""
    if len(nodes) < 2 or all(service.plain for service in project.services):
        return ()
    return tuple(_find(project, nodes))


def _find(project: Project, nodes: Sequence[Node]) -> Iterator[str]:
    unreachable = describe_unreachable(nodes)
    if unreachable:
        yield f"{unreachable}; mesh-managed services are not placed there without one"
    clear = describe_clear_text(nodes)
    if clear:
        yield clear
    used = {
        name
        for service in project.services
        if not service.plain
        for name in service.networks or (DEFAULT_NETWORK,)
    }
    declared = {each.name: each for each in project.networks}
    open_networks = sorted(
        name
        for name in used
        if name not in declared
        or not (declared[name].external or "encrypted" in declared[name].driver_opts)
    )
    if open_networks:
        plural = "networks {} are" if len(open_networks) > 1 else "network {} is"
        yield (
            f"{plural.format(', '.join(open_networks))} not encrypted: calls by name "
            "(http://NAME) leave a node in clear text; calls by MESH_URL_NAME do not. Encrypt with "
            'driver_opts: {encrypted: ""}'
        )


def describe_clear_text(nodes: Sequence[Node]) -> str:
    """Return to and from which nodes calls are in clear text, because that is allowed; empty for
    none."""
    names = sorted(each.name for each in nodes if not each.has_proxy and not each.needs_proxy)
    if not names:
        return ""
    return (
        f"calls to and from {', '.join(names)} are in clear text (--allow-clear-text): run `meshd "
        "node join` there"
    )
