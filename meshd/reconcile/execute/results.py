"""Records the results of operations, and keeps them until the view of the runtime shows them.

The executor reports to it through the reconciler. Each pass reads from it which replicas were just
started, which failures to count, and which operations are too recent to repeat.
"""

from collections.abc import Mapping, Sequence, Set
from typing import Final

import structlog

from meshd.discovery.watch import RuntimeWatcher
from meshd.model.event import Kind
from meshd.model.operation import (
    ForgetProject,
    Operation,
    PrepareRevision,
    ReadOutput,
    RemoveReplica,
    StartReplica,
    StopReplica,
)
from meshd.model.output import OutputLine
from meshd.model.replica import Replica, Version
from meshd.model.runtime import ObservedReplica, ReplicaState
from meshd.reconcile.execute.executor import OperationResult
from meshd.reconcile.execute.failure_log import FailureLog, FailureRecord
from meshd.reconcile.observe.memory import FailureReport, ReconcileMemory
from meshd.reconcile.observe.observe import describe_exit
from meshd.runtime.base import RuntimeFailure, RuntimeUnavailable
from meshd.store.events import EventLog
from meshd.store.output_archive import OutputArchive
from meshd.store.store import Store

_log = structlog.stdlib.get_logger(__name__)
SHOW_UP: Final = 15.0
"""Seconds that a started replica has to appear in the view before it counts as gone."""
REPEAT_AFTER: Final = 0.5
"""Seconds before the same operation is tried again: its effect may not be visible at once."""


class OperationResults:
    """Records results, and answers the questions that passes have about them."""

    def __init__(
        self,
        watch: RuntimeWatcher,
        store: Store,
        events: EventLog,
        failures: FailureLog,
        archive: OutputArchive,
    ) -> None:
        self._archive = archive
        self._watch = watch
        self._store = store
        self._events = events
        self._failures = failures
        self._started: dict[str, tuple[float, ObservedReplica]] = {}
        self._discarded: dict[str, float] = {}
        self._troubles: list[FailureReport] = []
        self._repeat_at: dict[tuple[str, str], float] = {}

    def merge_into(
        self, view: Mapping[str, ObservedReplica], now: float
    ) -> Mapping[str, ObservedReplica]:
        """Return the view plus the replicas that were just started and are not in it yet, without
        those whose start failed: they were removed, but the view may still have them."""
        self._discarded = {name: at for name, at in self._discarded.items() if at + SHOW_UP > now}
        if self._discarded.keys() & view.keys():
            view = {name: seen for name, seen in view.items() if name not in self._discarded}
        for name, (at, _) in list(self._started.items()):
            seen = view.get(name)
            if (seen and seen.state is not ReplicaState.CREATED) or at + SHOW_UP < now:
                del self._started[name]
        if not self._started:
            return view
        return {**view, **{name: replica for name, (_, replica) in self._started.items()}}

    def just_started(self) -> Set[str]:
        """Return the names of replicas that were started and are not in the view yet."""
        return self._started.keys()

    def take_troubles(self) -> tuple[FailureReport, ...]:
        """Return the failures since the last call."""
        troubles, self._troubles = tuple(self._troubles), []
        return troubles

    def is_recent(self, operation: Operation, now: float) -> bool:
        """Whether the same operation ended too recently to repeat it."""
        return self._repeat_at.get(_kind(operation), 0.0) > now

    def record(
        self, result: OperationResult, memory: ReconcileMemory, replica: Replica | None, now: float
    ) -> None:
        """Record the end of an operation. `replica` is the last observation of the one that was
        stopped or removed, or whose output was read."""
        operation, error = result.operation, result.error
        match operation:
            case StartReplica():
                if result.replica is not None:
                    self._started[operation.name] = (now, result.replica)
                    self._watch.list_soon()
                elif error is not None:
                    if not isinstance(error, RuntimeUnavailable):
                        self._discarded[operation.name] = now
                        self._watch.list_soon()
                    self._count_failure(operation, operation.name, error, operation.attempt, now)
            case PrepareRevision():
                if error is not None:
                    self._count_failure(operation, "", error, _attempt(operation, memory), now)
            case ReadOutput():
                if replica is not None and error is None:
                    self._keep_lines(replica, memory, tuple(result.lines))
                    self._failures.note_output(operation.name)
            case StopReplica() | RemoveReplica():
                self._started.pop(operation.name, None)
                self._watch.list_soon()
                if replica is not None and result.lines:
                    self._keep_lines(replica, memory, tuple(result.lines))
            case ForgetProject():
                stored = self._store.projects.get(operation.project)
                if error is None and stored is not None and stored.leaving:
                    self._store.forget(operation.project)
                    self._events.record(now, Kind.DOWN, "is down", project=operation.project)
        if result.hook_failure and replica is not None:
            self._events.record(
                now,
                Kind.HOOK_FAILED,
                f"pre_stop: {result.hook_failure}; it is stopped all the same",
                project=replica.project,
                service=replica.service,
                replica=replica.name,
            )
        if not isinstance(operation, StartReplica):
            self._delay_repeat(operation, now)
        if error is not None and not isinstance(operation, StartReplica | PrepareRevision):
            _log.warning("operation failed", operation=str(operation), error=str(error))

    def keep_output(self, replica: Replica, output: Sequence[OutputLine], now: float) -> None:
        """Keep the output of a replica that is removed, with a last line that says how it ended."""
        end = describe_exit(replica.exit_code, replica.oom_killed, replica.error)
        cause = f"; {replica.cause}" if replica.cause else ""
        last = OutputLine(replica.since, f"--- {replica.name} {end}{cause}")
        lines = [*output, last]
        self._archive.save(replica.project, replica.service, replica.name, now, lines)

    def _delay_repeat(self, operation: Operation, now: float) -> None:
        self._repeat_at = {kind: at for kind, at in self._repeat_at.items() if at > now}
        self._repeat_at[_kind(operation)] = now + REPEAT_AFTER

    def _count_failure(
        self,
        operation: StartReplica | PrepareRevision,
        name: str,
        error: RuntimeFailure,
        attempt: int,
        now: float,
    ) -> None:
        """Count a failed start or preparation. Not if the runtime is unavailable: that says
        nothing about the revision, and the next pass plans the operation again."""
        if isinstance(error, RuntimeUnavailable):
            return
        version = _version(operation)
        self._troubles.append(FailureReport(version, name, str(error), attempt))
        self._failures.keep(version, FailureRecord(name, str(error)))
        self._events.record(
            now,
            Kind.REPLICA_FAILED,
            str(error),
            project=operation.project,
            service=operation.service,
            replica=name,
        )

    def _keep_lines(
        self, replica: Replica, memory: ReconcileMemory, lines: tuple[str, ...]
    ) -> None:
        """Keep the last lines of output of a replica that failed."""
        version = (replica.key, replica.revision)
        failures = memory.failures.get(version, ())
        text = next((f.text for f in reversed(failures) if f.replica == replica.name), "")
        if text:
            self._failures.keep(version, FailureRecord(replica.name, text, lines))


def _kind(operation: Operation) -> tuple[str, str]:
    return type(operation).__name__, operation.subject


def _version(operation: StartReplica | PrepareRevision) -> Version:
    return f"{operation.project}/{operation.service}", operation.revision


def _attempt(prepare: PrepareRevision, memory: ReconcileMemory) -> int:
    return max((slot.attempt for slot in memory.slots.get(_version(prepare), ())), default=0)
