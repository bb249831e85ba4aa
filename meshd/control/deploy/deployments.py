"""Deployments: a project becomes what is wanted, or is taken down."""

import asyncio
import time
from collections.abc import Sequence
from typing import Final, Literal

from meshd.api.dto import PlanPreview
from meshd.control.deploy.admission import Admission
from meshd.control.deploy.preview import Preview
from meshd.control.lookup import Lookup
from meshd.model.errors import Rejected
from meshd.model.event import Kind
from meshd.publish.gateways import Gateways
from meshd.reconcile.loop import Reconciler
from meshd.runtime.base import Runtime, RuntimeFailure
from meshd.runtime.support import unsupported_features
from meshd.spec.fingerprint import compute_revision
from meshd.spec.model import Project
from meshd.store.events import EventLog
from meshd.store.store import Store

POLL: Final = 0.05
_HOW: Final = {"deploy": "deployed", "undo": "set back"}


class Deployments:
    """One begins at a time, and is stored once all that it needs to start is there."""

    def __init__(
        self,
        runtime: Runtime,
        store: Store,
        events: EventLog,
        loop: Reconciler,
        gateways: Gateways,
        names: Lookup,
        admission: Admission,
        preview: Preview,
    ) -> None:
        self._runtime = runtime
        self._store = store
        self._events = events
        self._loop = loop
        self._gateways = gateways
        self._names = names
        self._admission = admission
        self._preview = preview
        self._deploying = asyncio.Lock()

    async def deploy(self, project: Project, who: str, take_over: bool = False) -> None:
        """See `Control.deploy`. Whatever is needed to start is made ready first, so that a
        spec whose image is missing changes nothing."""
        async with self._deploying:
            await self._admission.check(project)
            async with self._loop.claims.deploying(project.name, take_over):
                await self._begin(await self._resolved(project, fetch=True), who, "deploy")

    async def undo(self, project: Project, who: str) -> None:
        """Make a project with replicas of an earlier revision the desired state."""
        async with self._deploying:
            await self._admission.check(project)
            await self._begin(project, who, "undo")

    async def plan(self, project: Project) -> PlanPreview:
        """See `Control.plan`."""
        await self._admission.check(project)
        project = await self._resolved(project)
        revisions = {service.name: compute_revision(service) for service in project.services}
        now = time.time()
        steps = self._preview.steps(project, revisions, now)
        lines = [str(operation) for each in steps for operation in each]
        lines += self._preview.changed_settings(project, revisions)
        outlook = tuple(self._preview.outlook(project, revisions, steps, now))
        return PlanPreview(
            "\n".join(lines), outlook, unsupported_features(project, self._runtime.capabilities)
        )

    async def down(self, project: str) -> None:
        """See `Control.down`."""
        self._names.stored(project)
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

    async def _begin(self, project: Project, who: str, how: Literal["deploy", "undo"]) -> None:
        now = time.time()
        revisions = {service.name: compute_revision(service) for service in project.services}
        await self._prepare(project, revisions)
        steps = self._preview.steps(project, revisions, now)
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

    async def _resolved(self, project: Project, fetch: bool = False) -> Project:
        """With what is built pinned to what its context holds now, and images to what their names
        stand for, after they were fetched where that is wanted. Raises Refused."""
        try:
            services = tuple(await self._runtime.resolve(project.services, fetch))
        except RuntimeFailure as error:
            raise Rejected(str(error)) from error
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
                raise Rejected(text if named else f"service {service.name}: {text}") from error
            self._loop.executor.prepared.add(version)


def _list(names: Sequence[str]) -> str:
    return ", ".join(names) if names else "nothing to replace"
