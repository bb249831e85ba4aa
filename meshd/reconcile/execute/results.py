"""What came of operations on the runtime, kept until the view of it shows that."""

from collections.abc import Mapping, Set
from typing import Final

import structlog

from meshd.discovery.watch import RuntimeWatcher
from meshd.model.event import Kind
from meshd.model.operation import (
    Forget,
    Operation,
    Prepare,
    RemoveReplica,
    StartReplica,
    StopReplica,
)
from meshd.model.replica import Replica, Version
from meshd.model.runtime import ObservedReplica, ReplicaState
from meshd.publish.gateways import Gateways
from meshd.reconcile.execute.executor import OperationResult
from meshd.reconcile.execute.failure_log import FailureLog, FailureRecord
from meshd.reconcile.observe.memory import ReconcileMemory, Trouble
from meshd.runtime.base import RuntimeFailure, RuntimeUnavailable
from meshd.store.events import EventLog
from meshd.store.store import Store

_log = structlog.stdlib.get_logger(__name__)
LANDING: Final = 15.0
"""Seconds in which a replica that was started has to show up in the view."""
REST: Final = 0.5
"""Seconds before the same operation is tried again: what it did may not show at once."""


class OperationResults:
    """Takes the executor's results, and answers what passes ask of them."""

    def __init__(
        self,
        watch: RuntimeWatcher,
        store: Store,
        events: EventLog,
        gateways: Gateways,
        remains: FailureLog,
    ) -> None:
        self._watch = watch
        self._store = store
        self._events = events
        self._gateways = gateways
        self._remains = remains
        self._landed: dict[str, tuple[float, ObservedReplica]] = {}
        self._troubles: list[Trouble] = []
        self._resting: dict[tuple[str, str], float] = {}

    def beside(
        self, view: Mapping[str, ObservedReplica], now: float
    ) -> Mapping[str, ObservedReplica]:
        """The view, with what was just started and is not in it yet."""
        for name, (at, _) in list(self._landed.items()):
            seen = view.get(name)
            if (seen and seen.state is not ReplicaState.CREATED) or at + LANDING < now:
                del self._landed[name]
        if not self._landed:
            return view
        return {**view, **{name: replica for name, (_, replica) in self._landed.items()}}

    def landed(self) -> Set[str]:
        """The replicas that were started and are not in the view yet."""
        return self._landed.keys()

    def troubles(self) -> tuple[Trouble, ...]:
        """The failures since this was asked last."""
        troubles, self._troubles = tuple(self._troubles), []
        return troubles

    def resting(self, operation: Operation, now: float) -> bool:
        """Whether the same was done just now."""
        return self._resting.get(_kind(operation), 0.0) > now

    def take(
        self, result: OperationResult, memory: ReconcileMemory, replica: Replica | None, now: float
    ) -> None:
        """An operation ended. `replica` is the one that was stopped or removed, as it was last."""
        operation, error = result.operation, result.error
        match operation:
            case StartReplica():
                if result.replica is not None:
                    self._landed[operation.name] = (now, result.replica)
                    self._watch.list_soon()
                elif error is not None:
                    self._failed(operation, operation.name, error, operation.attempt, now)
            case Prepare():
                if error is not None:
                    self._failed(operation, "", error, _attempt(operation, memory), now)
            case StopReplica() | RemoveReplica():
                self._landed.pop(operation.name, None)
                self._watch.list_soon()
                if replica is not None and result.lines:
                    self._keep(replica, memory, tuple(result.lines))
            case Forget():
                if error is None:
                    self._store.forget(operation.project)
                    self._gateways.forget(operation.project)
                    self._events.record(now, Kind.DOWN, "is down", project=operation.project)
        if not isinstance(operation, StartReplica):
            self._rest(operation, now)
        if error is not None and not isinstance(operation, StartReplica | Prepare):
            _log.warning("an operation failed", operation=str(operation), error=str(error))

    def _rest(self, operation: Operation, now: float) -> None:
        self._resting = {kind: until for kind, until in self._resting.items() if until > now}
        self._resting[_kind(operation)] = now + REST

    def _failed(
        self,
        operation: StartReplica | Prepare,
        name: str,
        error: RuntimeFailure,
        attempt: int,
        now: float,
    ) -> None:
        """A start or preparation did not come off; when the runtime is away, that is no one's
        failure, and the next pass plans it again."""
        if isinstance(error, RuntimeUnavailable):
            return
        version = _version(operation)
        self._troubles.append(Trouble(version, name, str(error), attempt))
        self._remains.keep(version, FailureRecord(name, str(error)))
        self._events.record(
            now,
            Kind.REPLICA_FAILED,
            str(error),
            project=operation.project,
            service=operation.service,
            replica=name,
        )

    def _keep(self, replica: Replica, memory: ReconcileMemory, lines: tuple[str, ...]) -> None:
        """Keep the last lines of a replica that failed."""
        version = (replica.key, replica.revision)
        failures = memory.failures.get(version, ())
        text = next((f.text for f in reversed(failures) if f.replica == replica.name), "")
        if text:
            self._remains.keep(version, FailureRecord(replica.name, text, lines))


def _kind(operation: Operation) -> tuple[str, str]:
    return type(operation).__name__, operation.subject


def _version(operation: StartReplica | Prepare) -> Version:
    return f"{operation.project}/{operation.service}", operation.revision


def _attempt(prepare: Prepare, memory: ReconcileMemory) -> int:
    return max((slot.attempt for slot in memory.slots.get(_version(prepare), ())), default=0)
