"""Which replica moves next, so that each service is spread evenly over the nodes. Pure.

`meshd.control.nodes` asks after `meshd rebalance`, one replica at a time. A replica moves only if
its service starts the successor first: the number of ready replicas never falls.
"""

from collections import Counter
from collections.abc import Mapping, Sequence

from meshd.model.desired import DesiredService
from meshd.model.placement import allowed_nodes
from meshd.model.replica import Replica
from meshd.model.runtime import Node


def is_balanced_service(service: DesiredService) -> bool:
    """Whether replicas of a service may move: it starts successors first, has no volumes, and no
    rollout is under way."""
    volumes = any(each.type == "volume" and each.source for each in service.spec.volumes)
    return (
        not service.adopted
        and not service.spec.is_global
        and service.spec.mesh.placement.strategy == "spread"
        and not service.stops_first
        and not volumes
        and not service.rollout.is_unfinished
    )


def _nodes_to_avoid(service: DesiredService, replicas: Mapping[str, Sequence[Replica]]) -> set[str]:
    """Return the nodes with replicas of services that this one is to be apart from."""
    project = service.key.partition("/")[0]
    return {
        replica.node
        for name in service.spec.mesh.placement.apart_from
        for replica in replicas.get(f"{project}/{name}", ())
    }


def moving(replicas: Sequence[Replica]) -> bool:
    """Whether a replica is being replaced, or one does not serve yet."""
    return any(r.replaced_for or not r.serves or r.busy for r in replicas)


def next_move(
    services: Sequence[DesiredService],
    replicas: Mapping[str, Sequence[Replica]],
    nodes: Sequence[Node],
) -> tuple[Replica, Node] | None:
    """Return a replica to replace, and the node that has the fewest of its service; None if the
    services are spread evenly. `replicas` are by service key. A service whose fullest node has at
    least two replicas more than its emptiest one is not spread evenly; the youngest one moves."""
    active = [node for node in nodes if node.takes_replicas]
    for service in sorted(services, key=lambda each: each.key):
        group = replicas.get(service.key, ())
        if not is_balanced_service(service) or moving(group):
            continue
        apart = _nodes_to_avoid(service, replicas)
        allowed = [n for n in allowed_nodes(service.spec, active) if n.name not in apart]
        counts = Counter(replica.node for replica in group)
        if len(allowed) < 2:
            continue
        emptiest = min(allowed, key=lambda node: (counts[node.name], node.name))
        fullest = max(allowed, key=lambda node: (counts[node.name], node.name))
        if counts[fullest.name] - counts[emptiest.name] < 2:
            continue
        there = [replica for replica in group if replica.node == fullest.name and replica.managed]
        if there:
            return max(there, key=lambda replica: (replica.created_at, replica.name)), emptiest
    return None


def count_moves(
    services: Sequence[DesiredService],
    replicas: Mapping[str, Sequence[Replica]],
    nodes: Sequence[Node],
) -> int:
    """Return how many replicas have to move until all services are spread evenly."""
    active = [node for node in nodes if node.takes_replicas]
    moves = 0
    for service in services:
        if not is_balanced_service(service):
            continue
        apart = _nodes_to_avoid(service, replicas)
        allowed = [n for n in allowed_nodes(service.spec, active) if n.name not in apart]
        names = Counter({node.name: 0 for node in allowed})
        for replica in replicas.get(service.key, ()):
            if replica.node in names:
                names[replica.node] += 1
        if allowed:
            fair, more = divmod(sum(names.values()), len(allowed))
            ranked = sorted(names.values(), reverse=True)
            wanted = [fair + 1] * more + [fair] * (len(allowed) - more)
            moves += sum(max(0, n - w) for n, w in zip(ranked, wanted, strict=True))
    return moves
