"""Implements the API's `Control` protocol by delegating to the parts of the control process.

Made by `meshd.daemon.wiring`, called by `meshd.api.handlers`. Commands change the store or send
requests to the reconciler; queries read the state as of the reconciler's last pass.
"""

from collections.abc import AsyncIterator, Callable, Sequence

import msgspec

from meshd.api.dto import (
    DeployResult,
    Exposition,
    LiveUpdate,
    PlanPreview,
    Recording,
    RestartOrder,
    ScaleResult,
    ServicePolicy,
    Status,
)
from meshd.api.port import JobControl
from meshd.control.access import AccessManager
from meshd.control.access_policy import service_policies
from meshd.control.deploy.admission import Admission
from meshd.control.deploy.deployments import Deployments
from meshd.control.deploy.progress import ProgressTracker
from meshd.control.live import LiveFeed
from meshd.control.log_tail import LogTail
from meshd.control.lookup import Lookup
from meshd.control.nodes import NodeManager
from meshd.control.recorder import Recorder
from meshd.control.rollouts import RolloutManager
from meshd.control.shutdown import Shutdown
from meshd.control.status_reader import StatusReader
from meshd.control.volumes import VolumeManager
from meshd.model.access import Identity, NewSignInLink, SignInLink
from meshd.model.certificate import CertificateStatus
from meshd.model.errors import NotFound, Rejected, StoreWriteError
from meshd.model.event import Event, Kind
from meshd.model.history import HistoryPoint, LatencyMap, MeshThen, ServiceThen, Sparkline
from meshd.model.output import OutputQuery, ReplicaLine
from meshd.model.replica_phase import ALIVE, ENDED
from meshd.model.request import DrainRequest, ReplaceReplicas, RunPass
from meshd.model.rollout import Override
from meshd.model.scaling import ScaleDecision, Sizing
from meshd.notify.notifier import Notifier
from meshd.reconcile.loop import Reconciler
from meshd.scaling.sizing import propose
from meshd.spec.model import Project, Scale
from meshd.store.calls import CallLog
from meshd.store.decisions import DecisionLog
from meshd.store.events import EventLog
from meshd.store.store import Store
from meshd.store.traffic import TrafficLog
from meshd.store.usage import UsageLog
from meshd.telemetry.history import History
from meshd.telemetry.metrics import Metrics
from meshd.ui.page import WebPage


