"""Rollouts by hand: undo, pause and resume, and the history of a service's releases.

Implements the API's `RolloutControl`. The reconciler carries the rollouts out.
"""

from collections.abc import Awaitable, Callable, Sequence

from meshd.model.errors import NotFound, Rejected
from meshd.model.event import Kind
from meshd.model.release import Release, ReleaseOutcome
from meshd.model.request import ReloadDesired, ResetBackoff
from meshd.model.rollout import Rollout
from meshd.reconcile.loop import Reconciler
from meshd.spec.fingerprint import REPLICA_FIELDS, is_revision_of
from meshd.spec.model import Project, Service
from meshd.store.events import EventLog
from meshd.store.releases import KEPT, Releases
from meshd.store.store import Store
from meshd.telemetry.release_counts import ReleaseCounter

BeginUndo = Callable[[str, Callable[[], Project], str], Awaitable[None]]
"""Makes what the function returns the desired state of a project as an undo, in the name of a
user. It calls the function once no other deployment is under way."""


class RolloutManager:
    """The rollouts and releases of all services."""

    def __init__(
        self,
        store: Store,
        releases: Releases,
        release_counts: ReleaseCounter,
        events: EventLog,
        reconciler: Reconciler,
        begin_undo: BeginUndo,
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._releases = releases
        self._release_counts = release_counts
        self._events = events
        self._reconciler = reconciler
        self._begin_undo = begin_undo
        self._clock = clock

    def releases(self, project: str, service: str, limit: int) -> Sequence[Release]:
        """See `RolloutControl.releases`."""
        key = f"{project}/{service}"
        self._rollout(key)
        return [self._with_counts(each) for each in self._releases.of(key, limit)]

    def newest(self, project: str) -> tuple[Release, ...]:
        """Return the newest release of each service of a project."""
        return tuple(
            self._with_counts(release)
            for key in sorted(self._store.rollouts)
            if key.startswith(f"{project}/")
            for release in self._releases.of(key, 1)
        )

    def _with_counts(self, release: Release) -> Release:
        now = self._release_counts.of(f"{release.project}/{release.service}", release.number)
        return release.with_counts(now or release.counts)

    async def undo(self, project: str, service: str, to: int, who: str) -> Release:
        """See `RolloutControl.undo`."""
        await self._begin_undo(project, lambda: self._restored(project, service, to), who)
        return self._releases.of(f"{project}/{service}", 1)[0]

    def _restored(self, project: str, service: str, to: int) -> Project:
        """Return the stored project with an earlier release of a service; for `to` see
        `choose_release`. Raises NotFound, Rejected."""
        key = f"{project}/{service}"
        rollout = self._rollout(key)
        target = choose_release(rollout, self._releases.of(key, KEPT), to)
        past = self._store.revision(key, target.revision)
        stored = self._store.projects.get(project)
        if past is None or stored is None:
            raise Rejected(f"release {target.number} of {service} is no longer stored")
        restored = restore(stored.project.service(service), past)
        if not is_revision_of(target.revision, restored):
            raise Rejected(f"release {target.number} was made by an earlier version of meshd")
        services = tuple(
            restored if each.name == service else each for each in stored.project.services
        )
        return stored.project.model_copy(update={"services": services})

    def pause(self, project: str, service: str, who: str) -> None:
        """See `RolloutControl.pause`."""
        key, now = f"{project}/{service}", self._clock()
        if not self._rollout(key).is_rolling:
            raise Rejected(f"{service} has no rollout in progress")
        self._store.pause(key, f"paused by {who}", now)
        self._record(key, Kind.ROLLOUT_PAUSED, f"paused by {who}", now)

    def resume(self, project: str, service: str, who: str) -> None:
        """See `RolloutControl.resume`."""
        key, now = f"{project}/{service}", self._clock()
        rollout = self._rollout(key)
        if not rollout.is_paused:
            raise Rejected(f"{service} has no paused rollout")
        self._reconciler.request(ResetBackoff(((key, rollout.revision),)))
        self._store.resume(key, now)
        self._record(key, Kind.ROLLOUT_RESUMED, f"resumed by {who}", now)

    def _record(self, key: str, kind: Kind, text: str, now: float) -> None:
        project, _, service = key.partition("/")
        self._events.record(now, kind, text, project=project, service=service)
        self._reconciler.request(ReloadDesired())

    def _rollout(self, key: str) -> Rollout:
        found = self._store.rollouts.get(key)
        if found is None:
            known = ", ".join(sorted(self._store.rollouts)) or "none"
            raise NotFound(f"there is no deployed service {key}; known: {known}")
        return found


def choose_release(rollout: Rollout, releases: Sequence[Release], to: int) -> Release:
    """Return the release that an undo goes back to.

    - `releases`: the stored releases, newest first.
    - `to`: number of the release; 0: the last good one with another revision.

    Raises NotFound if there is no such release, Rejected if there is nothing to go back to.
    """
    running = rollout.revision if rollout.is_unfinished else rollout.effective_revision
    for release in releases:
        good = release.outcome is ReleaseOutcome.DONE and release.revision != running
        if release.number == to or (not to and good):
            break
    else:
        if to:
            known = ", ".join(str(each.number) for each in releases)
            raise NotFound(f"there is no release {to}; known: {known}")
        raise Rejected("there is no earlier good release with another revision")
    if release.revision == running:
        raise Rejected(f"release {release.number} runs already")
    return release


def restore(now: Service, past: Service) -> Service:
    """Return the current service with the replica settings (image, command, ...) of `past`."""
    names = {*REPLICA_FIELDS, "image_digest", "image_ports", "expose"}
    if past.plain:
        names.add("ports")  # its container has them
    fields: dict[str, object] = {name: getattr(past, name) for name in names}
    fields["mesh"] = now.mesh.model_copy(update={"port": past.mesh.port})
    return now.model_copy(update=fields)
