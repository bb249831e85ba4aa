"""Deployments: makes a project the desired state, and takes a project down.

Used by the control facade and by undo. Admission checks first; then the reconciler is requested to
prepare images and networks; then the project is stored, and the reconciler does the rest.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Final, Literal

import structlog

from meshd.api.dto import PlanPreview
from meshd.control.deploy.admission import Admission
from meshd.control.deploy.node_warnings import find_node_warnings
from meshd.control.deploy.preview import Preview
from meshd.control.lookup import Lookup
from meshd.model.errors import Rejected
from meshd.model.event import Kind
from meshd.model.operation import ForgetProject, PrepareRevision, PrepareService
from meshd.model.request import ReloadDesired, ResetBackoff, ResolveServices, RunPass
from meshd.model.runtime import Capabilities
from meshd.model.volume import abandoned_volumes, describe_abandoned
from meshd.reconcile.loop import Reconciler
from meshd.reconcile.ownership.claims import ProjectClaims
from meshd.runtime.base import RuntimeFailure
from meshd.runtime.support import unsupported_features
from meshd.spec.fingerprint import compute_revision, pin_dependencies
from meshd.spec.model import Project
from meshd.store.events import EventLog
from meshd.store.store import Store

_log = structlog.stdlib.get_logger(__name__)
POLL: Final = 0.05
"""Seconds between two looks at whether a project is gone."""
_VERBS: Final = {"deploy": "deployed", "undo": "rolled back"}


class PendingDeployment:
    """A deployment from its request until it is stored or rejected. `is_overtaken`: its project
    was taken down meanwhile."""

    __slots__ = ("is_overtaken", "project")

    def __init__(self, project: str) -> None:
        self.project = project
        self.is_overtaken = False

    def check(self) -> None:
        """Raise Rejected if the project was taken down: the later request counts."""
        if self.is_overtaken:
            raise Rejected(
                f"project {self.project} was taken down while this deployment was being prepared; "
                "deploy it again to have it run"
            )


class Deployments:
    """Begins one deployment at a time, and stores it once everything it needs is prepared. A
    deployment whose client has gone continues, but not past a `down` of its project, nor past
    the beginning of the daemon's end (`is_ending`)."""

    def __init__(
        self,
        *,
        capabilities: Capabilities,
        store: Store,
        events: EventLog,
        reconciler: Reconciler,
        claims: ProjectClaims,
        lookup: Lookup,
        admission: Admission,
        preview: Preview,
        is_ending: Callable[[], bool],
        clock: Callable[[], float],
    ) -> None:
        self._capabilities = capabilities
        self._store = store
        self._events = events
        self._reconciler = reconciler
        self._claims = claims
        self._lookup = lookup
        self._admission = admission
        self._preview = preview
        self._is_ending = is_ending
        self._clock = clock
        self._deploying = asyncio.Lock()
        self._pending: list[PendingDeployment] = []

    async def deploy(self, project: Project, who: str, take_over: bool = False) -> None:
        """See `Control.deploy`. Images and networks are prepared first, so that a spec whose
        image is missing changes nothing."""
        with self._noted(project.name) as pending:
            self._check(pending)
            async with self._deploying:
                await self._admission.check(project)
                async with self._claims.deploying(project.name, take_over):
                    project = await self._resolve(project, fetch=True)
                    await self._begin(pending, project, who, "deploy")

    async def undo(self, project: str, choose: Callable[[], Project], who: str) -> None:
        """Make the project that `choose` returns the desired state: one with an earlier revision
        of a service. It is called once no other deployment is under way, since it starts from
        what is stored then. Raises Rejected, and what `choose` raises."""
        with self._noted(project) as pending:
            self._check(pending)
            async with self._deploying:
                chosen = choose()
                await self._admission.check(chosen)
                await self._begin(pending, chosen, who, "undo")

    async def plan(self, project: Project) -> PlanPreview:
        """See `Control.plan`."""
        await self._admission.check(project)
        project = await self._resolve(project)
        revisions = {service.name: compute_revision(service) for service in project.services}
        now = self._clock()
        operations = self._preview.operations(project, revisions, now)
        lines = [str(operation) for each in operations for operation in each]
        lines += self._preview.changed_settings(project, revisions)
        impact = list(self._preview.impact(project, revisions, operations, now))
        stored = self._store.projects.get(project.name)
        if stored is not None and self._capabilities.volumes:
            impact += map(describe_abandoned, abandoned_volumes(stored.project, project))
        unsupported = unsupported_features(project, self._capabilities)
        unsupported += find_node_warnings(project, self._admission.nodes)
        unprepared = {
            operation.service
            for each in operations
            for operation in each
            if isinstance(operation, PrepareRevision)
        }
        needed = [service for service in project.services if service.name in unprepared]
        missing = await self._admission.missing_images(needed, project.name)
        return PlanPreview("\n".join(lines), tuple(impact), unsupported, tuple(missing))

    async def down(self, project: str) -> None:
        """See `Control.down`. It overtakes the deployments of the project that were requested
        before it."""
        overtaken = [each for each in self._pending if each.project == project]
        for each in overtaken:
            each.is_overtaken = True
        if overtaken and project not in self._store.projects:
            return
        self._lookup.stored_project(project)
        if project in self._claims.held_elsewhere:
            self._store.forget(project)
            self._reconciler.request(ReloadDesired())
            return
        self._store.leave(project)
        self._events.record(self._clock(), Kind.DOWN, "is being taken down", project=project)
        self._reconciler.request(RunPass())
        while self._is_leaving(project):  # noqa: ASYNC110 (state, not an event)
            await asyncio.sleep(POLL)
        if project not in self._store.projects:
            await self._claims.release(project)

    def _is_leaving(self, project: str) -> bool:
        """Whether it is still being taken down. It may be stored again right after its end."""
        stored = self._store.projects.get(project)
        return stored is not None and stored.leaving

    @contextlib.contextmanager
    def _noted(self, project: str) -> Iterator[PendingDeployment]:
        """Note a deployment as pending, also while it waits for another one."""
        pending = PendingDeployment(project)
        self._pending.append(pending)
        try:
            yield pending
        finally:
            self._pending.remove(pending)

    async def _begin(
        self,
        pending: PendingDeployment,
        project: Project,
        who: str,
        how: Literal["deploy", "undo"],
    ) -> None:
        now = self._clock()
        revisions = {service.name: compute_revision(service) for service in project.services}
        try:
            await self._prepare(pending, project, revisions)
        except Rejected as error:
            if project.name not in self._store.projects:
                await self._discard(project.name, error)
            raise
        # Nothing is awaited from the check in `_prepare` until the project is stored.
        operations = self._preview.operations(project, revisions, now)
        plan = "\n".join(str(operation) for each in operations for operation in each)
        begun = self._store.deploy(project, revisions, who, plan, now, how)
        versions = tuple((f"{project.name}/{name}", revisions[name]) for name in begun)
        self._reconciler.request(ResetBackoff(versions))
        text = f"{_VERBS[how]} by {who}: {_list(begun)}"
        self._events.record(now, Kind.DEPLOY, text, project=project.name)
        for name in begun:
            self._events.record(
                now,
                Kind.ROLLOUT_STARTED,
                f"revision {revisions[name]}",
                project=project.name,
                service=name,
            )
        self._reconciler.request(ReloadDesired())

    async def _resolve(self, project: Project, fetch: bool = False) -> Project:
        """Return the project with build contexts and images pinned to their current content;
        `fetch` pulls images first. Raises Rejected."""
        try:
            services = await self._reconciler.request(ResolveServices(project.services, fetch))
        except RuntimeFailure as error:
            raise Rejected(str(error)) from error
        return project.model_copy(update={"services": pin_dependencies(services)})

    async def _prepare(
        self, pending: PendingDeployment, project: Project, revisions: dict[str, str]
    ) -> None:
        """Prepare every service. Raises Rejected with the service and the reason, or because the
        project was taken down."""
        for service in project.services:
            self._check(pending)
            request = PrepareService(
                project=project.name,
                spec=service,
                revision=revisions[service.name],
                networks=project.networks,
                cause="it is about to be deployed",
            )
            try:
                await self._reconciler.request(request)
            except RuntimeFailure as error:
                text = str(error)
                named = text.startswith("service ")
                raise Rejected(text if named else f"service {service.name}: {text}") from error
        self._check(pending)

    def _check(self, pending: PendingDeployment) -> None:
        """Raise Rejected if the daemon ends, or if the project was taken down."""
        if self._is_ending():
            raise Rejected("this daemon is ending; `meshd up` starts another one afterwards")
        pending.check()

    async def _discard(self, project: str, error: Rejected) -> None:
        """Remove what was prepared for a project that is not stored. What cannot be removed is
        logged: the reason for the rejection counts more."""
        cause = "its deployment was rejected"
        try:
            await self._reconciler.request(ForgetProject(project=project, cause=cause))
        except RuntimeFailure as failure:
            _log.warning(
                "what was prepared is left", project=project, reason=str(failure), after=str(error)
            )


def _list(names: Sequence[str]) -> str:
    return ", ".join(names) if names else "no revision changed"
