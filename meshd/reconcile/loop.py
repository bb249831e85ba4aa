"""The loop: observe, plan, execute, publish; again whenever something changed, or a tick passed.

Everything is level-triggered: a wake carries no news, and each pass looks at what is.
"""

import asyncio
import contextlib
import random
from collections.abc import Callable, Collection, Mapping
from typing import Final

import msgspec
import structlog

from meshd.discovery.probe import Ask, Prober
from meshd.discovery.watch import RuntimeWatcher
from meshd.model.desired import Desired
from meshd.model.errors import StoreWriteError
from meshd.model.job import HookState
from meshd.model.operation import (
    DrainReplica,
    Forget,
    Operation,
    PauseReplica,
    Plan,
    Prepare,
    RemoveReplica,
    ResumeReplica,
    StartReplica,
    StopReplica,
)
from meshd.model.replica import Replica, Version
from meshd.model.runtime import ObservedReplica
from meshd.publish.gateways import Gateways
from meshd.publish.publisher import Publisher
from meshd.reconcile.desired_state import DesiredStateBuilder
from meshd.reconcile.event_recorder import EventRecorder
from meshd.reconcile.execute.apply import HookDesk, PlanApplier
from meshd.reconcile.execute.executor import Executor, OperationResult
from meshd.reconcile.execute.failure_log import FailureLog
from meshd.reconcile.execute.replica_spec_builder import ReplicaSpecBuilder
from meshd.reconcile.execute.results import OperationResults
from meshd.reconcile.observe import memory as remembering
from meshd.reconcile.observe.memory import ReconcileMemory
from meshd.reconcile.observe.observe import Inputs, Observed, observe
from meshd.reconcile.ownership.claims import ProjectClaims
from meshd.reconcile.plan.plan import plan
from meshd.reconcile.publish_snapshot import SnapshotUpdater
from meshd.reconcile.rollout.analysis_feed import Trials
from meshd.reconcile.rollout.hooks import ids as hook_ids
from meshd.reconcile.rollout.stages import splits
from meshd.runtime.base import Runtime, RuntimeFailure
from meshd.store.canary_analyses import CanaryAnalysisLog
from meshd.store.events import EventLog
from meshd.store.store import Store
from proxy.wire.snapshot import Snapshot

_log = structlog.stdlib.get_logger(__name__)
TICK: Final = 0.5
COALESCE: Final = 0.002


