"""Previews a deployment: the services it would make, the operations it would take, their impact.

Used by admission checks and deployments. The simulation is `meshd.reconcile.preview` (pure).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import msgspec

from meshd.capacity import quota
from meshd.model.desired import Desired, DesiredService
from meshd.model.operation import Operation
from meshd.model.replica import RandomSource
from meshd.model.rollout import Rollout, RolloutState, next_rollout
from meshd.model.runtime import Node
from meshd.reconcile.desired_state import desired_count, spread_globally, warm_count
from meshd.reconcile.loop import Reconciler
from meshd.reconcile.preview.impact import describe_impact
from meshd.reconcile.preview.settings_diff import diff_settings
from meshd.reconcile.preview.simulate import simulate_passes
from meshd.spec.fingerprint import compute_revision
from meshd.spec.model import Project
from meshd.store.store import Store
from meshd.store.traffic import TrafficLog, peak_rate

DAY: Final = 86400.0
"""Seconds of recorded traffic whose highest rate the impact is compared with."""


class Preview:
    """Simulates from the state as of the last pass; changes nothing. `can_pause`: whether the
    runtime can pause replicas, so that there is a warm pool. `nodes`: see `DesiredStateBuilder`."""

    def __init__(
        self,
        store: Store,
        traffic: TrafficLog,
        reconciler: Reconciler,
        random: RandomSource,
        can_pause: bool,
        nodes: Callable[[], Sequence[Node]] | None = None,
    ) -> None:
        self._nodes = nodes
        self._can_pause = can_pause
        self._store = store
        self._traffic = traffic
        self._reconciler = reconciler
        self._random = random

    def desired_services(
        self, project: Project, revisions: Mapping[str, str], now: float
    ) -> list[DesiredService]:
        """Return the services that are desired once the project is deployed."""
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
                    desired=desired_count(self._store, key, spec, now),
                    warm=warm_count(self._store, key, spec, self._can_pause),
                    deployed_at=now,
                    rollout=Rollout(
                        revision=rollout.revision,
                        previous=rollout.previous,
                        state=RolloutState.ROLLING if begun else RolloutState.DONE,
                        since=0.0,
                        release_number=(old.release_number if old else 0) + bool(begun),
                    ),
                )
            )
        if self._nodes is not None:
            nodes = self._nodes()
            services = [spread_globally(each, nodes, each.desired) for each in services]
        return services

    def operations(
        self, project: Project, revisions: Mapping[str, str], now: float
    ) -> list[tuple[Operation, ...]]:
        """Return the operations that the deployment takes, pass by pass."""
        services = self.desired_services(project, revisions, now)
        desired = Desired(services=tuple(services), projects=frozenset({project.name}))
        observed = self._reconciler.view().observed
        ours = tuple(r for r in observed.replicas if r.project == project.name)
        seen = msgspec.structs.replace(observed, replicas=ours)
        return simulate_passes(desired, seen, now, self._random)

    def changed_settings(self, project: Project, revisions: Mapping[str, str]) -> list[str]:
        """Return the changes that apply without new replicas, as text."""
        stored = self._store.projects.get(project.name)
        if stored is None:
            return []
        old = {service.name: compute_revision(service) for service in stored.project.services}
        revised = {name for name in revisions if old.get(name) != revisions[name]}
        return diff_settings(stored.project, project, frozenset(revised))

    def impact(
        self,
        project: Project,
        revisions: Mapping[str, str],
        operations: Sequence[Sequence[Operation]],
        now: float,
    ) -> list[str]:
        """Return what the operations mean for capacity while they run, as text."""
        observed = self._reconciler.view().observed.replicas
        replicas = [r for r in observed if r.project == project.name]
        new = {service.name: service for service in project.services}
        weights = {
            (f"{project.name}/{n}", revisions[n]): quota.usage_limit(s) for n, s in new.items()
        }
        for replica in replicas:
            version = (replica.key, replica.revision)
            spec = self._store.revision(*version) if version not in weights else None
            if spec is not None:
                weights[version] = quota.usage_limit(spec)
        keys = {replica.key for replica in replicas}
        traffic = {key: peak_rate(self._traffic.of(key, now - DAY)) for key in keys}
        return describe_impact(operations, replicas, weights, traffic)
