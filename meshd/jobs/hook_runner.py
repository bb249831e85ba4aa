"""Hooks of rollouts as jobs: orders them, and tells how they stand."""

from collections.abc import Iterable
from typing import Final

import structlog

from meshd.jobs.manager import JobManager
from meshd.model.errors import NotFound, Rejected
from meshd.model.job import HookState, Job, JobOrder
from meshd.model.operation import RunHook

_log = structlog.stdlib.get_logger(__name__)
LINES: Final = 5
"""Last lines of a hook that failed, as they are told in a rollout's reason."""


class HookRunner:
    """The desk as rollouts see it."""

    def __init__(self, desk: JobManager) -> None:
        self._desk = desk

    def begin(self, hook: RunHook) -> None:
        """Order it, unless it was ordered before."""
        order = JobOrder(
            command=hook.command, timeout=hook.timeout, id=hook.id, revision=hook.revision
        )
        try:
            self._desk.begin(hook.project, hook.service, order, hook.cause, urgent=True)
        except (Rejected, NotFound) as error:
            _log.info("a hook waits", hook=hook.id, reason=str(error))

    def states(self, ids: Iterable[str]) -> dict[str, HookState]:
        """How those stand that were ordered."""
        known = {job.id: job for job in self._desk.jobs()}
        return {id: self._state(known[id]) for id in ids if id in known}

    def _state(self, job: Job) -> HookState:
        if not job.is_over:
            return HookState(is_over=False, text=f"{job.id} is {job.state}")
        if job.succeeded:
            return HookState(is_over=True, ok=True)
        how = job.text or (f"exit code {job.exit_code}" if job.exit_code is not None else job.state)
        lines = [line for line in self._desk.lines(job.id) if line.strip()][-LINES:]
        return HookState(is_over=True, text="; ".join([f"{job.id} failed: {how}", *lines]))
