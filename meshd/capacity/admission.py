"""Whether the minimum of a deployment fits on the nodes. Pure.

`meshd.control.deploy` calls `check` before anything is changed. A replica counts with what it needs
of a node (`allocate.reservation`), a service with its minimum, because the autoscaler only gets
what fits.
"""

from collections.abc import Mapping, Sequence

from meshd.capacity.allocate import GIB, Demand, allocate, find_unplaced, reservation
from meshd.model.desired import DesiredService
from meshd.model.runtime import Capabilities, Node


def min_replicas(service: DesiredService) -> int:
    """Return the lowest number of replicas that a service may have."""
    scale = service.spec.mesh.scale
    return min(service.desired, scale.min) if scale is not None else service.desired


def check(
    own: Sequence[DesiredService],
    others: Sequence[DesiredService],
    surge: Mapping[str, int],
    nodes: Sequence[Node],
    can: Capabilities,
    jobs: Sequence[Demand] = (),
) -> list[str]:
    """Return why the `own` services cannot all run in addition to the `others` and the running
    `jobs`, with the sums; empty if they can.

    `surge` is the number of additional replicas of each service during its rollout, by key. By
    then the jobs may have ended, so they do not count for it.
    """
    if not nodes:
        return []
    largest = max(node.cpus for node in nodes)
    problems = [
        f"service {service.spec.name}: a replica may use {service.spec.resources.cpus:g} CPUs, "
        f"but the largest node has {largest:g}; lower deploy.resources.limits.cpus"
        for service in own
        if can.cpu_limits and service.spec.resources.cpus > largest
    ]
    if problems:
        return problems
    other_demands = [_demand(service, 0, can) for service in others]
    own_demands = [_demand(service, 0, can) for service in own]
    unplaced = find_unplaced(nodes, [*other_demands, *jobs], own_demands)
    if unplaced:
        return [_explain(unplaced, own_demands, other_demands, nodes, jobs)]
    own_demands = [_demand(service, surge.get(service.key, 0), can) for service in own]
    unplaced = find_unplaced(nodes, other_demands, own_demands)
    if unplaced:
        text = _explain(unplaced, own_demands, other_demands, nodes)
        return [f"during the rollout {text}; use order: stop-first to avoid this"]
    return []


def describe_shortage(
    service: DesiredService,
    replicas: int,
    others: Sequence[DesiredService],
    nodes: Sequence[Node],
    can: Capabilities,
    jobs: Sequence[Demand] = (),
) -> str:
    """Return why the nodes do not have room for this number of replicas of a service next to the
    `others` and the running `jobs`; empty if they have."""
    demands = [*jobs]
    for each in others:
        count = each.desired + each.warm
        demands.append(
            Demand(each.key, count, count, 0, *reservation(each.spec, can.memory_limits))
        )
    size = reservation(service.spec, can.memory_limits)
    demands.append(Demand(service.key, replicas + service.warm, 0, 0, *size))
    found = allocate(nodes, demands)[service.key]
    room = max(0, found.count - service.warm)
    if found.reason is None or room >= replicas:
        return ""
    return f"the nodes have room for {room} only: {found.reason}"


def _demand(service: DesiredService, surge: int, can: Capabilities) -> Demand:
    cpus, memory = reservation(service.spec, can.memory_limits)
    count = min_replicas(service) + surge
    return Demand(service.key, count, count, 0, cpus, memory)


def _explain(
    unplaced: tuple[str, str],
    own: Sequence[Demand],
    others: Sequence[Demand],
    nodes: Sequence[Node],
    jobs: Sequence[Demand] = (),
) -> str:
    parts = ", ".join(
        f"{demand.key.partition('/')[2]} {demand.desired} × {_size(demand.cpus, demand.memory)}"
        for demand in own
        if demand.desired and (demand.cpus or demand.memory)
    )
    where = f"node {nodes[0].name} has" if len(nodes) == 1 else f"{len(nodes)} nodes have"
    total = _size(sum(node.cpus for node in nodes), sum(node.memory for node in nodes))
    taken, by_jobs = _sum(others), _sum(jobs)
    used = f", of which other projects use {taken}" if taken else ""
    if by_jobs:
        used += (
            f" and running jobs {by_jobs}" if taken else f", of which running jobs use {by_jobs}"
        )
    key, reason = unplaced
    return (
        f"the project needs {_sum(own) or 'nothing'} ({parts}), and {where} {total}{used}; "
        f"not all replicas of {key} fit: {reason}"
    )


def _sum(demands: Sequence[Demand]) -> str:
    cpus = sum(demand.desired * demand.cpus for demand in demands)
    memory = sum(demand.desired * demand.memory for demand in demands)
    return _size(cpus, memory)


def _size(cpus: float, memory: int) -> str:
    parts = [f"{cpus:g} CPUs"] if cpus else []
    return " and ".join([*parts, f"{memory / GIB:.2f} GiB"] if memory else parts)
