"""Hooks of rollouts as jobs: orders them, and tells how they stand."""

from collections.abc import Iterable
from typing import Final

import structlog

from meshd.api import jobs as words
from meshd.api.jobs import Job, JobOrder
from meshd.api.model import NoSuchThing, Refused
from meshd.jobs.desk import JobDesk
from meshd.reconcile.hooks import HookState
from meshd.reconcile.operation import Hook

_log = structlog.stdlib.get_logger(__name__)
LINES: Final = 5
"""Last lines of a hook that failed, as they are told in a rollout's reason."""


class Hooks:
    """The desk as rollouts see it."""

    def __init__(self, desk: JobDesk) -> None:
        self._desk = desk

    def begin(self, hook: Hook) -> None:
        """Order it, unless it was ordered before."""
        order = JobOrder(
            command=hook.command, timeout=hook.timeout, id=hook.id, revision=hook.revision
        )
        try:
            self._desk.begin(hook.project, hook.service, order, hook.cause, urgent=True)
        except (Refused, NoSuchThing) as error:
            _log.info("a hook waits", hook=hook.id, reason=str(error))

    def states(self, ids: Iterable[str]) -> dict[str, HookState]:
        """How those stand that were ordered."""
        known = {job.id: job for job in self._desk.jobs()}
        return {id: self._state(known[id]) for id in ids if id in known}

    def _state(self, job: Job) -> HookState:
        if not job.over:
            return HookState(over=False, text=f"{job.id} is {job.state}")
        if words.ended_well(job):
            return HookState(over=True, ok=True)
        how = job.text or (f"exit code {job.exit_code}" if job.exit_code is not None else job.state)
        lines = [line for line in self._desk.lines(job.id) if line.strip()][-LINES:]
        return HookState(over=True, text="; ".join([f"{job.id} failed: {how}", *lines]))
