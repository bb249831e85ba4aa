"""The reconcile loop: observe, plan, execute, publish; again after each change, and every tick.

`Reconciler` owns the parts of `meshd.reconcile` and the memory between passes. It is made by
`meshd.daemon.wiring`; the control facade, deployments, scaling and jobs use its ports `view`,
`request` and `ready`. The loop is level-triggered: a wake-up carries no data, and each pass looks
at everything.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, Protocol, overload

import msgspec
import structlog

from meshd.certificates.values import ServedCertificates
from meshd.discovery.probe import ProbeFunction, Prober
from meshd.discovery.watch import RuntimeWatcher
from meshd.model.desired import Desired, DesiredService
from meshd.model.errors import StoreWriteError
from meshd.model.job import HookState
from meshd.model.operation import (
    DrainReplica,
    ForgetProject,
    JobOperation,
    Operation,
    PauseReplica,
    Plan,
    PrepareRevision,
    PrepareService,
    ReadOutput,
    RemoveJob,
    RemoveReplica,
    RemoveVolume,
    RestoreVolume,
    ResumeReplica,
    SetAvailability,
    StartJob,
    StartReplica,
    StopJob,
    StopReplica,
    VolumeOperation,
)
from meshd.model.output import OutputLine
from meshd.model.peers import NO_PEERS, PeerSettings
from meshd.model.replica import RandomSource, Replica, Version
from meshd.model.request import (
    DiscardStaged,
    DrainRequest,
    HoldServices,
    ReleaseServices,
    ReloadDesired,
    RemoveCopies,
    ReplaceReplicas,
    ResetBackoff,
    ResolveServices,
    RunCommand,
    RunPass,
    StageVolume,
)
from meshd.model.runtime import CommandResult, Node, ObservedReplica
from meshd.publish.compile import EdgeSettings
from meshd.publish.gateways import Gateways
from meshd.publish.publisher import Publisher
from meshd.reconcile.desired_state import DesiredStateBuilder
from meshd.reconcile.event_recorder import EventRecorder
from meshd.reconcile.execute.apply import PlanApplier, RolloutHooks
from meshd.reconcile.execute.executor import Executor, OperationResult
from meshd.reconcile.execute.failure_log import FailureLog, FailureRecord
from meshd.reconcile.execute.host_names import HostNamesWriter
from meshd.reconcile.execute.port_redirects import PortRedirectWriter
from meshd.reconcile.execute.replica_spec_builder import ReplicaSpecBuilder
from meshd.reconcile.execute.results import OperationResults
from meshd.reconcile.observe import memory as memories
from meshd.reconcile.observe.memory import ReconcileMemory
from meshd.reconcile.observe.observe import Inputs, Observed, observe
from meshd.reconcile.ownership.claims import ProjectClaims
from meshd.reconcile.plan.plan import plan
from meshd.reconcile.publish_snapshot import SnapshotUpdater
from meshd.reconcile.rollout.analysis_feed import AnalysisFeed, TrafficSource
from meshd.reconcile.rollout.hooks import hook_ids
from meshd.reconcile.rollout.stages import traffic_splits
from meshd.runtime.base import Runtime, RuntimeFailure
from meshd.spec.model import Project, Service
from meshd.store import output_archive
from meshd.store.canary_analyses import CanaryAnalysisLog
from meshd.store.events import EventLog
from meshd.store.output_archive import OutputArchive
from meshd.store.replacements import ReplacementLog
from meshd.store.store import Store
from proxy.wire.snapshot import Generation, Snapshot

_log = structlog.stdlib.get_logger(__name__)
TICK: Final = 0.5
"""Seconds after which a pass runs although nothing changed: deadlines are due by time."""
COALESCE: Final = 0.002
"""Seconds in which further changes are combined into the same pass."""

Change = (
    RunPass
    | ReloadDesired
    | DrainRequest
    | ReplaceReplicas
    | ResetBackoff
    | RemoveCopies
    | HoldServices
    | ReleaseServices
)
"""Requests that take effect in the next pass."""


class JobActivity(Protocol):
    """The jobs that run now; see `meshd.jobs.table.JobTable`."""

    def callers(self) -> Mapping[str, str]:
        """Return the service as which each job calls others, by job id."""

    def addresses(self) -> Mapping[str, str]:
        """Return the service as which the container of each job calls others, by its addresses."""

    def working_projects(self) -> frozenset[str]:
        """Return the projects whose networks jobs may use."""


class ReconcilerView(msgspec.Struct, frozen=True):
    """The state as of the last pass.

    - `desired`, `observed`, `plan`: what the pass read and decided.
    - `services`: the desired services by key.
    - `projects`: the projects to serve; rolled-back services have their last good revision.
    - `failures`: the last failure of each version that failed.
    - `running`: the operations that run now.
    - `published`: the first snapshot that was made of the newest desired state; None if none was.
    """

    desired: Desired
    observed: Observed
    plan: Plan
    services: Mapping[str, DesiredService]
    projects: Sequence[Project]
    failures: Mapping[Version, FailureRecord]
    running: tuple[Operation, ...]
    published: Generation | None

    def service(self, key: str) -> DesiredService | None:
        """Return a desired service by key (`PROJECT/SERVICE`)."""
        return self.services.get(key)

    def replica(self, name: str) -> Replica | None:
        """Return a replica by name."""
        return next((r for r in self.observed.replicas if r.name == name), None)


class Reconciler:
    """Runs the passes, and keeps the memory between them.

    Its ports are `view`, `request` and `ready`; `run` drives it. Arguments:

    - `held_snapshot`: the snapshot that the workers route by at the start; None if unknown.
    - `wake`: set it to run a pass soon.
    - `in_flight`: requests in flight by replica; the caller keeps it current.
    - `traffic`: what canary analyses read; None: rollouts run without analysis.
    - `start_slots`: how many replicas may start at the same time; 0: no limit.
    - `nodes`: those that take replicas; none while they are not known.
    - `on_ready`: called with a service's key and the seconds a replica took to become ready.
    """

    def __init__(
        self,
        *,
        runtime: Runtime,
        watch: RuntimeWatcher,
        store: Store,
        events: EventLog,
        publisher: Publisher,
        gateways: Gateways,
        claims: ProjectClaims,
        held_snapshot: Snapshot | None,
        wake: asyncio.Event,
        probe: ProbeFunction,
        jobs: JobActivity,
        hooks: RolloutHooks,
        traffic: TrafficSource | None,
        in_flight: Mapping[str, int],
        start_slots: Callable[[], int],
        on_ready: Callable[[str, float], None],
        edge: EdgeSettings,
        clock: Callable[[], float],
        random: RandomSource,
        certificates: Callable[[], ServedCertificates] = ServedCertificates,
        nodes: Callable[[], Sequence[Node]] = tuple,
        peers: Callable[[], PeerSettings] = lambda: NO_PEERS,
    ) -> None:
        self._runtime = runtime
        self._watch = watch
        self._store = store
        self._publisher = publisher
        self._gateways = gateways
        self._claims = claims
        self._held_snapshot = held_snapshot
        self._wake = wake
        self._jobs = jobs
        self._hooks = hooks
        self._in_flight = in_flight
        self._start_slots = start_slots
        self._clock = clock
        self._random = random
        self._memory = ReconcileMemory()
        self._replacements = ReplacementLog(store)
        self._observed = Observed(replicas=(), available=False)
        self._desired = Desired()
        self._plan = Plan()
        self._listed: Mapping[str, ObservedReplica] = {}
        self._ready = asyncio.Event()
        self._published: Generation | None = None
        self._drain_requests: list[DrainReplica] = []
        self._analyses = AnalysisFeed(CanaryAnalysisLog(store), traffic)
        self._desired_state = DesiredStateBuilder(
            store, runtime.capabilities.pause, nodes if runtime.capabilities.swarm else None
        )
        self._prober = Prober(wake.set, probe, clock)
        self._builder = ReplicaSpecBuilder(self._desired_state, store, publisher, gateways, claims)
        self._executor = Executor(
            runtime, self._builder, gateways, self._on_done, self._keep_output
        )
        self._host_names = HostNamesWriter(self._executor.set_host_names)
        self._port_redirects = PortRedirectWriter(self._executor.redirect_ports, wake.set)
        self._snapshots = SnapshotUpdater(
            self._desired_state,
            self._prober,
            publisher,
            gateways,
            store.secret(),
            edge,
            self._host_names,
            certificates,
            peers,
            self._port_redirects,
            held_snapshot,
        )
        self._failures = FailureLog()
        self._recorder = EventRecorder(events, self._failures, on_ready)
        archive = OutputArchive(store.path.parent / output_archive.DIRECTORY)
        self._results = OperationResults(watch, store, events, self._failures, archive)
        self._applier = PlanApplier(
            self._desired_state,
            store,
            events,
            self._recorder,
            self._prober,
            self._executor,
            self._results,
            hooks,
            self._find_replica,
            wake.set,
            random,
        )

    # Ports

    def view(self) -> ReconcilerView:
        """Return the state as of the last pass."""
        return ReconcilerView(
            desired=self._desired,
            observed=self._observed,
            plan=self._plan,
            services=self._desired_state.services,
            projects=self._desired_state.effective_projects(),
            failures=self._failures.records,
            running=tuple(self._executor.running.values()),
            published=self._published,
        )

    @overload
    def request(self, request: Change) -> None: ...
    @overload
    def request(self, request: ResolveServices) -> Awaitable[Sequence[Service]]: ...
    @overload
    def request(self, request: StartJob) -> Awaitable[ObservedReplica]: ...
    @overload
    def request(self, request: RunCommand) -> Awaitable[CommandResult]: ...
    @overload
    def request(
        self,
        request: PrepareService
        | ForgetProject
        | StopJob
        | RemoveJob
        | RestoreVolume
        | RemoveVolume
        | StageVolume
        | DiscardStaged
        | SetAvailability,
    ) -> Awaitable[None]: ...
    def request(self, request: Any) -> Any:
        """Take a request of another part of the daemon.

        A `Change` takes effect in the next pass. The result of the other requests is awaited:
        the pinned services, the started container, how a command ended, or None. Awaiting raises
        RuntimeFailure.
        """
        match request:
            case ResolveServices():
                return self._executor.resolve(request.services, request.fetch)
            case RunCommand():
                return self._executor.execute(request.replica, request.hook, request.seconds)
            case StageVolume():
                return self._executor.stage_volume(request.name, request.data)
            case DiscardStaged():
                return self._executor.discard_staged(request.name)
            case (
                PrepareService()
                | ForgetProject()
                | JobOperation()
                | VolumeOperation()
                | SetAvailability()
            ):
                return self._perform(request)
            case ReloadDesired():
                view = self._claims.own_replicas(self._watch.replicas)
                self._desired = self._read_desired(view, self._clock())
                self._published = None
            case DrainRequest():
                drain = DrainReplica(name=request.replica, cause=request.cause)
                self._drain_requests.append(drain)
            case ReplaceReplicas():
                self._replacements.add(request.replicas, request.cause, self._watch.replicas)
                self._memory = memories.mark_for_replacement(
                    self._memory, request.replicas, request.cause
                )
            case ResetBackoff():
                self._memory = memories.reset_backoff(self._memory, frozenset(request.versions))
                self._failures.forget(request.versions)
                return None
            case RemoveCopies():
                self._desired_state.stop_copies()
            case HoldServices():
                self._desired_state.hold(request.keys)
            case ReleaseServices():
                self._desired_state.release(request.keys)
        self._wake.set()
        return None

    async def ready(self) -> None:
        """Return once the first pass is done."""
        await self._ready.wait()

    # The loop

    async def run(self) -> None:
        """Run passes until cancelled; the first one after everything was listed."""
        await self._watch.ready()
        await self._claims.ready()
        await self._take_over()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._claims.run(), name="claims")
            tasks.create_task(self._run_passes(), name="passes")

    async def close(self) -> None:
        """Cancel operations and probes."""
        await self._executor.close()
        await self._host_names.close()
        await self._port_redirects.close()
        await self._prober.close()

    def run_pass(self, now: float) -> None:
        """Run one pass."""
        before = self._memory
        listed = self._results.merge_into(self._claims.own_replicas(self._watch.replicas), now)
        self._listed = listed = {**self._leaving(listed), **listed}
        self._desired = self._read_desired(listed, now)
        refused = frozenset(self._claims.refusals.values())
        self._recorder.record_problems(self._desired_state.problems, refused, now)
        self._recorder.record_runtime(self._runtime.name, self._watch.problem, now)
        self._memory, self._observed = observe(before, self._inputs(listed), now, self._random)
        running = self._watch.replicas.keys() | self._results.just_started() | self._starting()
        replicas = self._observed.replicas
        self._recorder.record_replicas(before, self._memory, replicas, running, now)
        analyses = self._analyses.analyze(self._desired.services, replicas, now)
        self._observed = msgspec.structs.replace(
            self._observed, analyses=analyses, hooks=self._hook_states(now)
        )
        self._plan = plan(self._desired, self._observed, now, self._random)
        for operation in self._plan.operations:
            self._apply(operation, now)
        for drain in self._drain_requests:
            self._apply(drain, now)
        self._drain_requests.clear()
        self._snapshots.update(
            replicas,
            self._desired,
            listed,
            self._jobs.callers(),
            {**self._jobs.addresses(), **self._executor.step_addresses},
            traffic_splits(self._desired.services, self._observed),
            now,
        )
        self._published = self._published or self._publisher.generation
        self._ready.set()

    async def _run_passes(self) -> None:
        try:
            while True:
                try:
                    self.run_pass(self._clock())
                except StoreWriteError as error:  # the next pass continues where this one ended
                    _log.error("pass aborted: state cannot be written", reason=str(error))
                # Not `wait_for`: it loses a cancellation that arrives together with the event.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(TICK):
                        await self._wake.wait()
                await asyncio.sleep(COALESCE)
                self._wake.clear()
        finally:
            await self.close()

    async def _take_over(self) -> None:
        """Continue where the previous control process stopped: the replicas of the held snapshot
        keep their state."""
        ready: dict[str, float] = {}
        leaving: set[str] = set()
        for service in self._held_snapshot.services if self._held_snapshot else ():
            for endpoint in service.endpoints:
                if endpoint.state == "ready":
                    ready[endpoint.id] = endpoint.ready_since
                else:
                    leaving.add(endpoint.id)
        listed, replaced_for = self._watch.replicas, self._replacements.read()
        self._memory = memories.restore_memory(ready, leaving, listed, self._clock(), replaced_for)
        for name, stored in self._store.projects.items():
            try:
                await self._gateways.discover(name, [s.name for s in stored.project.services])
            except RuntimeFailure as error:
                _log.info("gateways are not known yet", project=name, error=str(error))

    # Parts of a pass

    def _read_desired(self, listed: Mapping[str, ObservedReplica], now: float) -> Desired:
        return self._desired_state.desired(
            listed, now, self._stopping(), frozenset(self._claims.held_elsewhere)
        )

    def _inputs(self, listed: Mapping[str, ObservedReplica]) -> Inputs:
        """Return everything that a pass observes, as one value."""
        running = self._executor.running.values()
        return Inputs(
            listed=listed,
            probes=self._prober.results,
            drained=frozenset(
                name
                for name, record in self._memory.records.items()
                if record.drain_since and self._publisher.is_drained(name)
            ),
            in_flight=self._in_flight,
            starting={op.name: op for op in running if isinstance(op, StartReplica)},
            stopping=self._stopping(),
            pausing_or_resuming=frozenset(
                op.name for op in running if isinstance(op, PauseReplica | ResumeReplica)
            ),
            failure_reports=self._results.take_troubles(),
            specs={s.key: s.spec for s in self._desired.services},
            outputs_kept=self._failures.outputs_kept,
            available=self._watch.problem is None,
            may_start=self._builder.may_start(),
            moving_ports=self._gateways.ports.plan.pending,
            start_slots=self._start_slots(),
            projects_with_jobs=self._jobs.working_projects(),
            prepared=self._executor.prepared,
            preparing=frozenset(
                (f"{op.project}/{op.service}", op.revision)
                for op in running
                if isinstance(op, PrepareRevision)
            ),
        )

    def _stopping(self) -> frozenset[str]:
        """Return the replicas that meshd stops or removes now."""
        running = self._executor.running.values()
        return frozenset(op.name for op in running if isinstance(op, StopReplica | RemoveReplica))

    def _leaving(self, listed: Mapping[str, ObservedReplica]) -> Mapping[str, ObservedReplica]:
        """Return the replicas that are no longer `listed` while an operation stops or removes them,
        as they were listed before. Its result belongs to a replica that is known: the output that
        it has read would be lost otherwise, and a deployment would fail without it."""
        return {
            op.name: self._listed[op.name]
            for op in self._executor.running.values()
            if isinstance(op, StopReplica | RemoveReplica)
            and op.name in self._listed.keys() - listed.keys()
        }

    def _starting(self) -> frozenset[str]:
        """Return the replicas that meshd starts now."""
        running = self._executor.running.values()
        return frozenset(op.name for op in running if isinstance(op, StartReplica))

    def _hook_states(self, now: float) -> Mapping[str, HookState]:
        busy = [service for service in self._desired.services if not service.rollout.is_done]
        return self._hooks.states([id for service in busy for id in hook_ids(service, now)])

    def _find_replica(self, name: str) -> Replica | None:
        return next((r for r in self._observed.replicas if r.name == name), None)

    def _apply(self, operation: Operation, now: float) -> None:
        self._memory = self._applier.apply(operation, self._memory, now)

    async def _perform(self, operation: Operation) -> ObservedReplica | None:
        return (await self._executor.perform(operation)).replica

    def _keep_output(self, name: str, output: Sequence[OutputLine]) -> None:
        """Keep the output of a replica that is about to be removed."""
        replica = self._find_replica(name)
        if replica is not None and output:
            self._results.keep_output(replica, output, self._clock())

    def _on_done(self, result: OperationResult) -> None:
        """Take the result of an operation of a plan."""
        operation, now = result.operation, self._clock()
        gone = (
            self._find_replica(operation.name)
            if isinstance(operation, StopReplica | RemoveReplica | ReadOutput)
            else None
        )
        self._results.record(result, self._memory, gone, now)
        if isinstance(operation, ForgetProject) and result.error is None:
            self.request(ReloadDesired())
        self._wake.set()
