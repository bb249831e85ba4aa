"""Whether what a deployment needs at the least has a place on the nodes. Pure.

What counts of a replica is what it takes of a node (`room.takes`); of a service, its lowest
number, since the autoscaler is given no more than there is room for.
"""

from collections.abc import Mapping, Sequence

from meshd.capacity.allocate import GIB, Demand, short, takes
from meshd.model.desired import DesiredService
from meshd.model.runtime import Capabilities, Node


def least(service: DesiredService) -> int:
    """The replicas that a service has at any rate."""
    scale = service.spec.mesh.scale
    return min(service.desired, scale.min) if scale is not None else service.desired


def refusals(
    ours: Sequence[DesiredService],
    others: Sequence[DesiredService],
    more: Mapping[str, int],
    nodes: Sequence[Node],
    can: Capabilities,
    jobs: Sequence[Demand] = (),
) -> list[str]:
    """Why `ours` cannot all run beside the `others` and the `jobs` that run now, with the sum and
    the place; empty when they can. `more` is how many replicas beyond its number each service has
    on the way of its rollout; the jobs may have ended by then."""
    if not nodes:
        return []
    largest = max(node.cpus for node in nodes)
    found = [
        f"service {service.spec.name}: a replica may use {service.spec.resources.cpus:g} CPUs, "
        f"and the largest node has {largest:g}; lower deploy.resources.limits.cpus"
        for service in ours
        if can.cpu_limits and service.spec.resources.cpus > largest
    ]
    if found:
        return found
    theirs = [_want(service, 0, can) for service in others]
    lacking = short(nodes, [*theirs, *jobs], [_want(service, 0, can) for service in ours])
    if lacking:
        return [_told(lacking, ours, theirs, {}, nodes, can, jobs)]
    lacking = short(nodes, theirs, [_want(s, more.get(s.key, 0), can) for s in ours])
    if lacking:
        text = _told(lacking, ours, theirs, more, nodes, can)
        return [f"on the way of the rollout {text}; have it done with order: stop-first"]
    return []


def _want(service: DesiredService, more: int, can: Capabilities) -> Demand:
    cpus, memory = takes(service.spec, can.memory_limits)
    number = least(service) + more
    return Demand(service.key, number, number, 0, cpus, memory)


def _told(
    lacking: tuple[str, str],
    ours: Sequence[DesiredService],
    theirs: Sequence[Demand],
    more: Mapping[str, int],
    nodes: Sequence[Node],
    can: Capabilities,
    jobs: Sequence[Demand] = (),
) -> str:
    wants = [_want(service, more.get(service.key, 0), can) for service in ours]
    parts = ", ".join(
        f"{want.key.partition('/')[2]} {want.wanted} × {_size(want.cpus, want.memory)}"
        for want in wants
        if want.wanted and (want.cpus or want.memory)
    )
    where = f"node {nodes[0].name} has" if len(nodes) == 1 else f"{len(nodes)} nodes have"
    there = _size(sum(node.cpus for node in nodes), sum(node.memory for node in nodes))
    taken = _sum(theirs)
    beside = f", of which other projects take {taken}" if taken else ""
    if in_jobs := _sum(jobs):
        beside += (
            f" and jobs that run now {in_jobs}" if taken else f", of which jobs take {in_jobs}"
        )
    key, why = lacking
    return (
        f"the project takes {_sum(wants) or 'nothing'} ({parts}), and {where} {there}{beside}; "
        f"not all of {key} has a place, {why}"
    )


def _sum(wants: Sequence[Demand]) -> str:
    cpus = sum(want.wanted * want.cpus for want in wants)
    memory = sum(want.wanted * want.memory for want in wants)
    return _size(cpus, memory)


def _size(cpus: float, memory: int) -> str:
    parts = [f"{cpus:g} CPUs"] if cpus else []
    return " and ".join([*parts, f"{memory / GIB:.2f} GiB"] if memory else parts)
