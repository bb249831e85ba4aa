"""Whether there is room for a job: on the nodes, and in its project's quota.

It takes what a replica of its service does. What could not be started on empty nodes is refused;
what has no place beside what runs now waits until it has one.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

from meshd.capacity import quota
from meshd.capacity.allocate import Demand, short, takes
from meshd.model.desired import DesiredService
from meshd.model.replica import Replica
from meshd.model.replica_phase import ALIVE
from meshd.model.runtime import Capabilities, Node
from meshd.spec.model import Project, Quota, Service
from meshd.store.store import Store
from meshd.telemetry.usage_sampler import UsageSampler


class JobDemand(NamedTuple):
    """A job, as what it takes: that of one replica of `service`."""

    id: str
    project: str
    service: Service


def want(job: JobDemand, limits_memory: bool) -> Demand:
    """A job as the room on the nodes is shared out: it is there, or it is not."""
    cpus, memory = takes(job.service, limits_memory)
    return Demand(job.id, 1, 1, cpus=cpus, memory=memory, what="a job")


def refused(job: JobDemand, bound: Quota | None, nodes: Sequence[Node], can: Capabilities) -> str:
    """Why a job could not even run alone; empty when it could. Pure."""
    limit, largest = job.service.resources.cpus, max((n.cpus for n in nodes), default=0.0)
    if nodes and can.cpu_limits and limit > largest:
        return (
            f"it may use {limit:g} CPUs, and the largest node has {largest:g}; lower "
            f"deploy.resources.limits.cpus of service {job.service.name}"
        )
    return lacking(job, [], [], bound, nodes, can)


def lacking(
    job: JobDemand,
    services: Sequence[tuple[DesiredService, int]],
    running: Sequence[JobDemand],
    bound: Quota | None,
    nodes: Sequence[Node],
    can: Capabilities,
) -> str:
    """Why a job has no place beside so many replicas of `services` and the `running` jobs; empty
    when it has one. Pure."""
    if bound is not None:
        own = [(s.spec, number) for s, number in services if s.project == job.project]
        jobs = of(job.project, [*running, job])
        if over := quota.refusals(bound.model_copy(update={"replicas": 0}), own, jobs):
            return "; ".join(over)
    if not nodes:
        return ""
    others = [want(each, can.memory_limits) for each in running]
    for service, number in services:
        cpus, memory = takes(service.spec, can.memory_limits)
        others.append(Demand(service.key, number, number, cpus=cpus, memory=memory))
    found = short(nodes, others, [want(job, can.memory_limits)])
    return found[1] if found else ""


def refusals(project: Project, nodes: Sequence[Node], can: Capabilities) -> list[str]:
    """Why what a project schedules could never be run; empty when it could. Pure."""
    found = []
    for service in project.services:
        job = JobDemand(f"scheduled {service.name}", project.name, service)
        if service.mesh.schedule and (why := refused(job, project.quota, nodes, can)):
            found.append(f"service {service.name}: a scheduled job cannot run: {why}")
    return found


def of(project: str, jobs: Sequence[JobDemand]) -> list[tuple[str, Service]]:
    """Those of a project, as its quota counts them. Pure."""
    return [(job.id, job.service) for job in jobs if job.project == project]


class JobAdmission:
    """The same of what is now: `services` are wanted, and `replicas` there."""

    def __init__(
        self,
        store: Store,
        meter: UsageSampler,
        can: Capabilities,
        services: Callable[[], Sequence[DesiredService]],
        replicas: Callable[[], Sequence[Replica]],
    ) -> None:
        self._store = store
        self._meter = meter
        self._can = can
        self._services = services
        self._replicas = replicas

    def refused(self, job: JobDemand) -> str:
        """Why it is not taken at all; empty when it is."""
        return refused(job, self._quota(job.project), self._meter.nodes, self._can)

    def lacking(self, job: JobDemand, running: Sequence[JobDemand]) -> str:
        """Why it has to wait beside those that run; empty when it need not."""
        alive = Counter(r.key for r in self._replicas() if r.phase in ALIVE)
        services = [(s, max(s.desired, alive[s.key])) for s in self._services()]
        bound = self._quota(job.project)
        return lacking(job, services, running, bound, self._meter.nodes, self._can)

    def _quota(self, project: str) -> Quota | None:
        stored = self._store.projects.get(project)
        return stored.project.quota if stored else None
