"""What is refused before anything is changed for it."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from typing import Final

from meshd.capacity import admission, job_demand, placement, quota
from meshd.control.deploy.preview import Preview
from meshd.model.desired import DesiredService
from meshd.model.errors import Rejected
from meshd.model.runtime import Node
from meshd.publish.compile import route_conflicts
from meshd.reconcile.loop import Reconciler
from meshd.reconcile.rollout.stages import surge
from meshd.runtime.base import Runtime
from meshd.runtime.support import unsupported
from meshd.spec.fingerprint import compute_revision
from meshd.spec.model import Project
from meshd.spec.model.base import MAX_REPLICAS
from meshd.store.store import Store

FIRST_LOOK: Final = 10.0
"""Seconds that the first question waits for the runtime to be looked at for the first time."""


class Admission:
    """Holds what is asked for against what there is."""

    def __init__(
        self,
        runtime: Runtime,
        store: Store,
        loop: Reconciler,
        preview: Preview,
    ) -> None:
        self.burdens: Callable[[], Sequence[job_demand.JobDemand]] = list
        """The jobs that run, as what they take."""
        self._runtime = runtime
        self._store = store
        self._loop = loop
        self._preview = preview

    async def check(self, project: Project) -> None:
        """Raises Refused for what could never work here. A moment after the start, waits until
        the runtime was looked at for the first time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FIRST_LOOK):
                await self._loop.began.wait()
        if not self._loop.observed.available:
            raise Rejected(f"the {self._runtime.name} runtime does not answer; try again later")
        stored = self._store.projects.get(project.name)
        if stored is not None and stored.leaving:
            raise Rejected(f"project {project.name} is being taken down; try again once it is gone")
        problems = [
            str(lack)
            for service in project.services
            for lack in unsupported(service, self._runtime.capabilities)
            if lack.refuse
        ]
        served = self._loop.wanted.effective_projects()
        nodes = await self._runtime.nodes()
        problems += self._unfit(project, nodes)
        problems += route_conflicts([*(p for p in served if p.name != project.name), project])
        if problems:
            raise Rejected("; ".join(problems))

    def check_count(self, found: DesiredService, replicas: int) -> None:
        """Whether a service may have so many replicas by hand. Raises Refused."""
        if not 0 <= replicas <= MAX_REPLICAS:
            name = found.spec.name
            raise Rejected(f"{replicas} replicas of {name}: expected 0 to {MAX_REPLICAS}")
        stored = self._store.projects.get(found.project)
        if stored is None or stored.project.quota is None:
            return
        services = [s for s in self._loop.desired.services if s.project == found.project]
        others = [s for s in services if s.key != found.key]
        counts = [(found.spec, replicas), *((s.spec, admission.least(s)) for s in others)]
        jobs = job_demand.of(found.project, self.burdens())
        if problems := quota.refusals(stored.project.quota, counts, jobs):
            raise Rejected("; ".join(problems))

    def _unfit(self, project: Project, nodes: Sequence[Node]) -> list[str]:
        """Why the project cannot have what it needs at the least, on the nodes or by its quota."""
        revisions = {service.name: compute_revision(service) for service in project.services}
        ours = self._preview.wanted(project, revisions, time.time())
        others = [s for s in self._loop.desired.services if s.project != project.name]
        more = {s.key: surge(s) for s in ours if s.rollout.is_rolling}
        problems = [*placement.refusals(project.services, nodes)]
        jobs, can = self.burdens(), self._runtime.capabilities
        wants = [job_demand.want(job, can.memory_limits) for job in jobs]
        problems += admission.refusals(ours, others, more, nodes, can, wants)
        problems += job_demand.refusals(project, nodes, can)
        if project.quota is not None:
            counts = [(service.spec, admission.least(service)) for service in ours]
            problems += quota.refusals(project.quota, counts, job_demand.of(project.name, jobs))
        return problems
