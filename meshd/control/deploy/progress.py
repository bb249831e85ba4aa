"""Where the last deployment of a project stands."""

from meshd.api.dto import DeployResult
from meshd.control.lookup import Lookup
from meshd.model.desired import DesiredService
from meshd.model.release import Release
from meshd.reconcile.loop import Reconciler
from meshd.reconcile.progress import DeploymentProgress, standing
from meshd.runtime.base import Runtime
from meshd.runtime.support import unsupported_features
from meshd.store.store import Store


class ProgressTracker:
    """Reads it from the last pass."""

    def __init__(self, runtime: Runtime, store: Store, loop: Reconciler, names: Lookup) -> None:
        self._runtime = runtime
        self._store = store
        self._loop = loop
        self._names = names

    def of(self, project: str, releases: tuple[Release, ...]) -> DeployResult:
        """See `Control.progress`. Raises NoSuchThing."""
        stored = self._names.stored(project)
        standings = [
            (service, self._standing(service)) for service in self._names.services(project)
        ]
        new = len(standings) < len(stored.project.services)
        settled = not new and all(s.settled for _, s in standings)
        failed = [(service, s) for service, s in standings if s.settled and not s.ok]
        done = settled or any(service.rollout.is_rolling for service, _ in failed)
        lines = [s.text for _, s in standings if not s.ok]
        for service, _ in failed:
            lines += self._evidence(service)
        return DeployResult(
            project=project,
            done=done and not stored.leaving,
            ok=done and not failed,
            detail="\n".join(lines),
            plan=stored.plan,
            releases=releases,
            lacks=unsupported_features(stored.project, self._runtime.capabilities),
        )

    def _standing(self, service: DesiredService) -> DeploymentProgress:
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
