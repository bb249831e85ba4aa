"""Whether a job fits on the nodes and into its project's quota.

`meshd.jobs` asks `JobAdmission` before it accepts and before it starts a job;
`meshd.control.deploy` checks scheduled jobs with `check_schedules`.

A job needs what a replica of its service needs. A job that would not fit on empty nodes is
rejected; one that does not fit next to what runs now waits until it does.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

from meshd.capacity import quota
from meshd.capacity.allocate import Demand, find_unplaced, reservation
from meshd.model.desired import DesiredService
from meshd.model.replica import Replica
from meshd.model.replica_phase import ALIVE
from meshd.model.runtime import Capabilities, Node
from meshd.spec.model import Project, Quota, Service
from meshd.store.store import Store
from meshd.telemetry.usage_sampler import UsageSampler


class JobDemand(NamedTuple):
    """What a job needs: as much as one replica of `service`."""

    id: str
    project: str
    service: Service


def demand_of(job: JobDemand, limits_memory: bool) -> Demand:
    """Return the demand of a job on the nodes: one, which is placed in any case. Pure."""
    cpus, memory = reservation(job.service, limits_memory)
    return Demand(job.id, 1, 1, cpus=cpus, memory=memory, unit="a job")


def find_rejection(
    job: JobDemand, limit: Quota | None, nodes: Sequence[Node], can: Capabilities
) -> str | None:
    """Return the reason that a job could not even run alone; None if it could. Pure."""
    cpus, largest = job.service.resources.cpus, max((n.cpus for n in nodes), default=0.0)
    if nodes and can.cpu_limits and cpus > largest:
        return (
            f"it may use {cpus:g} CPUs, but the largest node has {largest:g}; lower "
            f"deploy.resources.limits.cpus of service {job.service.name}"
        )
    return find_shortage(job, [], [], limit, nodes, can)


def find_shortage(
    job: JobDemand,
    services: Sequence[tuple[DesiredService, int]],
    running: Sequence[JobDemand],
    limit: Quota | None,
    nodes: Sequence[Node],
    can: Capabilities,
) -> str | None:
    """Return the reason that a job does not fit next to the `services` (with their numbers of
    replicas) and the `running` jobs; None if it fits. Pure."""
    if limit is not None:
        own = [(s.spec, count) for s, count in services if s.project == job.project]
        jobs = jobs_of(job.project, [*running, job])
        without_replicas = limit.model_copy(update={"replicas": 0})
        if problems := quota.check(without_replicas, own, jobs):
            return "; ".join(problems)
    if not nodes:
        return None
    others = [demand_of(each, can.memory_limits) for each in running]
    for service, count in services:
        cpus, memory = reservation(service.spec, can.memory_limits)
        others.append(Demand(service.key, count, count, cpus=cpus, memory=memory))
    unplaced = find_unplaced(nodes, others, [demand_of(job, can.memory_limits)])
    return unplaced[1] if unplaced else None


def check_schedules(project: Project, nodes: Sequence[Node], can: Capabilities) -> list[str]:
    """Return why scheduled jobs of a project could never run; empty if they could. Pure."""
    problems = []
    for service in project.services:
        job = JobDemand(f"scheduled {service.name}", project.name, service)
        if service.mesh.schedule and (reason := find_rejection(job, project.quota, nodes, can)):
            problems.append(f"service {service.name}: a scheduled job cannot run: {reason}")
    return problems


def jobs_of(project: str, jobs: Sequence[JobDemand]) -> list[tuple[str, Service]]:
    """Return the (id, service) of the jobs of a project, as `quota.check` takes them. Pure."""
    return [(job.id, job.service) for job in jobs if job.project == project]


class JobAdmission:
    """Checks jobs against the present `services` and `replicas`, the nodes and the quotas."""

    def __init__(
        self,
        store: Store,
        sampler: UsageSampler,
        can: Capabilities,
        services: Callable[[], Sequence[DesiredService]],
        replicas: Callable[[], Sequence[Replica]],
    ) -> None:
        self._store = store
        self._sampler = sampler
        self._can = can
        self._services = services
        self._replicas = replicas

    def find_rejection(self, job: JobDemand) -> str | None:
        """Return the reason that the job could never run; None if it could."""
        return find_rejection(job, self._quota(job.project), self._sampler.nodes, self._can)

    def find_shortage(self, job: JobDemand, running: Sequence[JobDemand]) -> str | None:
        """Return the reason that the job has to wait; None if it may start now."""
        alive = Counter(r.key for r in self._replicas() if r.phase in ALIVE)
        services = [(s, max(s.desired, alive[s.key])) for s in self._services()]
        limit = self._quota(job.project)
        return find_shortage(job, services, running, limit, self._sampler.nodes, self._can)

    def _quota(self, project: str) -> Quota | None:
        stored = self._store.projects.get(project)
        return stored.project.quota if stored else None
