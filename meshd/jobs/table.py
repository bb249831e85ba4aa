"""The jobs that are stored, and the job containers that the runtime showed last.

`manager` and `hook_runner` add and update jobs here. The reconciler reads from it which projects
and callers jobs keep busy. `meshd.store.jobs` is the storage behind it.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence

from meshd.model.errors import NotFound
from meshd.model.job import Job
from meshd.model.runtime import ObservedReplica
from meshd.store.jobs import JobLog
from meshd.store.store import Store


class JobTable:
    """All jobs that are known, active and ended. `changed` is set when there is a reason for a pass
    over them; `wake` makes the workers learn about a new caller."""

    def __init__(self, store: Store, log: JobLog, wake: Callable[[], None]) -> None:
        self.changed = asyncio.Event()
        self._store = store
        self._log = log
        self._wake = wake
        self._containers: Mapping[str, ObservedReplica] | None = None

    @property
    def containers(self) -> Mapping[str, ObservedReplica] | None:
        """The containers of jobs by name; None before the runtime was listed."""
        return self._containers

    def set_containers(self, containers: Mapping[str, ObservedReplica]) -> None:
        """Replace the view of the containers."""
        self._containers = containers

    def find(self, id: str) -> Job:
        """Return a job. Raises NotFound."""
        found = self._log.jobs.get(id)
        if found is None:
            raise NotFound(f"there is no job {id}")
        return found

    def jobs(self) -> Sequence[Job]:
        """Return all jobs that are stored, oldest first."""
        return tuple(self._log.jobs.values())

    def active(self) -> list[Job]:
        """Return the jobs that have not ended."""
        return [job for job in self._log.jobs.values() if not job.is_over]

    def add(self, job: Job) -> None:
        """Store a new job, and start it soon."""
        self._log.put(job)
        self.changed.set()
        self._wake()

    def callers(self) -> dict[str, str]:
        """Return the service as which each active job calls others, by job id."""
        return {job.id: job.key for job in self.active()}

    def addresses(self) -> dict[str, str]:
        """Return the service as which the container of each job calls others, by its addresses."""
        found = (self._containers or {}).values()
        return {address: f"{s.project}/{s.service}" for s in found for address in s.addresses}

    def working_projects(self) -> frozenset[str]:
        """Return the projects whose networks jobs may use; all projects while that is unknown."""
        if self._containers is None:
            return frozenset(self._store.projects)
        active = {job.project for job in self.active()}
        return frozenset(active | {seen.project for seen in self._containers.values()})
