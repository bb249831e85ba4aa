"""Rollouts by hand: undo, pause and resume, and the history of a service's releases."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence

from meshd.model.errors import NotFound, Rejected
from meshd.model.event import Kind
from meshd.model.release import Release, ReleaseOutcome
from meshd.model.rollout import Rollout
from meshd.reconcile.loop import Reconciler
from meshd.spec.fingerprint import REPLICA_FIELDS, compute_revision
from meshd.spec.model import Project, Service
from meshd.store.events import EventLog
from meshd.store.releases import KEPT, Releases
from meshd.store.store import Store
from meshd.telemetry.release_counts import ReleaseCounter

Begin = Callable[[Project, str], Awaitable[None]]
"""Makes a project the desired state as an undo, by whom."""


class RolloutManager:
    """The one implementation of `meshd.api.port.RolloutControl`."""

    def __init__(
        self,
        store: Store,
        releases: Releases,
        tallies: ReleaseCounter,
        events: EventLog,
        loop: Reconciler,
        begin: Begin,
    ) -> None:
        self._store = store
        self._releases = releases
        self._tallies = tallies
        self._events = events
        self._loop = loop
        self._begin = begin
        self._undoing = asyncio.Lock()

    def releases(self, project: str, service: str, limit: int) -> Sequence[Release]:
        """See `Rollouts.releases`."""
        key = f"{project}/{service}"
        self._rollout(key)
        return [self._counted(each) for each in self._releases.of(key, limit)]

    def newest(self, project: str) -> tuple[Release, ...]:
        """The newest release of each service of a project."""
        return tuple(
            self._counted(release)
            for key in sorted(self._store.rollouts)
            if key.startswith(f"{project}/")
            for release in self._releases.of(key, 1)
        )

    def _counted(self, release: Release) -> Release:
        now = self._tallies.of(f"{release.project}/{release.service}", release.number)
        return release.with_counts(now or release.tally)

    async def undo(self, project: str, service: str, to: int, who: str) -> Release:
        """See `Rollouts.undo`."""
        key = f"{project}/{service}"
        async with self._undoing:
            rollout = self._rollout(key)
            target = chosen(rollout, self._releases.of(key, KEPT), to)
            past = self._store.revision(key, target.revision)
            stored = self._store.projects.get(project)
            if past is None or stored is None:
                raise Rejected(f"release {target.number} of {service} is not kept any more")
            restored = restore(stored.project.service(service), past)
            if compute_revision(restored) != target.revision:
                raise Rejected(f"release {target.number} was of an earlier version of meshd")
            services = tuple(
                restored if each.name == service else each for each in stored.project.services
            )
            await self._begin(stored.project.model_copy(update={"services": services}), who)
        return self._releases.of(key, 1)[0]

    def pause(self, project: str, service: str, who: str) -> None:
        """See `Rollouts.pause`."""
        key, now = f"{project}/{service}", time.time()
        if not self._rollout(key).is_rolling:
            raise Rejected(f"no rollout of {service} is under way")
        self._store.pause(key, f"paused by {who}", now)
        self._tell(key, Kind.ROLLOUT_PAUSED, f"paused by {who}", now)

    def resume(self, project: str, service: str, who: str) -> None:
        """See `Rollouts.resume`."""
        key, now = f"{project}/{service}", time.time()
        rollout = self._rollout(key)
        if not rollout.is_paused:
            raise Rejected(f"no rollout of {service} is paused")
        self._loop.pardon([(key, rollout.revision)])
        self._store.resume(key, now)
        self._tell(key, Kind.ROLLOUT_RESUMED, f"resumed by {who}", now)

    def _tell(self, key: str, kind: Kind, text: str, now: float) -> None:
        project, _, service = key.partition("/")
        self._events.record(now, kind, text, project=project, service=service)
        self._loop.refresh(now)

    def _rollout(self, key: str) -> Rollout:
        found = self._store.rollouts.get(key)
        if found is None:
            known = ", ".join(sorted(self._store.rollouts)) or "none"
            raise NotFound(f"nothing was deployed as {key}; known: {known}")
        return found


def chosen(rollout: Rollout, releases: Sequence[Release], to: int) -> Release:
    """The release that an undo goes back to; `releases` are the newest first. Raises Refused."""
    running = rollout.revision if rollout.is_unfinished else rollout.effective_revision
    for release in releases:
        good = release.outcome is ReleaseOutcome.DONE and release.revision != running
        if release.number == to or (not to and good):
            break
    else:
        if to:
            known = ", ".join(str(each.number) for each in releases)
            raise NotFound(f"there is no release {to}; known: {known}")
        raise Rejected("there is no earlier revision that was good")
    if release.revision == running:
        raise Rejected(f"release {release.number} is what runs already")
    return release


def restore(now: Service, past: Service) -> Service:
    """The service as it is, with replicas as they were."""
    fields: dict[str, object] = {name: getattr(past, name) for name in REPLICA_FIELDS}
    fields["expose"] = past.expose
    fields["mesh"] = now.mesh.model_copy(update={"port": past.mesh.port})
    return now.model_copy(update=fields)