class ControlFacade:
    """The operations of the control process, as `meshd.api.port.Control` lists them."""

    def __init__(
        self,
        *,
        reconciler: Reconciler,
        store: Store,
        events: EventLog,
        decisions: DecisionLog,
        traffic: TrafficLog,
        calls: CallLog,
        sizes: UsageLog,
        lookup: Lookup,
        status: StatusReader,
        metrics: Metrics,
        admission: Admission,
        deployments: Deployments,
        progress: ProgressTracker,
        rollouts: RolloutManager,
        jobs: JobControl,
        volumes: VolumeManager,
        nodes: NodeManager,
        recorder: Recorder,
        log_tail: LogTail,
        access: AccessManager,
        notifier: Notifier,
        history: History,
        live: LiveFeed,
        page: WebPage,
        shutdown: Shutdown,
        certificates: Callable[[], Sequence[CertificateStatus]],
        retry_certificate: Callable[[str], bool],
        clock: Callable[[], float],
        leads: Callable[[], bool],
    ) -> None:
        self._leads = leads
        self._reconciler = reconciler
        self._store = store
        self._events = events
        self._decisions = decisions
        self._traffic = traffic
        self._calls = calls
        self._sizes = sizes
        self._lookup = lookup
        self._status = status
        self._metrics = metrics
        self._admission = admission
        self._deployments = deployments
        self._progress = progress
        self._rollouts = rollouts
        self._jobs = jobs
        self._volumes = volumes
        self._nodes = nodes
        self._recorder = recorder
        self._log_tail = log_tail
        self._access = access
        self._notifier = notifier
        self._history = history
        self._live = live
        self._page = page
        self._shutdown = shutdown
        self._certificates = certificates
        self._retry_certificate = retry_certificate
        self._clock = clock

    def require_lead(self) -> None:
        """See `Control.require_lead`."""
        if not self._leads():
            raise Rejected(
                "this meshd may not change anything: it could not renew its lease, since the Swarm "
                "has no leader here or another meshd leads; ask the one that leads"
            )

    # Queries

    def status(self) -> Status:
        """See `Control.status`."""
        return self._status.status()

    async def metrics(self, accept: str) -> Exposition:
        """See `Control.metrics`."""
        return await self._metrics.exposition(accept)

    def events(self, since: int, limit: int) -> Sequence[Event]:
        """See `Control.events`."""
        return self._events.since(since, limit)

    def decisions(
        self, project: str, service: str, at: float, limit: int
    ) -> Sequence[ScaleDecision]:
        """See `Control.decisions`."""
        self._lookup.service(project, service)
        return self._decisions.of(f"{project}/{service}", at, limit)

    def traffic(self, project: str, service: str, since: float) -> Recording:
        """See `Control.traffic`."""
        found = self._lookup.service(project, service)
        scale = found.spec.mesh.scale or Scale()
        return Recording(
            service=found.key,
            scale=scale.model_dump(mode="json", exclude_defaults=True),
            spans=tuple(self._traffic.of(found.key, since)),
        )

    def history_at(self, at: float, project: str) -> MeshThen:
        """See `Control.history_at`."""
        found = self._history.all_at(at, lambda key: not project or key.startswith(f"{project}/"))
        return MeshThen(at, tuple(ServiceThen(*each) for each in found))

    def history(
        self, project: str, service: str, since: float, until: float
    ) -> Sequence[HistoryPoint]:
        """See `Control.history`."""
        key = f"{project}/{service}"
        found = self._history.series(key, since, until or self._clock())
        if not found:
            self._lookup.service(project, service)
        return found

    def sparklines(self, since: float, project: str) -> Sequence[Sparkline]:
        """See `Control.sparklines`."""
        return self._history.sparklines(
            since, self._clock(), lambda key: not project or key.startswith(f"{project}/")
        )

    def latencies(self, project: str, service: str, since: float, until: float) -> LatencyMap:
        """See `Control.latencies`."""
        self._lookup.service(project, service)
        return self._history.latencies(f"{project}/{service}", since, until or self._clock())

    def live(self, project: str) -> LiveUpdate:
        """See `Control.live`."""
        return self._live.current(project, self._clock())

    def follow_live(self, project: str) -> AsyncIterator[msgspec.Raw]:
        """See `Control.follow_live`."""
        return self._live.follow(project, self._clock())

    def sign_in_link(self, caller: Identity, new: NewSignInLink) -> SignInLink:
        """See `Control.sign_in_link`."""
        return self._page.create_link(caller, new)

    def policies(self, project: str) -> Sequence[ServicePolicy]:
        """See `Control.policies`."""
        services = self._lookup.services(project)
        if not services:
            self._lookup.stored_project(project)
        seen = self._calls.of(project, self._clock())
        return service_policies(project, [service.spec for service in services], seen)

    def sizes(self) -> Sequence[Sizing]:
        """See `Control.sizes`."""
        services = [s for s in self._reconciler.view().desired.services if not s.adopted]
        return [propose(s.key, self._sizes.of(s.key), s.spec.resources) for s in services]

    def certificates(self) -> Sequence[CertificateStatus]:
        """See `Control.certificates`."""
        return self._certificates()

    def retry_certificate(self, name: str) -> None:
        """See `Control.retry_certificate`."""
        try:
            found = self._retry_certificate(name)
        except OSError as error:
            raise StoreWriteError(f"the state cannot be written: {error}") from error
        if not found:
            raise NotFound(f"no certificate is ordered for {name!r}; see `meshd certificates`")

    def subscribe(self) -> AsyncIterator[Event]:
        """See `Control.subscribe`."""
        return self._events.subscribe()

    def volume_control(self) -> VolumeManager:
        """See `Control.volume_control`."""
        return self._volumes

    def record_control(self) -> Recorder:
        """See `Control.record_control`."""
        return self._recorder

    def node_control(self) -> NodeManager:
        """See `Control.node_control`."""
        return self._nodes

    def rollout_control(self) -> RolloutManager:
        """See `Control.rollout_control`."""
        return self._rollouts

    def job_control(self) -> JobControl:
        """See `Control.job_control`."""
        return self._jobs

    def silence_control(self) -> Notifier:
        """See `Control.silence_control`."""
        return self._notifier

    def access_control(self) -> AccessManager:
        """See `Control.access_control`."""
        return self._access

    # Deployments

    async def deploy(self, project: Project, who: str, take_over: bool = False) -> None:
        """See `Control.deploy`."""
        await self._deployments.deploy(project, who, take_over)

    def progress(self, project: str) -> DeployResult:
        """See `Control.progress`."""
        return self._progress.of(project, self._rollouts.newest(project))

    async def plan(self, project: Project) -> PlanPreview:
        """See `Control.plan`."""
        return await self._deployments.plan(project)

    async def down(self, project: str) -> None:
        """See `Control.down`."""
        await self._deployments.down(project)

    # Replicas

    async def scale(
        self, project: str, service: str, replicas: int | None, seconds: float
    ) -> ScaleResult:
        """See `Control.scale`."""
        found = self._lookup.service(project, service)
        if replicas is not None:
            self._admission.check_count(found, replicas)
        now = self._clock()
        override = None
        if replicas is not None:
            override = Override(replicas, now + seconds if seconds > 0 else 0.0)
        self._store.set_override(found.key, override)
        text = "override removed" if replicas is None else f"set to {replicas} by hand"
        if seconds > 0 and replicas is not None:
            text += f" for {seconds:g} s"
        self._events.record(now, Kind.SCALE_OVERRIDE, text, project=project, service=service)
        self._reconciler.request(RunPass())
        if replicas is None:
            return ScaleResult()
        return ScaleResult(await self._admission.shortage(found, replicas))

    async def drain(self, replica: str) -> None:
        """See `Control.drain`."""
        found = self._reconciler.view().replica(replica)
        if found is None or found.phase in ENDED:
            raise NotFound(f"no replica {replica!r}; `meshd ps -r` lists them")
        self._reconciler.request(DrainRequest(replica, "drained by hand"))

    def restart(self, project: str, service: str, who: str) -> RestartOrder:
        """See `Control.restart`."""
        found = self._lookup.service(project, service)
        if found.adopted:
            raise Rejected(f"{found.key} is adopted: restart it with what started its containers")
        if found.rollout.is_unfinished:
            raise Rejected(
                f"a rollout of {found.key} has not ended; `meshd rollout status {service}` shows it"
            )
        names = tuple(
            replica.name
            for replica in self._lookup.replicas(project, service)
            if replica.phase in ALIVE and not replica.warm
        )
        if names:
            text = f"{', '.join(names)} replaced one after the other: restarted by {who}"
            self._events.record(
                self._clock(), Kind.SERVICE_RESTART, text, project=project, service=service
            )
            self._reconciler.request(ReplaceReplicas(names, f"restarted by {who}"))
        return RestartOrder(names, "stop-first" if found.stops_first else "start-first")

    async def logs(self, project: str, service: str, query: OutputQuery) -> Sequence[ReplicaLine]:
        """See `Control.logs`."""
        return await self._log_tail.logs(project, service, query)

    def follow(self, project: str, service: str, query: OutputQuery) -> AsyncIterator[ReplicaLine]:
        """See `Control.follow`."""
        return self._log_tail.follow(project, service, query)

    async def shutdown(self, stop_replicas: bool) -> None:
        """See `Control.shutdown`."""
        await self._shutdown.shutdown(stop_replicas)
