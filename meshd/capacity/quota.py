"""What a project may have at most: CPUs, memory and replicas, whatever the nodes have. Pure.

What counts of a replica is what it may use: its limit, or its reservation where it has none.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from math import inf

from meshd.capacity.allocate import GIB, Allocation, Demand, share
from meshd.model.desired import DesiredService
from meshd.model.runtime import Node
from meshd.spec.model import Quota, Service


def uses(service: Service) -> tuple[float, int]:
    """Cores and bytes that one replica may use; 0 where nothing bounds them."""
    resources = service.resources
    cpus = resources.cpus or resources.reserved_cpus
    return cpus, resources.memory or resources.reserved_memory


def refusals(
    quota: Quota, services: Sequence[tuple[Service, int]], jobs: Sequence[tuple[str, Service]] = ()
) -> list[str]:
    """Why so many replicas of these services, beside `jobs` (their ids, and of which service), are
    more than the quota allows, with the sums; empty when they are not. A job is no replica."""
    found = [
        f"service {service.name}: quota.{word} is set, and its replicas have no {what}; "
        f"expected deploy.resources.limits.{word}"
        for service in (*(each for each, _ in services), *(each for _, each in jobs))
        for word, what, limit, part in (
            ("cpus", "CPU limit", quota.cpus, uses(service)[0]),
            ("memory", "memory limit", quota.memory, uses(service)[1]),
        )
        if limit and not part
    ]
    if found:
        return found
    parts = [*services, *((service, 1) for _, service in jobs)]
    cpus = sum(count * uses(service)[0] for service, count in parts)
    memory = sum(count * uses(service)[1] for service, count in parts)
    replicas = sum(count for _, count in services)
    names = [f"{count} × {service.name}" for service, count in services if count]
    told = ", ".join([*names, *(f"job {id}" for id, _ in jobs)])
    for limit, part, text in (
        (quota.cpus, cpus, f"{cpus:g} CPUs, and its quota is {quota.cpus or 0:g}"),
        (
            quota.memory,
            memory,
            f"{memory / GIB:.2f} GiB of memory, and its quota is {quota.memory / GIB:.2f}",
        ),
        (quota.replicas, replicas, f"{replicas} replicas, and its quota is {quota.replicas}"),
    ):
        if limit and part > limit + 1e-9:
            found.append(f"the project takes {text} ({told})")
    return found


def held(
    quotas: Mapping[str, Quota],
    services: Sequence[DesiredService],
    wants: Iterable[Demand],
    jobs: Sequence[tuple[str, float, int]] = (),
) -> dict[str, Allocation]:
    """What the quotas leave of what is wanted, by service key; those without one are left out.
    Within a project it is given out as the room on the nodes is. `jobs` run beside: the project,
    cores and bytes of each."""
    asked = {want.key: want for want in wants}
    grants: dict[str, Allocation] = {}
    for project, quota in quotas.items():
        ours = [s for s in services if s.project == project and s.key in asked]
        parts = [(asked[s.key], *uses(s.spec)) for s in ours]
        cpus, memory = quota.cpus or inf, quota.memory or inf
        by_part = share(
            [Node("quota", cpus, memory)],  # type: ignore[arg-type]  # without bounds is inf
            [
                *(replace(want, cpus=cpu, memory=bytes_) for want, cpu, bytes_ in parts),
                *(
                    Demand(f"job {number}", 1, 1, cpus=cpu, memory=bytes_)
                    for number, (name, cpu, bytes_) in enumerate(jobs)
                    if name == project
                ),
            ],
        )
        by_number = share(
            [Node("quota", quota.replicas or inf, 0)],
            [replace(want, cpus=1.0, memory=0) for want, _, _ in parts],
        )
        for want, _, _ in parts:
            least = min(by_part[want.key], by_number[want.key], key=lambda grant: grant.count)
            why = f"because of the quota of project {project} ({quota})"
            grants[want.key] = Allocation(least.count, why if least.why else "")
    return grants