class Reconciler:
    """Owns the memory of passes and wires the parts; the parts decide and act."""

    def __init__(
        self,
        runtime: Runtime,
        watch: RuntimeWatcher,
        store: Store,
        events: EventLog,
        publisher: Publisher,
        gateways: Gateways,
        secret: bytes,
        held: Snapshot | None,
        wake: asyncio.Event,
        ask: Ask,
        clock: Callable[[], float],
    ) -> None:
        self.wake = wake
        self.places: Callable[[], int] = int
        """How many replicas may start at once; 0: any number."""
        self.callers: Callable[[], Mapping[str, str]] = dict
        """The service that each job under way calls for, by its id."""
        self.working: Callable[[], frozenset[str]] = frozenset
        """The projects with jobs under way."""
        self.memory = ReconcileMemory()
        self.observed = Observed(replicas=(), available=False)
        self.desired = Desired()
        self.plan = Plan()
        self.began = asyncio.Event()
        self.trials = Trials(CanaryAnalysisLog(store))
        self.hooks: HookDesk | None = None
        self.in_flight: dict[str, int] = {}
        self.dice = random.Random()
        self.claims = ProjectClaims(runtime, store, lambda: watch.replicas, self.wake.set)
        self.wanted = DesiredStateBuilder(store, runtime.capabilities.pause)
        self.prober = Prober(self.wake.set, ask, clock)
        self.outlet = SnapshotUpdater(self.wanted, self.prober, publisher, gateways, secret)
        self.briefing = ReplicaSpecBuilder(
            self.wanted, store, publisher, gateways, self.claims, secret
        )
        self.executor = Executor(
            runtime, self.briefing.replica, self.briefing.service, gateways.learn, self._done
        )
        self.remains = FailureLog()
        self.narrator = EventRecorder(events, self.remains)
        self._outcomes = OperationResults(watch, store, events, gateways, self.remains)
        self._steps = PlanApplier(
            self.wanted,
            store,
            events,
            self.narrator,
            self.prober,
            self.executor,
            self._outcomes,
            self.replica,
            self.wake.set,
        )
        self._clock = clock
        self._runtime = runtime
        self._watch = watch
        self._store = store
        self._publisher = publisher
        self._gateways = gateways
        self._held = held
        self._by_hand: list[DrainReplica] = []

    async def run(self) -> None:
        """Pass after pass until cancelled; the first once everything was listed."""
        await self._watch.ready()
        await self.claims.settled()
        await self._take_over()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.claims.run(), name="claims")
            tasks.create_task(self._passes(), name="passes")

    async def _passes(self) -> None:
        try:
            while True:
                try:
                    self.turn(self._clock())
                except StoreWriteError as error:  # the next pass finds what this one left
                    _log.error("a pass was cut short", reason=str(error))
                # Not `wait_for`: it takes a cancellation for an end where both come at once.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(TICK):
                        await self.wake.wait()
                await asyncio.sleep(COALESCE)
                self.wake.clear()
        finally:
            await self.executor.close()
            await self.prober.close()

    def refresh(self, now: float) -> None:
        """Read anew what is wanted, and have a pass made of it soon."""
        self.desired = self._desired(self.claims.ours(self._watch.replicas), now)
        self.wake.set()

    def _desired(self, listed: Mapping[str, ObservedReplica], now: float) -> Desired:
        self.wanted.elsewhere = self.claims.elsewhere
        return self.wanted.desired(listed, now, self._stopping())

    async def _take_over(self) -> None:
        """Go on where the process before this one stopped: what it published goes on as is."""
        ready: dict[str, float] = {}
        leaving: set[str] = set()
        for service in self._held.services if self._held else ():
            for endpoint in service.endpoints:
                if endpoint.state == "ready":
                    ready[endpoint.id] = endpoint.ready_since
                else:
                    leaving.add(endpoint.id)
        self.memory = remembering.recall(ready, leaving, self._watch.replicas, self._clock())
        for name, stored in self._store.projects.items():
            try:
                await self._gateways.learn(name, [s.name for s in stored.project.services])
            except RuntimeFailure as error:
                _log.info("no gateways yet", project=name, error=str(error))

    def turn(self, now: float) -> None:
        """One pass."""
        before = self.memory
        listed = self._outcomes.beside(self.claims.ours(self._watch.replicas), now)
        self.desired = self._desired(listed, now)
        refused = frozenset(self.claims.refused.values())
        self.narrator.problems(self.wanted.problems, refused, now)
        self.narrator.runtime(self._runtime.name, self._watch.problem, now)
        self.memory, self.observed = observe(before, self._world(listed), now, self.dice)
        runs = self._watch.replicas.keys() | self._outcomes.landed()
        self.narrator.replicas(before, self.memory, self.observed.replicas, runs, now)
        verdicts = self.trials.look(self.desired.services, self.observed.replicas, now)
        self.observed = msgspec.structs.replace(
            self.observed, verdicts=verdicts, hooks=self._hook_states(now)
        )
        self.plan = plan(self.desired, self.observed, now, self.dice)
        for operation in self.plan.operations:
            self._apply(operation, now)
        for drain in self._by_hand:
            self._apply(drain, now)
        self._by_hand.clear()
        self.outlet.splits = splits(self.desired.services, self.observed)
        self.outlet.update(self.observed.replicas, self.desired, listed, self.callers())
        self.began.set()

    def replica(self, name: str) -> Replica | None:
        """A replica by name, as of the last pass."""
        return next((r for r in self.observed.replicas if r.name == name), None)

    def drain(self, name: str, cause: str) -> None:
        """Take a replica out by hand at the next pass."""
        self._by_hand.append(DrainReplica(name=name, cause=cause))
        self.wake.set()

    def pardon(self, versions: Collection[Version]) -> None:
        """A new deployment: past failures of these versions delay nothing."""
        self.memory = remembering.pardon(self.memory, frozenset(versions))
        self.remains.forget(versions)

    def _world(self, listed: Mapping[str, ObservedReplica]) -> Inputs:
        """Everything that is, in one value."""
        under_way = self.executor.under_way.values()
        return Inputs(
            listed=listed,
            probes=self.prober.results,
            drained=frozenset(
                name
                for name, record in self.memory.records.items()
                if record.drain_since and self._publisher.drained(name)
            ),
            in_flight=self.in_flight,
            starting={op.name: op for op in under_way if isinstance(op, StartReplica)},
            stopping=self._stopping(),
            turning=frozenset(
                op.name for op in under_way if isinstance(op, PauseReplica | ResumeReplica)
            ),
            troubles=self._outcomes.troubles(),
            policies={s.key: s.spec.restart for s in self.desired.services},
            available=self._watch.problem is None,
            may_start=self.briefing.may_start(),
            places=self.places(),
            working=self.working(),
            prepared=frozenset(self.executor.prepared),
            preparing=frozenset(
                (f"{op.project}/{op.service}", op.revision)
                for op in under_way
                if isinstance(op, Prepare)
            ),
        )

    def _stopping(self) -> frozenset[str]:
        """The replicas that we are stopping or removing now."""
        under_way = self.executor.under_way.values()
        return frozenset(op.name for op in under_way if isinstance(op, StopReplica | RemoveReplica))

    def _hook_states(self, now: float) -> Mapping[str, HookState] | None:
        if self.hooks is None:
            return None
        busy = [service for service in self.desired.services if not service.rollout.is_done]
        return self.hooks.states([id for service in busy for id in hook_ids(service, now)])

    def _apply(self, operation: Operation, now: float) -> None:
        self.memory = self._steps.apply(operation, self.memory, self.hooks, now, self.dice)

    def _done(self, result: OperationResult) -> None:
        """An operation on the runtime ended."""
        operation, now = result.operation, self._clock()
        gone = (
            self.replica(operation.name)
            if isinstance(operation, StopReplica | RemoveReplica)
            else None
        )
        self._outcomes.take(result, self.memory, gone, now)
        if isinstance(operation, Forget) and result.error is None:
            self.refresh(now)
        self.wake.set()
