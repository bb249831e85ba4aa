"""`Control` carried out: what the surface may ask of the control process.

Changes go to the store and wake the loop; answers are read from the loop's last pass.
"""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing
from importlib import metadata
from typing import Final, Literal

import msgspec
import structlog

from meshd.api.jobs import Desk
from meshd.api.model import (
    DeployResult,
    Event,
    NoSuchThing,
    Planned,
    Recording,
    Refused,
    ScaleDecision,
    ServicePolicy,
    ServiceStatus,
    Sizing,
    Status,
)
from meshd.api.rollouts import Rollouts
from meshd.jobs import room
from meshd.policy import policies
from meshd.publish.compile import route_conflicts
from meshd.publish.gateways import TOKEN_ADDRESS, Gateways
from meshd.publish.publisher import Publisher
from meshd.reconcile.desired import Desired, DesiredService
from meshd.reconcile.forecast import passes
from meshd.reconcile.loop import Reconciler
from meshd.reconcile.memory import Replica
from meshd.reconcile.operation import Operation
from meshd.reconcile.outlook import outlook
from meshd.reconcile.phase import ENDED, Phase
from meshd.reconcile.progress import Standing, standing
from meshd.reconcile.settings import settings_changed
from meshd.reconcile.strategy import surge
from meshd.rollouts import RolloutDesk
from meshd.runtime.base import Node, ReplicaNotFound, Runtime, RuntimeFailure
from meshd.runtime.support import lacks, unsupported
from meshd.scaling import fit, placement, quota
from meshd.scaling.meter import Meter
from meshd.scaling.sizing import proposed
from meshd.spec.fingerprint import revision
from meshd.spec.model import Project, Scale
from meshd.spec.model.base import MOST_REPLICAS
from meshd.status import by_service, project_statuses, service_status
from meshd.store.calls import CallLog
from meshd.store.decisions import DecisionLog
from meshd.store.events import EventLog
from meshd.store.sizes import Sizes
from meshd.store.store import Override, Store, StoredProject, next_rollout
from meshd.store.traffic import TrafficLog, busiest
from meshd.telemetry.events import Kind
from meshd.telemetry.ingest import Ingest
from meshd.telemetry.metrics import Metrics

_log = structlog.stdlib.get_logger(__name__)
FIRST_LOOK: Final = 10.0
POLL: Final = 0.05
DAY: Final = 86400.0
GOODBYE: Final = 0.2
LINES_BEHIND: Final = 1000
_HOW: Final = {"deploy": "deployed", "undo": "set back"}


