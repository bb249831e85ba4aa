"""The most CPUs, memory and replicas of a project, whatever the nodes have. Pure.

`meshd.control.deploy` checks deployments, `meshd.scaling.limits` holds the autoscaler to it, and
`meshd.capacity.job_demand` checks jobs. A replica counts with its limit, or with its reservation if
it has no limit.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from math import inf

from meshd.capacity.allocate import GIB, ROUNDING, Allocation, Demand, allocate
from meshd.model.desired import DesiredService
from meshd.model.runtime import Node
from meshd.spec.model import Quota, Service


def usage_limit(service: Service) -> tuple[float, int]:
    """Return the (cores, bytes) that one replica may use; 0 if unlimited."""
    resources = service.resources
    cpus = resources.cpus or resources.reserved_cpus
    return cpus, resources.memory or resources.reserved_memory


def check(
    quota: Quota, services: Sequence[tuple[Service, int]], jobs: Sequence[tuple[str, Service]] = ()
) -> list[str]:
    """Return where the services (with their numbers of replicas) and the `jobs` (id, service)
    exceed the quota, with the sums; empty if they fit. A job is not a replica."""
    problems = [
        f"service {service.name}: quota.{key} is set, but its replicas have no {name}; "
        f"expected deploy.resources.limits.{key}"
        for service in (*(each for each, _ in services), *(each for _, each in jobs))
        for key, name, limit, used in (
            ("cpus", "CPU limit", quota.cpus, usage_limit(service)[0]),
            ("memory", "memory limit", quota.memory, usage_limit(service)[1]),
        )
        if limit and not used
    ]
    if problems:
        return problems
    parts = [*services, *((service, 1) for _, service in jobs)]
    cpus = sum(count * usage_limit(service)[0] for service, count in parts)
    memory = sum(count * usage_limit(service)[1] for service, count in parts)
    replicas = sum(count for _, count in services)
    names = [f"{count} × {service.name}" for service, count in services if count]
    listed = ", ".join([*names, *(f"job {id}" for id, _ in jobs)])
    for limit, used, text in (
        (quota.cpus, cpus, f"{cpus:g} CPUs, and its quota is {quota.cpus or 0:g}"),
        (
            quota.memory,
            memory,
            f"{memory / GIB:.2f} GiB of memory, and its quota is {quota.memory / GIB:.2f}",
        ),
        (quota.replicas, replicas, f"{replicas} replicas, and its quota is {quota.replicas}"),
    ):
        if limit and used > limit + ROUNDING:
            problems.append(f"the project needs {text} ({listed})")
    return problems


def allocate_by_quota(
    quotas: Mapping[str, Quota],
    services: Sequence[DesiredService],
    demands: Iterable[Demand],
    jobs: Sequence[tuple[str, float, int]] = (),
) -> dict[str, Allocation]:
    """Return what the `quotas` (by project) allow of each demand, by service key; services without
    a quota are left out.

    Within a project it is shared out as the nodes are. `jobs` are the (project, cores, bytes) of
    running jobs.
    """
    by_key = {demand.key: demand for demand in demands}
    allocations: dict[str, Allocation] = {}
    for project, quota in quotas.items():
        own = [s for s in services if s.project == project and s.key in by_key]
        parts = [(by_key[s.key], *usage_limit(s.spec)) for s in own]
        cpus, memory = quota.cpus or inf, quota.memory or inf
        by_resources = allocate(
            [Node("quota", cpus, memory)],  # type: ignore[arg-type]  # unlimited is inf
            [
                *(replace(demand, cpus=cpu, memory=bytes_) for demand, cpu, bytes_ in parts),
                *(
                    Demand(f"job {number}", 1, 1, cpus=cpu, memory=bytes_)
                    for number, (name, cpu, bytes_) in enumerate(jobs)
                    if name == project
                ),
            ],
        )
        by_number = allocate(
            [Node("quota", quota.replicas or inf, 0)],
            [replace(demand, cpus=1.0, memory=0) for demand, _, _ in parts],
        )
        for demand, _, _ in parts:
            both = by_resources[demand.key], by_number[demand.key]
            fewest = min(both, key=lambda each: each.count)
            reason = f"the quota of project {project} is {quota}" if fewest.reason else None
            allocations[demand.key] = Allocation(fewest.count, reason)
    return allocations
