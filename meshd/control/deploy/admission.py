"""Checks that reject a deployment or an override before it changes anything.

Used by deployments and the control facade. The checks of capacity and quotas are in
`meshd.capacity` (pure).
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from meshd.capacity import admission, job_demand, placement, quota
from meshd.certificates.decide import find_route_hosts
from meshd.control.deploy.host_ports import find_taken_ports
from meshd.control.deploy.preview import Preview
from meshd.model.desired import DesiredService
from meshd.model.errors import Rejected
from meshd.model.runtime import Node
from meshd.publish.compile import route_conflicts
from meshd.publish.published_ports import HostPort, find_port_conflicts, list_host_ports
from meshd.reconcile.loop import Reconciler
from meshd.reconcile.rollout.stages import max_surge
from meshd.runtime.base import Runtime, RuntimeFailure
from meshd.runtime.support import refused_names, unsupported
from meshd.runtime.swarm.secrets import refused_files
from meshd.spec.fingerprint import compute_revision
from meshd.spec.model import Project, Service
from meshd.spec.model.base import MAX_REPLICAS
from meshd.store.store import Store

FIRST_PASS: Final = 10.0
"""Seconds that a check waits for the reconciler's first pass after the start of the daemon."""


class Admission:
    """Compares what is requested with what the runtime, the nodes and the quotas allow. `jobs`
    returns the demand of the jobs that run, `listening` the addresses that the proxy listens on.
    `orders_certificates`: whether the daemon has settings for that.

    `nodes` are those that took replicas at the last check.
    """

    def __init__(
        self,
        runtime: Runtime,
        store: Store,
        reconciler: Reconciler,
        preview: Preview,
        jobs: Callable[[], Sequence[job_demand.JobDemand]],
        listening: Callable[[], Iterable[str]],
        clock: Callable[[], float],
        orders_certificates: bool = True,
    ) -> None:
        self._runtime = runtime
        self._store = store
        self._reconciler = reconciler
        self._preview = preview
        self._jobs = jobs
        self._listening = listening
        self._clock = clock
        self._orders_certificates = orders_certificates
        self.nodes: Sequence[Node] = ()

    async def check(self, project: Project) -> None:
        """Raise Rejected if the project can never work here. Right after the start of the daemon,
        wait for the first pass."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FIRST_PASS):
                await self._reconciler.ready()
        view = self._reconciler.view()
        if not view.observed.available:
            raise Rejected(f"the {self._runtime.name} runtime does not answer; try again later")
        stored = self._store.projects.get(project.name)
        if stored is not None and stored.leaving:
            raise Rejected(f"project {project.name} is being taken down; try again once it is gone")
        problems = [
            str(feature)
            for service in project.services
            for feature in unsupported(service, self._runtime.capabilities)
            if feature.refuse
        ]
        problems += refused_names(project, self._runtime.capabilities)
        if self._runtime.capabilities.swarm:
            for service in project.services:
                files = await asyncio.to_thread(refused_files, service)
                problems += [f"service {service.name}: {each}" for each in files]
        nodes = self.nodes = await self._runtime.nodes()
        problems += self._capacity_problems(project, nodes)
        others = [each for each in view.projects if each.name != project.name]
        problems += route_conflicts([*others, project])
        if not self._orders_certificates:
            problems += [
                f"the route {host} has tls: auto, but this daemon orders no certificates; set "
                "x-mesh.tls.acme at the top level of the file, and start the daemon with it"
                for host in sorted(find_route_hosts(project.services))
            ]
        if self._runtime.capabilities.networks:
            problems += self._port_problems(project, others)
        if problems:
            raise Rejected("; ".join(problems))

    def _port_problems(self, project: Project, others: Sequence[Project]) -> list[str]:
        """Return why ports cannot be published on the host. Those that the mesh publishes already
        are not tried: it listens there. Nor are those that it chooses: it chooses another one."""
        problems = find_port_conflicts(project, others)
        stored = self._store.projects.get(project.name)
        before = list_host_ports([*([stored.project] if stored else []), *others])
        new = [
            port
            for port in list_host_ports([project])
            if not port.chosen and not any(port.is_at_place_of(old) for old in before)
        ]
        if problems or not self._runtime.is_local:
            return problems
        return [
            f"service {port.service.partition('/')[2]}: something on this host already listens on "
            f"port {port}; stop it, or publish another port"
            + (" (the mesh itself listens there: see --listen)" if self._is_ours(port) else "")
            for port in find_taken_ports(new)
        ]

    def _is_ours(self, port: HostPort) -> bool:
        """Whether the proxy listens on that port."""
        return any(address.endswith(f":{port.port}") for address in self._listening())

    async def missing_images(self, services: Sequence[Service], project: str) -> list[str]:
        """Return why images of these services cannot be had, a line for each service without one.
        Raises Rejected if the runtime does not answer."""
        found = []
        for service in services:
            try:
                reason = await self._runtime.unobtainable_reason(project, service)
            except RuntimeFailure as error:
                raise Rejected(str(error)) from error
            if reason is not None:
                found.append(f"service {service.name}: {reason}")
        return found

    async def shortage(self, service: DesiredService, replicas: int) -> str:
        """Return why the nodes do not have room for this number of replicas of a service next to
        all others; empty if they have."""
        try:
            nodes = await self._runtime.nodes()
        except RuntimeFailure:
            return ""
        can = self._runtime.capabilities
        jobs = [job_demand.demand_of(job, can.memory_limits) for job in self._jobs()]
        services = self._reconciler.view().desired.services
        others = [each for each in services if each.key != service.key]
        return admission.describe_shortage(service, replicas, others, nodes, can, jobs)

    def check_count(self, service: DesiredService, replicas: int) -> None:
        """Raise Rejected if a user may not set this number of replicas."""
        if not 0 <= replicas <= MAX_REPLICAS:
            name = service.spec.name
            raise Rejected(f"{replicas} replicas of {name}: expected 0 to {MAX_REPLICAS}")
        stored = self._store.projects.get(service.project)
        if stored is None or stored.project.quota is None:
            return
        desired = self._reconciler.view().desired.services
        services = [s for s in desired if s.project == service.project]
        others = [s for s in services if s.key != service.key]
        counts = [(service.spec, replicas), *((s.spec, admission.min_replicas(s)) for s in others)]
        jobs = job_demand.jobs_of(service.project, self._jobs())
        if problems := quota.check(stored.project.quota, counts, jobs):
            raise Rejected("; ".join(problems))

    def _capacity_problems(self, project: Project, nodes: Sequence[Node]) -> list[str]:
        """Return why the nodes or the quota do not allow what the project needs at least."""
        revisions = {service.name: compute_revision(service) for service in project.services}
        ours = self._preview.desired_services(project, revisions, self._clock())
        desired = self._reconciler.view().desired.services
        others = [s for s in desired if s.project != project.name]
        more = {s.key: max_surge(s) for s in ours if s.rollout.is_rolling}
        problems = [*placement.check(project.services, nodes, self._runtime.capabilities.swarm)]
        jobs, can = self._jobs(), self._runtime.capabilities
        demands = [job_demand.demand_of(job, can.memory_limits) for job in jobs]
        problems += admission.check(ours, others, more, nodes, can, demands)
        problems += job_demand.check_schedules(project, nodes, can)
        if project.quota is not None:
            counts = [(service.spec, admission.min_replicas(service)) for service in ours]
            problems += quota.check(project.quota, counts, job_demand.jobs_of(project.name, jobs))
        return problems
