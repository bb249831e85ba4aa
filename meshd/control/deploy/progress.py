"""The progress of a project's last deployment, with the evidence if it failed.

Used by the control facade. `meshd.reconcile.progress` (pure) evaluates one service.
"""

from collections.abc import Callable, Sequence
from typing import Final

from meshd.api.dto import DeployResult
from meshd.control.deploy.node_warnings import find_node_warnings
from meshd.control.lookup import Lookup
from meshd.model.desired import DesiredService
from meshd.model.release import Release
from meshd.model.runtime import Node
from meshd.reconcile.loop import Reconciler
from meshd.reconcile.progress import DeploymentProgress, deployment_progress
from meshd.runtime.base import Runtime
from meshd.runtime.support import unsupported_features
from meshd.store.store import Store
from proxy.wire.snapshot import Generation

UNROUTED: Final = "the proxies do not route by this deployment yet"


class ProgressTracker:
    """Reads the progress from the state as of the last pass.

    `is_installed`: whether the proxies route by a snapshot. Until they route by that of the
    deployment it is not done, so that a request right after it is answered by the new routes.
    """

    def __init__(
        self,
        runtime: Runtime,
        store: Store,
        reconciler: Reconciler,
        lookup: Lookup,
        nodes: Callable[[], Sequence[Node]],
        is_installed: Callable[[Generation], bool],
    ) -> None:
        self._runtime = runtime
        self._is_installed = is_installed
        self._nodes = nodes
        self._store = store
        self._reconciler = reconciler
        self._lookup = lookup

    def of(self, project: str, releases: tuple[Release, ...]) -> DeployResult:
        """See `Control.progress`. Raises NotFound."""
        stored = self._lookup.stored_project(project)
        progress = [(each, self._progress(each)) for each in self._lookup.services(project)]
        incomplete = len(progress) < len(stored.project.services)
        settled = not incomplete and all(p.settled for _, p in progress)
        failed = [(service, p) for service, p in progress if p.settled and not p.ok]
        published = self._reconciler.view().published
        routed = published is not None and self._is_installed(published)
        done = (settled and routed) or any(p.decisive for _, p in failed)
        lines = [p.text for _, p in progress if not p.ok]
        if settled and not routed:
            lines.append(UNROUTED)
        for service, _ in failed:
            lines += self._last_failure(service)
        return DeployResult(
            project=project,
            done=done and not stored.leaving,
            ok=done and not failed,
            detail="\n".join(lines),
            plan=stored.plan,
            releases=releases,
            unsupported=(
                *unsupported_features(stored.project, self._runtime.capabilities),
                *find_node_warnings(stored.project, self._nodes()),
            ),
        )

    def _progress(self, service: DesiredService) -> DeploymentProgress:
        view = self._reconciler.view()
        rollout = self._store.rollouts.get(service.key)
        group = [r for r in view.observed.replicas if r.key == service.key]
        failures = view.observed.failures.get((service.key, service.revision), ())
        waiting = dict(view.plan.waiting).get(service.key, "")
        cause = rollout.cause if rollout else ""
        blocked = dict(view.plan.blocked).get(service.key, "")
        kept = view.observed.outputs_kept
        return deployment_progress(service, group, failures, cause, waiting, blocked, kept)

    def _last_failure(self, service: DesiredService) -> list[str]:
        """Return the last failure of the deployed revision, with its output, as lines."""
        rollout = self._store.rollouts.get(service.key)
        version = (service.key, rollout.revision if rollout else "")
        record = self._reconciler.view().failures.get(version)
        if record is None:
            return []
        return [record.text, *(f"{record.replica} | {line}" for line in record.lines)]
