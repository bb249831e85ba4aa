"""`Control` carried out: what the surface may ask of the control process.

Changes go to the store and wake the loop; answers are read from the loop's last pass.
"""

import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from importlib import metadata

import msgspec

from meshd.api.dto import DeployResult, PlanPreview, Recording, ServicePolicy, ServiceStatus, Status
from meshd.api.port import JobControl, RolloutControl
from meshd.control.access_policy import policies
from meshd.control.deploy.admission import Admission
from meshd.control.deploy.deployments import Deployments
from meshd.control.deploy.preview import Preview
from meshd.control.deploy.progress import ProgressTracker
from meshd.control.log_tail import LogTail
from meshd.control.lookup import Lookup
from meshd.control.rollouts import RolloutManager
from meshd.control.shutdown import Shutdown
from meshd.control.status import by_service, project_statuses, service_status
from meshd.model.errors import NotFound, Rejected
from meshd.model.event import Event, Kind
from meshd.model.replica_phase import ENDED
from meshd.model.rollout import Override
from meshd.model.scaling import ScaleDecision, Sizing
from meshd.publish.gateways import TOKEN_ADDRESS, Gateways
from meshd.publish.publisher import Publisher
from meshd.reconcile.loop import Reconciler
from meshd.runtime.base import Runtime
from meshd.scaling.sizing import proposed
from meshd.spec.model import Project, Scale
from meshd.store.calls import CallLog
from meshd.store.decisions import DecisionLog
from meshd.store.events import EventLog
from meshd.store.store import Store
from meshd.store.traffic import TrafficLog
from meshd.store.usage import UsageLog
from meshd.telemetry.ingest import Ingest
from meshd.telemetry.metrics import Metrics
from meshd.telemetry.usage_sampler import UsageSampler


