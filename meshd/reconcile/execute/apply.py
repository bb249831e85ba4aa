"""The steps of a plan, carried out: on what is remembered, in the store, or by the executor."""

from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from meshd.discovery.probe import Prober
from meshd.model.event import Kind
from meshd.model.job import HookState
from meshd.model.operation import (
    Advance,
    DrainReplica,
    Operation,
    Restore,
    ResumeReplica,
    RunHook,
    Settle,
    StartReplica,
)
from meshd.model.replica import RandomSource, Replica
from meshd.model.replica_phase import Phase
from meshd.model.rollout import RolloutState
from meshd.reconcile.desired_state import DesiredStateBuilder
from meshd.reconcile.event_recorder import EventRecorder, ReplicaEvent
from meshd.reconcile.execute.executor import Executor
from meshd.reconcile.execute.results import OperationResults
from meshd.reconcile.observe import memory as remembering
from meshd.reconcile.observe.memory import ReconcileMemory, Trouble
from meshd.spec.model import RestartPolicy
from meshd.store.events import EventLog
from meshd.store.store import Store


class HookDesk(Protocol):
    """Who runs the commands of rollouts; see `meshd.jobs.hook_runner`."""

    def begin(self, hook: RunHook) -> None:
        """Run it, unless it was ordered before."""

    def states(self, ids: Iterable[str]) -> Mapping[str, HookState]:
        """How those stand that were ordered."""


class PlanApplier:
    """Does what one operation says. `wake` has another pass made soon, where it changed what that
    would look at; `replica` finds one by name, as of this pass."""

    def __init__(
        self,
        wanted: DesiredStateBuilder,
        store: Store,
        events: EventLog,
        narrator: EventRecorder,
        prober: Prober,
        executor: Executor,
        outcomes: OperationResults,
        replica: Callable[[str], Replica | None],
        wake: Callable[[], None],
    ) -> None:
        self._wanted = wanted
        self._store = store
        self._events = events
        self._narrator = narrator
        self._prober = prober
        self._executor = executor
        self._outcomes = outcomes
        self._replica = replica
        self._wake = wake

    def apply(
        self,
        operation: Operation,
        memory: ReconcileMemory,
        hooks: HookDesk | None,
        now: float,
        dice: RandomSource,
    ) -> ReconcileMemory:
        """Carry out one step; what is remembered from now on comes back."""
        match operation:
            case DrainReplica():
                self._wake()
                return self._drained(operation, memory, now, dice)
            case Restore():
                self._prober.forget(operation.name)
                self._wake()
                return remembering.mark_restored(memory, operation.name)
            case Settle():
                self._settle(operation, now)
            case Advance():
                self._advance(operation, now)
            case RunHook():
                if hooks is not None:
                    hooks.begin(operation)
            case StartReplica():
                if self._executor.begin(operation):
                    self._wake()
                    return remembering.take_slot(memory, operation)
            case ResumeReplica():
                return self._woken(operation, memory, now)
            case _:
                if not self._outcomes.resting(operation, now):
                    self._executor.begin(operation)
        return memory

    def _drained(
        self, drain: DrainReplica, memory: ReconcileMemory, now: float, dice: RandomSource
    ) -> ReconcileMemory:
        memory, replica = remembering.mark_drained(memory, drain, now), self._replica(drain.name)
        if not drain.blame or replica is None:
            return memory
        found = self._wanted.service(replica.key)
        policy = found.spec.restart if found else RestartPolicy()
        stable = replica.ready_since and now - replica.ready_since >= policy.window
        trouble = Trouble(
            version=(replica.key, replica.revision),
            replica=replica.name,
            text=f"{replica.name}: {drain.cause}",
            attempt=0 if stable else replica.attempt,
            final=not replica.ready_since,
        )
        return remembering.note_failure(memory, trouble, policy, now, dice)

    def _woken(
        self, operation: ResumeReplica, before: ReconcileMemory, now: float
    ) -> ReconcileMemory:
        """It serves from now on; one that was not paused yet need not be woken."""
        memory = remembering.mark_woken(before, operation.name, now)
        if memory is not before:
            self._wake()
        replica = self._replica(operation.name)
        resting = self._outcomes.resting(operation, now)
        if replica is None or resting or not (replica.frozen or replica.phase is Phase.PAUSED):
            return memory
        if self._executor.begin(operation) and replica.frozen:
            text = "was paused, not by the mesh; it is woken"
            self._narrator.tell(ReplicaEvent(Kind.REPLICA_PAUSED, replica, text), now)
        return memory

    def _settle(self, settle: Settle, now: float) -> None:
        kinds = {
            RolloutState.DONE: Kind.ROLLOUT_DONE,
            RolloutState.ROLLED_BACK: Kind.ROLLOUT_ROLLED_BACK,
        }
        self._store.finish(settle.subject, settle.outcome, settle.cause, now)
        self._events.record(
            now,
            kinds.get(settle.outcome, Kind.ROLLOUT_FAILED),
            f"revision {settle.revision[:12]} {settle.outcome.word}: {settle.cause}",
            project=settle.project,
            service=settle.service,
        )
        self._wake()

    def _advance(self, advance: Advance, now: float) -> None:
        self._store.advance(advance.subject, advance.stage, now)
        self._events.record(
            now,
            Kind.ROLLOUT_SHIFTED,
            f"revision {advance.revision[:12]}: {advance.cause}; next: {advance.what}",
            project=advance.project,
            service=advance.service,
        )
        self._wake()
