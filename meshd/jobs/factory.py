"""An order → the job that it makes: refused, known from before, or new and named."""

from collections.abc import Callable
from typing import Final

from meshd.model.errors import NotFound, Rejected
from meshd.model.job import Job, JobOrder
from meshd.model.replica import RandomSource
from meshd.store.jobs import JobLog
from meshd.store.store import Store

LIVE_AT_ONCE: Final = 256
_LETTERS: Final = "abcdefghijkmnpqrstuvwxyz23456789"


class JobFactory:
    """Reads orders; nothing of them is kept here."""

    def __init__(
        self, store: Store, log: JobLog, clock: Callable[[], float], dice: RandomSource
    ) -> None:
        self._store = store
        self._log = log
        self._clock = clock
        self._dice = dice

    def known(self, project: str, service: str, order: JobOrder) -> Job | None:
        """The job of an order that was given before. Raises Refused."""
        if order.command and not order.command[0]:
            raise Rejected("the command's first word is empty; expected a program")
        known = self._log.jobs.get(order.id)
        if known is not None and (known.project, known.service) != (project, service):
            raise Rejected(f"{order.id} is a job of {known.key}")
        return known

    def job(
        self,
        project: str,
        service: str,
        order: JobOrder,
        cause: str,
        schedule: str | None,
        urgent: bool,
    ) -> Job:
        """The job that a new order makes. Raises NoSuchThing, Refused."""
        stored = self._store.projects.get(project)
        if stored is None or service not in {each.name for each in stored.project.services}:
            raise NotFound(f"there is no service {project}/{service} that was deployed")
        if stored.leaving:
            raise Rejected(f"project {project} is being taken down")
        if sum(not job.is_over for job in self._log.jobs.values()) >= LIVE_AT_ONCE:
            raise Rejected(f"{LIVE_AT_ONCE} jobs are under way; try again once some have ended")
        rollout = self._store.rollouts[f"{project}/{service}"]
        return Job(
            id=order.id or self._name(project, service),
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

    def _name(self, project: str, service: str) -> str:
        while True:
            letters = "".join(_LETTERS[int(self._dice.random() * len(_LETTERS))] for _ in range(5))
            name = f"{project}-{service}-job-{letters}"
            if name not in self._log.jobs:
                return name
