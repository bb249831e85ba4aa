"""The loop: observe, plan, execute, publish; again whenever something changed, or a tick passed.

Everything is level-triggered: a wake carries no news, and each pass looks at what is.
"""

import asyncio
import contextlib
import random
from collections.abc import Callable, Iterable, Mapping
from typing import Final, Protocol

import msgspec
import structlog

from meshd.api.jobs import Job
from meshd.discovery.probe import Ask, Prober
from meshd.discovery.watch import Watch
from meshd.publish.gateways import Gateways
from meshd.publish.publisher import Publisher
from meshd.reconcile import memory as remembering
from meshd.reconcile.claims import Claims
from meshd.reconcile.desired import Desired, DesiredService
from meshd.reconcile.executor import Executor, Result
from meshd.reconcile.hooks import HookState
from meshd.reconcile.hooks import ids as hook_ids
from meshd.reconcile.memory import Memory, Replica, Trouble, Version
from meshd.reconcile.narrate import happenings, looping, turned, vanished
from meshd.reconcile.observed import Observed, World, observe
from meshd.reconcile.operation import (
    Advance,
    Drain,
    Forget,
    Hook,
    Operation,
    Pause,
    Plan,
    Prepare,
    Remove,
    Restore,
    Settle,
    Start,
    Stop,
    Wake,
)
from meshd.reconcile.outlet import Outlet
from meshd.reconcile.phase import Phase
from meshd.reconcile.plan import plan
from meshd.reconcile.replica_spec import as_job, credential, replica_spec, start_of
from meshd.reconcile.strategy import splits
from meshd.reconcile.trials import Trials
from meshd.reconcile.wanted import Wanted
from meshd.runtime.base import (
    ObservedReplica,
    ReplicaSpec,
    ReplicaState,
    Runtime,
    RuntimeFailure,
    RuntimeUnavailable,
)
from meshd.spec.model import Network, Project, RestartPolicy, Service
from meshd.store.events import EventLog
from meshd.store.store import Store
from meshd.store.trials import TrialLog
from meshd.telemetry.events import Kind
from proxy.wire.snapshot import Snapshot

_log = structlog.stdlib.get_logger(__name__)
TICK: Final = 0.5
COALESCE: Final = 0.002
LANDING: Final = 15.0
REST: Final = 0.5
"""Seconds before the same operation is tried again: what it did may not show at once."""
EVIDENCE_KEPT: Final = 200


class HookDesk(Protocol):
    """Who runs the commands of rollouts; see `meshd.jobs.hooks`."""

    def begin(self, hook: Hook) -> None:
        """Run it, unless it was ordered before."""

    def states(self, ids: Iterable[str]) -> Mapping[str, HookState]:
        """How those stand that were ordered."""


class Evidence(msgspec.Struct, frozen=True):
    """What a failed replica left: how it failed and its last lines of output."""

    replica: str
    text: str
    lines: tuple[str, ...] = ()