class ControlFacade:
    """The one implementation of `meshd.api.port.Control`."""

    def __init__(
        self,
        runtime: Runtime,
        store: Store,
        events: EventLog,
        decisions: DecisionLog,
        traffic: TrafficLog,
        loop: Reconciler,
        publisher: Publisher,
        gateways: Gateways,
        ingest: Ingest,
        end: Callable[[], None],
    ) -> None:
        self.exposition: Metrics | None = None
        self.meter: UsageSampler | None = None
        self.by_hand: RolloutManager | None = None
        self.calls: CallLog | None = None
        self.jobs: JobControl | None = None
        self.used: UsageLog | None = None
        self.filter: Callable[[], str] = str
        self._names = Lookup(store, loop)
        preview = Preview(store, traffic, loop)
        self.admission = Admission(runtime, store, loop, preview)
        self.deployments = Deployments(
            runtime, store, events, loop, gateways, self._names, self.admission, preview
        )
        self._progress = ProgressTracker(runtime, store, loop, self._names)
        self._tails = LogTail(runtime, self._names)
        self._ending = Shutdown(store, loop, publisher, self.deployments.down, end)
        self._runtime = runtime
        self._store = store
        self._events = events
        self._decisions = decisions
        self._traffic = traffic
        self._loop = loop
        self._publisher = publisher
        self._gateways = gateways
        self._ingest = ingest

    # What is

    def status(self) -> Status:
        """See `Control.status`."""
        services, claims = tuple(self.services()), self._loop.claims
        projects = project_statuses(
            self._store.projects, services, claims.elsewhere, claims.refused
        )
        return msgspec.structs.replace(self.about(), services=services, projects=projects)

    def services(self) -> Iterator[ServiceStatus]:
        """The status of every service, each as of when it is asked for."""
        loop = self._loop
        groups = by_service(loop.observed.replicas)
        waiting = dict(loop.plan.waiting)
        for service in loop.desired.services:
            now = time.time()
            yield service_status(
                service,
                groups.get(service.key, ()),
                loop.observed,
                waiting.get(service.key, ""),
                self._ingest,
                self._store.override(service.key, now),
                self._events.last_of(service.key),
                self.meter.loads if self.meter else {},
                now,
            )

    def about(self) -> Status:
        """The daemon itself, without its services and projects."""
        loop = self._loop
        generation = self._publisher.generation
        inner = {TOKEN_ADDRESS, *(each.address for each in self._gateways.listeners())}
        return Status(
            version=version(),
            runtime=self._runtime.name,
            runtime_state="ok" if loop.observed.available else "does not answer",
            generation=(generation.epoch, generation.number),
            workers=self._publisher.live,
            proxy=tuple(b for a, b in self._publisher.bound.items() if a not in inner),
            adopts=loop.claims.adopts,
            filter=self.filter(),
        )

    async def metrics(self) -> bytes:
        """See `Control.metrics`."""
        return await self.exposition.exposition() if self.exposition else b""

    def events(self, since: int, limit: int) -> Sequence[Event]:
        """See `Control.events`."""
        return self._events.since(since, limit)

    def decisions(
        self, project: str, service: str, at: float, limit: int
    ) -> Sequence[ScaleDecision]:
        """See `Control.decisions`."""
        self._names.service(project, service)
        return self._decisions.of(f"{project}/{service}", at, limit)

    def traffic(self, project: str, service: str, since: float) -> Recording:
        """See `Control.traffic`."""
        found = self._names.service(project, service)
        scale = found.spec.mesh.scale or Scale()
        return Recording(
            service=found.key,
            scale=scale.model_dump(mode="json", exclude_defaults=True),
            spans=tuple(self._traffic.of(found.key, since)),
        )

    def policies(self, project: str) -> Sequence[ServicePolicy]:
        """See `Control.policies`."""
        services = self._names.services(project)
        if not services:
            self._names.stored(project)
        seen = self.calls.of(project, time.time()) if self.calls else {}
        return policies(project, [service.spec for service in services], seen)

    def sizes(self) -> Sequence[Sizing]:
        """See `Control.sizes`."""
        if self.used is None:
            return []
        services = [s for s in self._loop.desired.services if not s.adopted]
        return [proposed(s.key, self.used.of(s.key), s.spec.resources) for s in services]

    def subscribe(self) -> AsyncIterator[Event]:
        """See `Control.subscribe`."""
        return self._events.subscribe()

    def rollout_control(self) -> RolloutControl:
        """See `Control.rollout_control`."""
        if self.by_hand is None:
            raise Rejected("this daemon knows no rollouts")
        return self.by_hand

    def job_control(self) -> JobControl:
        """See `Control.job_control`."""
        if self.jobs is None:
            raise Rejected("this daemon takes no jobs")
        return self.jobs

    # Deployments

    async def deploy(self, project: Project, who: str, take_over: bool = False) -> None:
        """See `Control.deploy`."""
        await self.deployments.deploy(project, who, take_over)

    def progress(self, project: str) -> DeployResult:
        """See `Control.progress`."""
        releases = self.by_hand.newest(project) if self.by_hand else ()
        return self._progress.of(project, releases)

    async def plan(self, project: Project) -> PlanPreview:
        """See `Control.plan`."""
        return await self.deployments.plan(project)

    async def down(self, project: str) -> None:
        """See `Control.down`."""
        await self.deployments.down(project)

    # Replicas

    async def scale(self, project: str, service: str, replicas: int | None, seconds: float) -> None:
        """See `Control.scale`."""
        found = self._names.service(project, service)
        if replicas is not None:
            self.admission.check_count(found, replicas)
        now = time.time()
        override = None
        if replicas is not None:
            override = Override(replicas, now + seconds if seconds > 0 else 0.0)
        self._store.set_override(found.key, override)
        text = "taken back" if replicas is None else f"set to {replicas} by hand"
        if seconds > 0 and replicas is not None:
            text += f" for {seconds:g} s"
        self._events.record(now, Kind.SCALE_OVERRIDE, text, project=project, service=service)
        self._loop.wake.set()

    async def drain(self, replica: str) -> None:
        """See `Control.drain`."""
        found = self._loop.replica(replica)
        if found is None or found.phase in ENDED:
            raise NotFound(f"there is no replica {replica}")
        self._loop.drain(replica, "drained by hand")

    async def logs(self, project: str, service: str, tail: int) -> Sequence[tuple[str, str]]:
        """See `Control.logs`."""
        return await self._tails.logs(project, service, tail)

    def follow(self, project: str, service: str) -> AsyncIterator[tuple[str, str]]:
        """See `Control.follow`."""
        return self._tails.follow(project, service)

    async def shutdown(self, stop_replicas: bool) -> None:
        """See `Control.shutdown`."""
        await self._ending.shutdown(stop_replicas)


def version() -> str:
    """The installed version."""
    return metadata.version("meshd")
