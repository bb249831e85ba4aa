"""Applies the operations of a plan: to the reconciler's memory, in the store, or by the executor.

Owned by the reconciler, which calls it once per operation and pass.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from meshd.discovery.probe import Prober
from meshd.model.event import Kind
from meshd.model.job import HookState
from meshd.model.operation import (
    AdvanceRollout,
    DrainReplica,
    FinishRollout,
    Operation,
    RestoreReplica,
    ResumeReplica,
    RunHook,
    StartReplica,
)
from meshd.model.replica import RandomSource, Replica
from meshd.model.replica_phase import Phase
from meshd.model.rollout import RolloutState
from meshd.reconcile.desired_state import DesiredStateBuilder
from meshd.reconcile.event_recorder import EventRecorder, ReplicaEvent
from meshd.reconcile.execute.executor import Executor
from meshd.reconcile.execute.results import OperationResults
from meshd.reconcile.observe import memory as memories
from meshd.reconcile.observe.memory import FailureReport, ReconcileMemory
from meshd.spec.model import RestartPolicy
from meshd.store.events import EventLog
from meshd.store.store import Store


class RolloutHooks(Protocol):
    """Runs the commands of rollouts; see `meshd.jobs.hook_runner.HookRunner`."""

    def begin(self, hook: RunHook) -> None:
        """Run the hook as a job, unless it was ordered before."""

    def states(self, ids: Iterable[str]) -> Mapping[str, HookState]:
        """Return the states of those hooks that were ordered."""


class PlanApplier:
    """Applies one operation at a time. `find_replica` finds a replica of this pass by name;
    `wake` requests another pass, if the operation changed what a pass reads."""

    def __init__(
        self,
        desired: DesiredStateBuilder,
        store: Store,
        events: EventLog,
        recorder: EventRecorder,
        prober: Prober,
        executor: Executor,
        results: OperationResults,
        hooks: RolloutHooks,
        find_replica: Callable[[str], Replica | None],
        wake: Callable[[], None],
        random: RandomSource,
    ) -> None:
        self._desired = desired
        self._store = store
        self._events = events
        self._recorder = recorder
        self._prober = prober
        self._executor = executor
        self._results = results
        self._hooks = hooks
        self._find_replica = find_replica
        self._wake = wake
        self._random = random

    def apply(self, operation: Operation, memory: ReconcileMemory, now: float) -> ReconcileMemory:
        """Apply one operation and return the memory after it."""
        match operation:
            case DrainReplica():
                self._wake()
                return self._drain(operation, memory, now)
            case RestoreReplica():
                self._prober.reset(operation.name)
                self._wake()
                return memories.mark_restored(memory, operation.name)
            case FinishRollout():
                self._finish_rollout(operation, now)
            case AdvanceRollout():
                self._advance(operation, now)
            case RunHook():
                self._hooks.begin(operation)
            case StartReplica():
                if self._executor.begin(operation):
                    self._wake()
                    return memories.take_slot(memory, operation)
            case ResumeReplica():
                return self._resume(operation, memory, now)
            case _:
                if not self._results.is_recent(operation, now):
                    self._executor.begin(operation)
        return memory

    def _drain(self, drain: DrainReplica, memory: ReconcileMemory, now: float) -> ReconcileMemory:
        memory, replica = memories.mark_drained(memory, drain, now), self._find_replica(drain.name)
        if replica is not None and replica.in_hooks:
            self._executor.cancel_start(replica.name)
        if not drain.count_as_failure or replica is None:
            return memory
        found = self._desired.service(replica.key)
        policy = found.spec.restart if found else RestartPolicy()
        stable = replica.ready_since and now - replica.ready_since >= policy.window
        report = FailureReport(
            version=(replica.key, replica.revision),
            replica=replica.name,
            text=f"{replica.name}: {drain.cause}",
            attempt=0 if stable else replica.attempt,
            final=not replica.ready_since,
        )
        return memories.record_failure(memory, report, policy, now, self._random)

    def _resume(
        self, operation: ResumeReplica, before: ReconcileMemory, now: float
    ) -> ReconcileMemory:
        """Let a warm replica serve. The runtime resumes it only if it is paused already."""
        memory = memories.mark_resumed(before, operation.name, now)
        if memory is not before:
            self._wake()
        replica = self._find_replica(operation.name)
        recent = self._results.is_recent(operation, now)
        if (
            replica is None
            or recent
            or not (replica.paused_by_others or replica.phase is Phase.PAUSED)
        ):
            return memory
        if self._executor.begin(operation) and replica.paused_by_others:
            text = "was paused by something other than meshd; meshd resumes it"
            self._recorder.record(ReplicaEvent(Kind.REPLICA_PAUSED, replica, text), now)
        return memory

    def _finish_rollout(self, operation: FinishRollout, now: float) -> None:
        kinds = {
            RolloutState.DONE: Kind.ROLLOUT_DONE,
            RolloutState.ROLLED_BACK: Kind.ROLLOUT_ROLLED_BACK,
        }
        self._store.finish(operation.subject, operation.outcome, operation.cause, now)
        self._events.record(
            now,
            kinds.get(operation.outcome, Kind.ROLLOUT_FAILED),
            f"revision {operation.revision[:12]} {operation.outcome.word}: {operation.cause}",
            project=operation.project,
            service=operation.service,
        )
        self._wake()

    def _advance(self, advance: AdvanceRollout, now: float) -> None:
        self._store.advance(advance.subject, advance.stage, now)
        self._events.record(
            now,
            Kind.ROLLOUT_SHIFTED,
            f"revision {advance.revision[:12]}: {advance.cause}; next: {advance.next_stage}",
            project=advance.project,
            service=advance.service,
        )
        self._wake()