class MeshControl:
    """The one implementation of `meshd.api.model.Control`."""

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
        self.meter: Meter | None = None
        self.burdens: Callable[[], Sequence[room.Burden]] = list
        """The jobs that run, as what they take."""
        self.by_hand: RolloutDesk | None = None
        self.calls: CallLog | None = None
        self.jobs: Desk | None = None
        self.used: Sizes | None = None
        self.filter: Callable[[], str] = str
        self._runtime = runtime
        self._store = store
        self._events = events
        self._decisions = decisions
        self._traffic = traffic
        self._loop = loop
        self._publisher = publisher
        self._gateways = gateways
        self._ingest = ingest
        self._end = end
        self._deploying = asyncio.Lock()

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
        self._service(project, service)
        return self._decisions.of(f"{project}/{service}", at, limit)

    def traffic(self, project: str, service: str, since: float) -> Recording:
        """See `Control.traffic`."""
        found = self._service(project, service)
        scale = found.spec.mesh.scale or Scale()
        return Recording(
            service=found.key,
            scale=scale.model_dump(mode="json", exclude_defaults=True),
            spans=tuple(self._traffic.of(found.key, since)),
        )

    def policies(self, project: str) -> Sequence[ServicePolicy]:
        """See `Control.policies`."""
        services = self._services(project)
        if not services:
            self._stored(project)
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

    def rollouts(self) -> Rollouts:
        """See `Control.rollouts`."""
        if self.by_hand is None:
            raise Refused("this daemon knows no rollouts")
        return self.by_hand

    def desk(self) -> Desk:
        """See `Control.desk`."""
        if self.jobs is None:
            raise Refused("this daemon takes no jobs")
        return self.jobs

    # Deployments

    async def deploy(self, project: Project, who: str, take_over: bool = False) -> None:
        """See `Control.deploy`. Whatever is needed to start is made ready first, so that a
        spec whose image is missing changes nothing."""
        async with self._deploying:
            await self._check(project)
            async with self._loop.claims.deploying(project.name, take_over):
                await self._deploy(project, who)

    async def undo(self, project: Project, who: str) -> None:
        """Make a project with replicas of an earlier revision the desired state."""
        async with self._deploying:
            await self._check(project)
            await self._begin(project, who, "undo")

    async def _deploy(self, project: Project, who: str) -> None:
        await self._begin(await self._resolved(project, fetch=True), who, "deploy")

    async def _begin(self, project: Project, who: str, how: Literal["deploy", "undo"]) -> None:
        now = time.time()
        revisions = {service.name: revision(service) for service in project.services}
        await self._prepare(project, revisions)
        steps = self._forecast(project, revisions, now)
        plan = "\n".join(str(operation) for each in steps for operation in each)
        begun = self._store.deploy(project, revisions, who, plan, now, how)
        self._loop.pardon([(f"{project.name}/{name}", revisions[name]) for name in begun])
        self._events.record(
            now, Kind.DEPLOY, f"{_HOW[how]} by {who}: {_list(begun)}", project=project.name
        )
        for name in begun:
            self._events.record(
                now,
                Kind.ROLLOUT_STARTED,
                f"revision {revisions[name]}",
                project=project.name,
                service=name,
            )
        self._loop.refresh(now)

    async def _check(self, project: Project) -> None:
        """Raises Refused for what could never work here. A moment after the start, waits until
        the runtime was looked at for the first time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FIRST_LOOK):
                await self._loop.began.wait()
        if not self._loop.observed.available:
            raise Refused(f"the {self._runtime.name} runtime does not answer; try again later")
        stored = self._store.projects.get(project.name)
        if stored is not None and stored.leaving:
            raise Refused(f"project {project.name} is being taken down; try again once it is gone")
        problems = [
            str(lack)
            for service in project.services
            for lack in unsupported(service, self._runtime.capabilities)
            if lack.refuse
        ]
        served = self._loop.wanted.effective_projects()
        nodes = await self._runtime.nodes()
        problems += self._unfit(project, nodes)
        problems += route_conflicts([*(p for p in served if p.name != project.name), project])
        if problems:
            raise Refused("; ".join(problems))

    def _unfit(self, project: Project, nodes: Sequence[Node]) -> list[str]:
        """Why the project cannot have what it needs at the least, on the nodes or by its quota."""
        revisions = {service.name: revision(service) for service in project.services}
        ours = self._wanted_after(project, revisions, time.time())
        others = [s for s in self._loop.desired.services if s.project != project.name]
        more = {s.key: surge(s) for s in ours if s.rollout == "rolling"}
        problems = [*placement.refusals(project.services, nodes)]
        jobs, can = self.burdens(), self._runtime.capabilities
        wants = [room.want(job, can.memory_limits) for job in jobs]
        problems += fit.refusals(ours, others, more, nodes, can, wants)
        problems += room.refusals(project, nodes, can)
        if project.quota is not None:
            counts = [(service.spec, fit.least(service)) for service in ours]
            problems += quota.refusals(project.quota, counts, room.of(project.name, jobs))
        return problems

    async def _resolved(self, project: Project, fetch: bool = False) -> Project:
        """With what is built pinned to what its context holds now, and images to what their names
        stand for, after they were fetched where that is wanted. Raises Refused."""
        try:
            services = tuple(await self._runtime.resolve(project.services, fetch))
        except RuntimeFailure as error:
            raise Refused(str(error)) from error
        return project.model_copy(update={"services": services})

    async def _prepare(self, project: Project, revisions: dict[str, str]) -> None:
        """Raises Refused, naming the service that cannot be started and why."""
        fresh = project.name not in self._store.projects
        for service in project.services:
            version = (f"{project.name}/{service.name}", revisions[service.name])
            if version in self._loop.executor.prepared:
                continue
            try:
                await self._runtime.prepare(project.name, service, project.networks)
                await self._gateways.learn(project.name, (service.name,))
            except RuntimeFailure as error:
                if fresh:
                    await self._runtime.teardown(project.name)
                    self._gateways.forget(project.name)
                text = str(error)
                named = text.startswith("service ")
                raise Refused(text if named else f"service {service.name}: {text}") from error
            self._loop.executor.prepared.add(version)

    def progress(self, project: str) -> DeployResult:
        """See `Control.progress`."""
        stored = self._stored(project)
        standings = [(service, self._standing(service)) for service in self._services(project)]
        new = len(standings) < len(stored.project.services)
        settled = not new and all(s.settled for _, s in standings)
        failed = [(service, s) for service, s in standings if s.settled and not s.ok]
        done = settled or any(service.rollout == "rolling" for service, _ in failed)
        lines = [s.text for _, s in standings if not s.ok]
        for service, _ in failed:
            lines += self._evidence(service)
        return DeployResult(
            project=project,
            done=done and not stored.leaving,
            ok=done and not failed,
            detail="\n".join(lines),
            plan=stored.plan,
            releases=self.by_hand.newest(project) if self.by_hand else (),
            lacks=lacks(stored.project, self._runtime.capabilities),
        )

    def _standing(self, service: DesiredService) -> Standing:
        observed = self._loop.observed
        rollout = self._store.rollouts.get(service.key)
        group = [r for r in observed.replicas if r.key == service.key]
        failures = observed.failures.get((service.key, service.revision), ())
        waiting = dict(self._loop.plan.waiting).get(service.key, "")
        return standing(service, group, failures, rollout.cause if rollout else "", waiting)

    def _evidence(self, service: DesiredService) -> list[str]:
        rollout = self._store.rollouts.get(service.key)
        kept = self._loop.remains.of((service.key, rollout.revision if rollout else ""))
        if kept is None:
            return []
        return [kept.text, *(f"{kept.replica} | {line}" for line in kept.lines)]

    async def plan(self, project: Project) -> Planned:
        """See `Control.plan`."""
        await self._check(project)
        project = await self._resolved(project)
        revisions = {service.name: revision(service) for service in project.services}
        now = time.time()
        steps = self._forecast(project, revisions, now)
        lines = [str(operation) for each in steps for operation in each]
        stored = self._store.projects.get(project.name)
        if stored is not None:
            old = {service.name: revision(service) for service in stored.project.services}
            revised = {name for name in revisions if old.get(name) != revisions[name]}
            lines += settings_changed(stored.project, project, frozenset(revised))
        outlook = tuple(self._outlook(project, revisions, steps, now))
        return Planned("\n".join(lines), outlook, lacks(project, self._runtime.capabilities))

    def _outlook(
        self,
        project: Project,
        revisions: dict[str, str],
        steps: Sequence[Sequence[Operation]],
        now: float,
    ) -> list[str]:
        """What these operations mean on the way."""
        replicas = [r for r in self._loop.observed.replicas if r.project == project.name]
        new = {service.name: service for service in project.services}
        weights = {(f"{project.name}/{n}", revisions[n]): quota.uses(s) for n, s in new.items()}
        for replica in replicas:
            version = (replica.key, replica.revision)
            spec = self._store.revision(*version) if version not in weights else None
            if spec is not None:
                weights[version] = quota.uses(spec)
        keys = {replica.key for replica in replicas}
        traffic = {key: busiest(self._traffic.of(key, now - DAY)) for key in keys}
        return outlook(steps, replicas, weights, traffic)

    def _wanted_after(
        self, project: Project, revisions: dict[str, str], now: float
    ) -> list[DesiredService]:
        """The services as they will be wanted once the project is deployed."""
        services = []
        for spec in project.services:
            key = f"{project.name}/{spec.name}"
            old = self._store.rollouts.get(key)
            begun = next_rollout(old, revisions[spec.name], now)
            rollout = begun or old
            assert rollout is not None
            services.append(
                DesiredService(
                    project=project.name,
                    spec=spec,
                    revision=rollout.revision,
                    count=self._loop.wanted.count(key, spec, now),
                    rollout="rolling" if begun else "done",
                    number=(old.number if old else 0) + bool(begun),
                    previous=rollout.previous,
                    coming=rollout.revision,
                )
            )
        return services

    def _forecast(
        self, project: Project, revisions: dict[str, str], now: float
    ) -> list[tuple[Operation, ...]]:
        services = self._wanted_after(project, revisions, now)
        desired = Desired(services=tuple(services), projects=frozenset({project.name}))
        observed = self._loop.observed
        ours = tuple(r for r in observed.replicas if r.project == project.name)
        seen = msgspec.structs.replace(observed, replicas=ours)
        return passes(desired, seen, now, self._loop.dice)

    async def down(self, project: str) -> None:
        """See `Control.down`."""
        self._stored(project)
        if project in self._loop.claims.elsewhere:
            self._store.forget(project)
            self._loop.refresh(time.time())
            return
        self._store.leave(project)
        self._events.record(time.time(), Kind.DOWN, "is being taken down", project=project)
        self._loop.wake.set()
        while project in self._store.projects:  # noqa: ASYNC110 (what is, not what was told)
            await asyncio.sleep(POLL)
        await self._loop.claims.release(project)

    # Replicas

    async def scale(self, project: str, service: str, replicas: int | None, seconds: float) -> None:
        """See `Control.scale`."""
        found = self._service(project, service)
        if replicas is not None and not 0 <= replicas <= MOST_REPLICAS:
            raise Refused(f"{replicas} replicas of {service}: expected 0 to {MOST_REPLICAS}")
        stored = self._store.projects.get(project)
        if replicas is not None and stored is not None and stored.project.quota is not None:
            others = [s for s in self._services(project) if s.key != found.key]
            counts = [(found.spec, replicas), *((s.spec, fit.least(s)) for s in others)]
            jobs = room.of(project, self.burdens())
            if problems := quota.refusals(stored.project.quota, counts, jobs):
                raise Refused("; ".join(problems))
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
            raise NoSuchThing(f"there is no replica {replica}")
        self._loop.drain(replica, "drained by hand")

    async def logs(self, project: str, service: str, tail: int) -> Sequence[tuple[str, str]]:
        """See `Control.logs`."""
        lines: list[tuple[str, str]] = []
        for replica in self._replicas(project, service):
            try:
                told = await self._runtime.logs(replica.name, tail)
            except ReplicaNotFound:
                continue
            lines += [(replica.name, line) for line in told]
        return lines

    async def follow(self, project: str, service: str) -> AsyncIterator[tuple[str, str]]:
        """See `Control.follow`."""
        self._service(project, service)
        queue: asyncio.Queue[tuple[str, str]] = asyncio.Queue(LINES_BEHIND)
        tasks: dict[str, asyncio.Task[None]] = {}
        try:
            while True:
                for replica in self._replicas(project, service):
                    if replica.name not in tasks and replica.listed and replica.phase not in ENDED:
                        tasks[replica.name] = asyncio.create_task(
                            self._follow_one(replica.name, queue)
                        )
                line = None
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(4 * POLL):
                        line = await queue.get()
                if line is not None:
                    yield line
        finally:
            for task in tasks.values():
                task.cancel()
            await asyncio.gather(*tasks.values(), return_exceptions=True)

    async def _follow_one(self, name: str, queue: asyncio.Queue[tuple[str, str]]) -> None:
        try:
            async with aclosing(self._runtime.follow(name)) as lines:  # type: ignore[type-var]
                async for line in lines:
                    await queue.put((name, line))
        except RuntimeFailure as error:
            _log.debug("following ended", replica=name, error=str(error))

    async def shutdown(self, stop_replicas: bool) -> None:
        """See `Control.shutdown`. The answer goes out first; then the supervisor is told to
        end, or, where there is none, this process ends alone."""
        if stop_replicas:
            await asyncio.gather(*(self.down(name) for name in list(self._store.projects)))
            await self._end_copies()
        asyncio.get_running_loop().call_later(GOODBYE, self._end_all)

    async def _end_copies(self) -> None:
        """Have the copies of adopted containers drained and removed; what others started stays,
        and copies that others stopped are theirs to remove. Not waited for while the runtime does
        not answer."""
        self._loop.wanted.ending = True
        self._loop.wake.set()
        while self._loop.observed.available and any(  # noqa: ASYNC110 (what is, as above)
            replica.copied and (replica.phase is not Phase.GONE or replica.drain_since)
            for replica in self._loop.observed.replicas
        ):
            await asyncio.sleep(POLL)
        if self._loop.observed.available:
            self._loop.claims.adopts = False
            await self._loop.claims.release(*self._loop.claims.held)

    def _end_all(self) -> None:
        supervisor = self._publisher.supervisor
        if self._publisher.connected and supervisor:
            os.kill(supervisor, signal.SIGTERM)
        else:
            self._end()

    # Names

    def _stored(self, project: str) -> StoredProject:
        found = self._store.projects.get(project)
        if found is None:
            known = ", ".join(sorted(self._store.projects)) or "none"
            raise NoSuchThing(f"there is no project {project}; known: {known}")
        return found

    def _services(self, project: str) -> list[DesiredService]:
        return [s for s in self._loop.desired.services if s.project == project]

    def _service(self, project: str, service: str) -> DesiredService:
        found = self._loop.wanted.service(f"{project}/{service}")
        if found is None:
            known = ", ".join(s.spec.name for s in self._services(project)) or "none"
            raise NoSuchThing(f"project {project} has no service {service}; known: {known}")
        return found

    def _replicas(self, project: str, service: str) -> list[Replica]:
        key = self._service(project, service).key
        found = [r for r in self._loop.observed.replicas if r.key == key]
        return sorted(found, key=lambda r: (r.created_at, r.name))


def _list(names: Sequence[str]) -> str:
    return ", ".join(names) if names else "nothing to replace"


def version() -> str:
    """The installed version."""
    return metadata.version("meshd")
