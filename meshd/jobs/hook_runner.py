"""Runs the hooks of rollouts as jobs, and reports their states.

The reconciler calls it when a rollout reaches a hook. A hook's job does not wait for capacity.
"""

from collections.abc import Iterable
from typing import Final

import structlog

from meshd.jobs.factory import JobFactory
from meshd.jobs.table import JobTable
from meshd.model.errors import NotFound, Rejected
from meshd.model.job import HookState, Job, JobOrder, update_job
from meshd.model.operation import RunHook
from meshd.store.jobs import JobLog

_log = structlog.stdlib.get_logger(__name__)
LAST_LINES: Final = 5
"""Last lines of output of a failed hook that are part of the rollout's reason."""


class HookRunner:
    """Orders the jobs of hooks; a hook is found by the id of its job."""

    def __init__(self, factory: JobFactory, table: JobTable, log: JobLog) -> None:
        self._factory = factory
        self._table = table
        self._log = log

    def begin(self, hook: RunHook) -> None:
        """Order the hook's job, unless it was ordered before. If it cannot be ordered now, the
        next pass tries again."""
        order = JobOrder(
            command=hook.command, timeout=hook.timeout, id=hook.id, revision=hook.revision
        )
        try:
            if self._factory.find_existing(hook.project, hook.service, order) is None:
                job = self._factory.create(
                    hook.project, hook.service, order, hook.cause, schedule=None, urgent=True
                )
                job = update_job(job, pre_start=hook.pre_start)
                self._table.add(job)
        except (Rejected, NotFound) as error:
            _log.info("hook is not started yet", hook=hook.id, reason=str(error))

    def states(self, ids: Iterable[str]) -> dict[str, HookState]:
        """Return the states of those hooks that were ordered."""
        jobs = self._log.jobs
        return {id: self._state(jobs[id]) for id in ids if id in jobs}

    def _state(self, job: Job) -> HookState:
        if not job.is_over:
            return HookState(is_over=False, text=f"{job.id} is {job.state}")
        if job.succeeded:
            return HookState(is_over=True, ok=True)
        how = job.text or (f"exit code {job.exit_code}" if job.exit_code is not None else job.state)
        lines = [line for line in self._log.lines(job.id) if line.strip()][-LAST_LINES:]
        return HookState(is_over=True, text="; ".join([f"{job.id} failed: {how}", *lines]))
