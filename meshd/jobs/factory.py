"""Makes jobs from orders: checks an order, finds the job of a repeated one, names new ones.

Called by `manager` for users and schedules, and by `hook_runner` for rollouts.
"""

from collections.abc import Callable
from typing import Final

from meshd.model.errors import NotFound, Rejected
from meshd.model.job import Job, JobOrder
from meshd.model.replica import RandomSource
from meshd.store.jobs import JobLog
from meshd.store.store import Store

MOST_ACTIVE: Final = 256
"""Jobs that may be active at the same time; a limit on memory and on the length of a pass."""
_LETTERS: Final = "abcdefghijkmnpqrstuvwxyz23456789"
"""Letters of generated names, without those that look alike (l and 1, o and 0)."""


class JobFactory:
    """Makes jobs; keeps no state."""

    def __init__(
        self, store: Store, log: JobLog, clock: Callable[[], float], random: RandomSource
    ) -> None:
        self._store = store
        self._log = log
        self._clock = clock
        self._random = random

    def find_existing(self, project: str, service: str, order: JobOrder) -> Job | None:
        """Return the job of an order that was given before; None for a new order. Raises
        Rejected if the command is invalid or the id belongs to another service."""
        if order.command and not order.command[0]:
            raise Rejected("the command's first word is empty; expected a program")
        found = self._log.jobs.get(order.id)
        if found is not None and (found.project, found.service) != (project, service):
            raise Rejected(f"{order.id} is a job of {found.key}")
        return found

    def create(
        self,
        project: str,
        service: str,
        order: JobOrder,
        cause: str,
        schedule: str | None,
        urgent: bool,
    ) -> Job:
        """Return the job of a new order. Raises NotFound, Rejected."""
        stored = self._store.projects.get(project)
        if stored is None or service not in {each.name for each in stored.project.services}:
            raise NotFound(f"there is no deployed service {project}/{service}")
        if stored.leaving:
            raise Rejected(f"project {project} is being taken down")
        if sum(not job.is_over for job in self._log.jobs.values()) >= MOST_ACTIVE:
            raise Rejected(f"{MOST_ACTIVE} jobs are active; try again once some have ended")
        rollout = self._store.rollouts[f"{project}/{service}"]
        return Job(
            id=order.id or self._new_id(project, service),
            project=project,
            service=service,
            revision=order.revision or rollout.effective_revision,
            command=order.command,
            cause=cause,
            at=self._clock(),
            environment=order.environment,
            timeout=order.timeout,
            schedule=schedule,
            urgent=urgent,
        )

    def _new_id(self, project: str, service: str) -> str:
        while True:
            letters = [_LETTERS[int(self._random.random() * len(_LETTERS))] for _ in range(5)]
            id = f"{project}-{service}-job-{''.join(letters)}"
            if id not in self._log.jobs:
                return id
