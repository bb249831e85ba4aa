"""A `Control` for tests of the API and the CLI: records calls, returns what a test puts in."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import msgspec

from meshd.api.dto import (
    DeployResult,
    Exposition,
    LiveUpdate,
    PlanPreview,
    ProjectStatus,
    Recording,
    RestartOrder,
    ScaleResult,
    ServicePolicy,
    ServiceStatus,
    Status,
)
from meshd.model.access import Identity, NewSignInLink, SignInLink
from meshd.model.certificate import CertificateStatus
from meshd.model.errors import NotFound, ReaderTooSlow, Rejected
from meshd.model.event import Event
from meshd.model.history import HistoryPoint, LatencyMap, MeshThen, Sparkline
from meshd.model.output import OutputQuery, ReplicaLine
from meshd.model.release import Release
from meshd.model.scaling import ScaleDecision, Sizing
from meshd.model.silence import NewSilence, Silence
from meshd.spec.model import Project
from tests.fakes.access_control import FakeAccessControl
from tests.fakes.job_control import FakeJobControl
from tests.fakes.node_control import FakeNodeControl
from tests.fakes.record_control import FakeRecordControl
from tests.fakes.volume_control import FakeVolumeControl


class FakeControl:
    """Projects become ready at once; `calls` lists the calls."""

    def __init__(self) -> None:
        self.calls: list[tuple[object, ...]] = []
        self.projects: dict[str, Project] = {}
        self.stored: list[Event] = []
        self.decided: list[ScaleDecision] = []
        self.policy: list[ServicePolicy] = []
        self.recording = Recording("shop/orders", {})
        self.then = MeshThen(0.0)
        self.lines: list[tuple[str, str]] = []
        self.restarting = RestartOrder((), "start-first")
        self.result: DeployResult | None = None
        self.services: tuple[ServiceStatus, ...] | None = None
        self.plan_text = ""
        self.outlook: tuple[str, ...] = ()
        self.missing: tuple[str, ...] = ()
        self.shortage = ""
        self.released: list[Release] = []
        self.jobs = FakeJobControl()
        self.volumes = FakeVolumeControl()
        self.nodes = FakeNodeControl()
        self.records = FakeRecordControl()
        self.access = FakeAccessControl()
        self.sized: list[Sizing] = []
        self.certified: list[CertificateStatus] = []
        self.refuse: Exception | None = None
        self.lease_expired = False
        self.silenced: list[Silence] = []
        self.exposition = b"# nothing\n"
        self.ended = asyncio.Event()
        self.listeners: list[asyncio.Queue[Event | Exception | None]] = []
        self.queries: list[OutputQuery] = []
        self.at = 0.0
        self.followers: list[asyncio.Queue[tuple[str, str] | None]] = []

    def require_lead(self) -> None:
        if self.lease_expired:
            raise Rejected("this meshd may not change anything")

    def _called(self, *what: object) -> None:
        self.calls.append(what)
        if self.refuse is not None:
            raise self.refuse

    def _known(self, project: str) -> Project:
        if project not in self.projects:
            raise NotFound(f"no project {project!r}")
        return self.projects[project]

    def emit(self, event: Event) -> None:
        """Record an event and send it to subscribers."""
        self.stored.append(event)
        for queue in self.listeners:
            queue.put_nowait(event)

    def drop_listeners(self) -> None:
        """End all subscriptions as if their readers were too far behind."""
        for queue in self.listeners:
            queue.put_nowait(ReaderTooSlow())

    def status(self) -> Status:
        if self.services is not None:
            services = self.services
        else:
            services = tuple(
                ServiceStatus(
                    project=project.name,
                    name=service.name,
                    desired=1,
                    running=1,
                    ready=1,
                    minimum=1,
                    maximum=1,
                    revision="r1",
                )
                for project in self.projects.values()
                for service in project.services
            )
        return Status(
            version="0",
            runtime="process",
            runtime_state="ok",
            generation=(1, 2),
            workers=(1,),
            proxy=("127.0.0.1:8080",),
            services=services,
            projects=tuple(
                ProjectStatus(name, "up", 1, 1, 1) for name in sorted({s.project for s in services})
            ),
        )

    async def deploy(self, project: Project, who: str, take_over: bool = False) -> None:
        self._called("deploy", project.name, who)
        self.projects[project.name] = project

    def progress(self, project: str) -> DeployResult:
        self._known(project)
        return self.result or DeployResult(project, done=True, ok=True)

    async def plan(self, project: Project) -> PlanPreview:
        self._called("plan", project.name)
        return PlanPreview(self.plan_text, self.outlook, missing=self.missing)

    async def down(self, project: str) -> None:
        self._called("down", project)
        self._known(project)
        del self.projects[project]

    async def scale(
        self, project: str, service: str, replicas: int | None, seconds: float
    ) -> ScaleResult:
        self._called("scale", project, service, replicas, seconds)
        return ScaleResult(self.shortage)

    def restart(self, project: str, service: str, who: str) -> RestartOrder:
        self._called("restart", project, service)
        return self.restarting

    async def drain(self, replica: str) -> None:
        self._called("drain", replica)

    async def logs(self, project: str, service: str, query: OutputQuery) -> Sequence[ReplicaLine]:
        self._called("logs", project, service, query.tail)
        self.queries.append(query)
        return [ReplicaLine(replica, self.at, line) for replica, line in self.lines[-query.tail :]]

    async def follow(
        self, project: str, service: str, query: OutputQuery
    ) -> AsyncIterator[ReplicaLine]:
        queue: asyncio.Queue[tuple[str, str] | None] = asyncio.Queue()
        self.followers.append(queue)
        self.queries.append(query)
        try:
            for replica, text in self.lines[-query.tail :] if query.tail else ():
                yield ReplicaLine(replica, self.at, text)
            while (line := await queue.get()) is not None:
                yield ReplicaLine(line[0], 2.0, line[1])
        finally:
            self.followers.remove(queue)

    def policies(self, project: str) -> Sequence[ServicePolicy]:
        self._called("policies", project)
        return self.policy

    def decisions(
        self, project: str, service: str, at: float, limit: int
    ) -> Sequence[ScaleDecision]:
        self._called("decisions", project, service, at, limit)
        return self.decided[:limit]

    def history_at(self, at: float, project: str) -> MeshThen:
        found = self.then if self.then.at == at else MeshThen(at)
        services = [s for s in found.services if project in ("", s.service.partition("/")[0])]
        return MeshThen(at, tuple(services))

    def history(
        self, project: str, service: str, since: float, until: float
    ) -> Sequence[HistoryPoint]:
        key = f"{project}/{service}"
        return [each.point for each in self.then.services if each.service == key]

    def traffic(self, project: str, service: str, since: float) -> Recording:
        self._called("traffic", project, service, since)
        return self.recording

    def events(self, since: int, limit: int) -> Sequence[Event]:
        return [event for event in self.stored if event.id > since][:limit]

    async def subscribe(self) -> AsyncIterator[Event]:
        queue: asyncio.Queue[Event | Exception | None] = asyncio.Queue()
        self.listeners.append(queue)
        try:
            while (event := await queue.get()) is not None:
                if isinstance(event, Exception):
                    raise event
                yield event
        finally:
            self.listeners.remove(queue)

    async def metrics(self, accept: str) -> Exposition:
        return Exposition("text/plain; version=0.0.4; charset=utf-8", self.exposition)

    def silence_control(self) -> "FakeControl":
        return self

    def silences(self) -> Sequence[Silence]:
        return self.silenced

    def create_silence(self, new: NewSilence, who: str) -> Silence:
        id, until = f"s{len(self.silenced)}", 1e9 + new.seconds
        made = Silence(id, new.project, new.service, new.topic, until, who, new.reason)
        self.silenced.append(made)
        return made

    def remove_silence(self, id: str) -> None:
        if id not in {each.id for each in self.silenced}:
            raise NotFound(id)
        self.silenced = [each for each in self.silenced if each.id != id]

    def rollout_control(self) -> "FakeControl":
        return self

    def releases(self, project: str, service: str, limit: int) -> Sequence[Release]:
        return self.released[:limit]

    async def undo(self, project: str, service: str, to: int, who: str) -> Release:
        self._called("undo", project, service, to, who)
        return self.released[0]

    def pause(self, project: str, service: str, who: str) -> None:
        self._called("pause", project, service, who)

    def resume(self, project: str, service: str, who: str) -> None:
        self._called("resume", project, service, who)

    def sizes(self) -> Sequence[Sizing]:
        return self.sized

    def retry_certificate(self, name: str) -> None:
        self._called("retry certificate", name)

    def certificates(self) -> Sequence[CertificateStatus]:
        return self.certified

    def job_control(self) -> FakeJobControl:
        return self.jobs

    def record_control(self) -> FakeRecordControl:
        return self.records

    def node_control(self) -> FakeNodeControl:
        return self.nodes

    def volume_control(self) -> FakeVolumeControl:
        return self.volumes

    def access_control(self) -> FakeAccessControl:
        return self.access

    async def shutdown(self, stop_replicas: bool) -> None:
        self._called("shutdown", stop_replicas)
        self.ended.set()

    def sparklines(self, since: float, project: str) -> Sequence[Sparkline]:
        return []

    def latencies(self, project: str, service: str, since: float, until: float) -> LatencyMap:
        return LatencyMap(10, 0, (0.1,), ())

    def live(self, project: str) -> LiveUpdate:
        status = self.status()
        services = tuple(s for s in status.services if project in ("", s.project))
        daemon = msgspec.structs.replace(status, services=(), projects=())
        return LiveUpdate(1.0, True, daemon, services, (), (), ())

    async def follow_live(self, project: str) -> AsyncIterator[msgspec.Raw]:
        yield msgspec.Raw(msgspec.json.encode(self.live(project)))

    def sign_in_link(self, caller: Identity, new: NewSignInLink) -> SignInLink:
        self._called("sign-in link", caller.who, new.role)
        return SignInLink("http://127.0.0.1:9902/#code=c", 120.0)