class Reconciler:
    """Owns the memory of passes and wires the parts; the parts decide and act."""

    def __init__(
        self,
        runtime: Runtime,
        watch: Watch,
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
        self.on_ready: Callable[[str, float], None] = _ignore
        self.places: Callable[[], int] = int
        """How many replicas may start at once; 0: any number."""
        self.callers: Callable[[], Mapping[str, str]] = dict
        """The service that each job under way calls for, by its id."""
        self.working: Callable[[], frozenset[str]] = frozenset
        """The projects with jobs under way."""
        self.memory = Memory()
        self.observed = Observed(replicas=(), available=False)
        self.desired = Desired()
        self.plan = Plan()
        self.began = asyncio.Event()
        self.trials = Trials(TrialLog(store))
        self.hooks: HookDesk | None = None
        self.in_flight: dict[str, int] = {}
        self.evidence: dict[Version, Evidence] = {}
        self.dice = random.Random()
        self.claims = Claims(runtime, store, lambda: watch.replicas, self.wake.set)
        self.wanted = Wanted(store, runtime.capabilities.pause)
        self.prober = Prober(self.wake.set, ask, clock)
        self.outlet = Outlet(self.wanted, self.prober, publisher, gateways, secret)
        self.executor = Executor(
            runtime, self._spec_of, self.service_of, gateways.learn, self._done
        )
        self._clock = clock
        self._runtime = runtime
        self._watch = watch
        self._store = store
        self._events = events
        self._publisher = publisher
        self._gateways = gateways
        self._secret = secret
        self._held = held
        self._landed: dict[str, tuple[float, ObservedReplica]] = {}
        self._troubles: list[Trouble] = []
        self._by_hand: list[Drain] = []
        self._resting: dict[tuple[str, str], float] = {}
        self._available = True
        self._problems: frozenset[str] = frozenset()
        self._refused: frozenset[str] = frozenset()

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
                self.turn(self._clock())
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
        listed = self._listed(now)
        self.desired = self._desired(listed, now)
        self._tell_problems(now)
        world = self._world(listed, now)
        self.memory, self.observed = observe(before, world, now, self.dice)
        self._narrate(before, now)
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

    # What is

    def _listed(self, now: float) -> Mapping[str, ObservedReplica]:
        """What concerns us of the view, with what was just started and is not in it yet."""
        view = self.claims.ours(self._watch.replicas)
        for name, (at, _) in list(self._landed.items()):
            seen = view.get(name)
            if (seen and seen.state is not ReplicaState.CREATED) or at + LANDING < now:
                del self._landed[name]
        if not self._landed:
            return view
        return {**view, **{name: replica for name, (_, replica) in self._landed.items()}}

    def _world(self, listed: Mapping[str, ObservedReplica], now: float) -> World:
        """Everything that is, in one value."""
        self._resting = {kind: until for kind, until in self._resting.items() if until > now}
        troubles, self._troubles = tuple(self._troubles), []
        available = self._watch.problem is None
        if available != self._available:
            kind = Kind.RUNTIME_BACK if available else Kind.RUNTIME_LOST
            text = f"does not answer; everything is held as it is ({self._watch.problem})"
            self._events.record(
                now, kind, f"{self._runtime.name} {'answers again' if available else text}"
            )
            self._available = available
        under_way = self.executor.under_way.values()
        return World(
            listed=listed,
            probes=self.prober.results,
            drained=frozenset(
                name
                for name, record in self.memory.records.items()
                if record.drain_since and self._publisher.drained(name)
            ),
            in_flight=self.in_flight,
            starting={op.name: op for op in under_way if isinstance(op, Start)},
            stopping=self._stopping(),
            turning=frozenset(op.name for op in under_way if isinstance(op, Pause | Wake)),
            troubles=troubles,
            policies={s.key: s.spec.restart for s in self.desired.services},
            available=available,
            may_start=self.may_start(),
            places=self.places(),
            working=self.working(),
            prepared=frozenset(self.executor.prepared),
            preparing=frozenset(
                (f"{op.project}/{op.service}", op.revision)
                for op in under_way
                if isinstance(op, Prepare)
            ),
        )

    def _hook_states(self, now: float) -> Mapping[str, HookState] | None:
        if self.hooks is None:
            return None
        busy = [service for service in self.desired.services if service.rollout != "done"]
        return self.hooks.states([id for service in busy for id in hook_ids(service, now)])

    def _stopping(self) -> frozenset[str]:
        """The replicas that we are stopping or removing now."""
        under_way = self.executor.under_way.values()
        return frozenset(op.name for op in under_way if isinstance(op, Stop | Remove))

    def _tell_problems(self, now: float) -> None:
        problems = self.wanted.problems
        if problems != self._problems:
            for text in sorted(problems - self._problems):
                self._events.record(now, Kind.ADOPT_FAILED, text)
            self._problems = problems
        refused = frozenset(self.claims.refused.values())
        if refused != self._refused:
            for text in sorted(refused - self._refused):
                self._events.record(now, Kind.CLAIM_REFUSED, f"left alone: {text}")
            self._refused = refused

    def _narrate(self, before: Memory, now: float) -> None:
        for happening in happenings(before.records, self.observed.replicas, now):
            replica = happening.replica
            if happening.seconds is not None:
                self.on_ready(replica.key, happening.seconds)
            self.record(happening.kind, happening.text, replica)
            if replica.phase is Phase.DRAINING and replica.blamed:
                self._keep(replica, happening.text, ())
        for (key, _), text in looping(before, self.memory):
            project, _, service = key.partition("/")
            self._events.record(
                now, Kind.REPLICA_CRASH_LOOP, text, project=project, service=service
            )
        seen, runs = self.observed.replicas, self._watch.replicas.keys() | self._landed.keys()
        for each in (*turned(before, seen), *vanished(before, runs)):
            self.record(each.kind, each.text, each.replica)

    def record(self, kind: str, text: str, replica: Replica) -> None:
        """An event about one replica."""
        self._events.record(
            self._clock(),
            kind,
            text,
            project=replica.project,
            service=replica.service,
            replica=replica.name,
        )

    # What is done

    def _apply(self, operation: Operation, now: float) -> None:
        """Carry out one step: on the memory, on the store, or on the runtime."""
        match operation:
            case Drain():
                self._drain(operation, now)
            case Restore():
                self.memory = remembering.mark_restored(self.memory, operation.name)
                self.prober.forget(operation.name)
                self.wake.set()
            case Settle():
                self._settle(operation, now)
            case Hook():
                if self.hooks is not None:
                    self.hooks.begin(operation)
            case Advance():
                self._store.advance(operation.subject, operation.stage, now)
                text = f"{operation.what} to revision {operation.revision[:12]}: {operation.cause}"
                self._events.record(
                    now,
                    Kind.ROLLOUT_SHIFTED,
                    text,
                    project=operation.project,
                    service=operation.service,
                )
                self.wake.set()
            case Start():
                if self.executor.begin(operation):
                    self.memory = remembering.take_slot(self.memory, operation)
                    self.wake.set()
            case Wake():
                self._wake_up(operation, now)
            case _:
                if self._resting.get(_kind(operation), 0.0) <= now:
                    self.executor.begin(operation)

    def _wake_up(self, operation: Wake, now: float) -> None:
        """It serves from now on; one that was not paused yet need not be woken."""
        replica, before = self.replica(operation.name), self.memory
        self.memory = remembering.mark_woken(before, operation.name, now)
        if self.memory is not before:
            self.wake.set()
        resting = self._resting.get(_kind(operation), 0.0) > now
        if replica is None or resting or not (replica.frozen or replica.phase is Phase.PAUSED):
            return
        if self.executor.begin(operation) and replica.frozen:
            self.record(Kind.REPLICA_PAUSED, "was paused, not by the mesh; it is woken", replica)

    def drain(self, name: str, cause: str) -> None:
        """Take a replica out by hand at the next pass."""
        self._by_hand.append(Drain(name=name, cause=cause))
        self.wake.set()

    def _drain(self, drain: Drain, now: float) -> None:
        replica = self.replica(drain.name)
        self.memory = remembering.mark_drained(self.memory, drain, now)
        if drain.blame and replica is not None:
            policy = self._policy(replica)
            stable = replica.ready_since and now - replica.ready_since >= policy.window
            trouble = Trouble(
                version=(replica.key, replica.revision),
                replica=replica.name,
                text=f"{replica.name}: {drain.cause}",
                attempt=0 if stable else replica.attempt,
                final=not replica.ready_since,
            )
            self.memory = remembering.note_failure(self.memory, trouble, policy, now, self.dice)
        self.wake.set()

    def _settle(self, settle: Settle, now: float) -> None:
        kinds = {"done": Kind.ROLLOUT_DONE, "rolled-back": Kind.ROLLOUT_ROLLED_BACK}
        self._store.settle(settle.subject, settle.outcome, settle.cause, now)
        self._events.record(
            now,
            kinds.get(settle.outcome, Kind.ROLLOUT_FAILED),
            f"revision {settle.revision[:12]} {settle.outcome}: {settle.cause}",
            project=settle.project,
            service=settle.service,
        )
        self.wake.set()

    def _done(self, result: Result) -> None:
        """An operation on the runtime ended."""
        operation, now = result.operation, self._clock()
        match operation:
            case Start():
                if result.replica is not None:
                    self._landed[operation.name] = (now, result.replica)
                    self._watch.list_soon()
                elif result.error is not None:
                    self.executor.prepared.discard((operation.key, operation.revision))
                    self._failed(operation, operation.name, result.error, operation.attempt)
            case Prepare():
                if result.error is not None:
                    self._failed(operation, "", result.error, self._attempt(operation))
            case Stop() | Remove():
                self._landed.pop(operation.name, None)
                self._watch.list_soon()
                replica = self.replica(operation.name)
                if replica is not None and result.lines:
                    self._keep(replica, "", tuple(result.lines))
            case Forget():
                if result.error is None:
                    self._store.forget(operation.project)
                    self._gateways.forget(operation.project)
                    self._events.record(now, Kind.DOWN, "is down", project=operation.project)
                    self.refresh(now)
        if not isinstance(operation, Start):
            self._resting[_kind(operation)] = now + REST
        if result.error is not None and not isinstance(operation, Start | Prepare):
            _log.warning("an operation failed", operation=str(operation), error=str(result.error))
        self.wake.set()

    def _attempt(self, prepare: Prepare) -> int:
        version = (f"{prepare.project}/{prepare.service}", prepare.revision)
        return max((slot.attempt for slot in self.memory.slots.get(version, ())), default=0)

    def _failed(
        self, operation: Start | Prepare, name: str, error: RuntimeFailure, attempt: int
    ) -> None:
        """A start or preparation did not come off; when the runtime is away, that is no one's
        failure, and the next pass plans it again."""
        if isinstance(error, RuntimeUnavailable):
            return
        version = (f"{operation.project}/{operation.service}", operation.revision)
        self._troubles.append(Trouble(version, name, str(error), attempt))
        self.evidence[version] = Evidence(name, str(error))
        self._events.record(
            self._clock(),
            Kind.REPLICA_FAILED,
            str(error),
            project=operation.project,
            service=operation.service,
            replica=name,
        )

    def _keep(self, replica: Replica, text: str, lines: tuple[str, ...]) -> None:
        """Keep what a failed replica left."""
        version = (replica.key, replica.revision)
        if not text:
            failures = self.memory.failures.get(version, ())
            text = next((f.text for f in reversed(failures) if f.replica == replica.name), "")
        if not text:
            return
        self.evidence.pop(version, None)
        self.evidence[version] = Evidence(replica.name, text, lines)
        while len(self.evidence) > EVIDENCE_KEPT:
            del self.evidence[next(iter(self.evidence))]

    def pardon(self, versions: list[Version]) -> None:
        """A new deployment: past failures of these versions delay nothing."""
        gone = set(versions)
        self.memory = msgspec.structs.replace(
            self.memory,
            slots={v: s for v, s in self.memory.slots.items() if v not in gone},
            failures={v: f for v, f in self.memory.failures.items() if v not in gone},
        )
        for version in gone:
            self.evidence.pop(version, None)

    # What it is told

    def replica(self, name: str) -> Replica | None:
        """A replica by name, as of the last pass."""
        return next((r for r in self.observed.replicas if r.name == name), None)

    def _policy(self, replica: Replica) -> RestartPolicy:
        found = self.wanted.service(replica.key)
        return found.spec.restart if found else RestartPolicy()

    def service_of(self, version: Version) -> tuple[Service, tuple[Network, ...]] | None:
        """The spec of a version, and the networks its project declares."""
        found = self.wanted.service(version[0])
        if found is None or found.revision != version[1]:
            return None
        project = self.wanted.project(found.project)
        return found.spec, project.networks if project else ()

    def _spec_of(self, start: Start) -> ReplicaSpec | None:
        found: DesiredService | None = self.wanted.service(start.key)
        if found is None or found.revision != start.revision:
            return None
        return self._told(start, found.spec)

    def _told(self, start: Start, service: Service) -> ReplicaSpec:
        project: Project | None = self.wanted.project(start.project)
        token = credential(self._secret, start.name)
        base = self._gateways.token_base(self._publisher.bound, token)
        gateway, instance = self._gateways.of(start.key), self.claims.me.instance
        return replica_spec(start, project, service, gateway, base, instance)

    def job_spec(self, job: Job) -> tuple[ReplicaSpec, tuple[Network, ...]] | None:
        """What the runtime is told for a job, and the networks its project declares. None where
        its service or revision is not there any more."""
        project, service = self.wanted.project(job.project), self._revised(job)
        if project is None or service is None:
            return None
        told = self._told(start_of(job), service)
        return as_job(told, job.command, job.environment), project.networks

    def _revised(self, job: Job) -> Service | None:
        found = self.wanted.service(job.key)
        if found is not None and found.revision == job.revision:
            return found.spec
        return self._store.revision(job.key, job.revision)

    def may_start(self) -> bool:
        """Whether what is started can be told where the mesh is."""
        return self._gateways.may_start(self._publisher.bound)


def _kind(operation: Operation) -> tuple[str, str]:
    return type(operation).__name__, operation.subject


def _ignore(service: str, seconds: float) -> None:
    """Nobody asked how long replicas take to start."""
