"""What a deployment would come to: the services as they would be wanted, the steps to there, and
what these mean on the way."""

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from meshd.capacity import quota
from meshd.model.desired import Desired, DesiredService
from meshd.model.operation import Operation
from meshd.model.rollout import Rollout, RolloutState, next_rollout
from meshd.reconcile.loop import Reconciler
from meshd.reconcile.preview.impact import outlook
from meshd.reconcile.preview.settings_diff import settings_changed
from meshd.reconcile.preview.simulate import passes
from meshd.spec.fingerprint import compute_revision
from meshd.spec.model import Project
from meshd.store.store import Store
from meshd.store.traffic import TrafficLog, peak_rate

DAY: Final = 86400.0


class Preview:
    """Looks ahead from what is now; changes nothing."""

    def __init__(self, store: Store, traffic: TrafficLog, loop: Reconciler) -> None:
        self._store = store
        self._traffic = traffic
        self._loop = loop

    def wanted(
        self, project: Project, revisions: Mapping[str, str], now: float
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
                    rollout=Rollout(
                        revision=rollout.revision,
                        previous=rollout.previous,
                        state=RolloutState.ROLLING if begun else RolloutState.DONE,
                        since=0.0,
                        release_number=(old.release_number if old else 0) + bool(begun),
                    ),
                )
            )
        return services

    def steps(
        self, project: Project, revisions: Mapping[str, str], now: float
    ) -> list[tuple[Operation, ...]]:
        """The operations that it takes, pass by pass."""
        services = self.wanted(project, revisions, now)
        desired = Desired(services=tuple(services), projects=frozenset({project.name}))
        observed = self._loop.observed
        ours = tuple(r for r in observed.replicas if r.project == project.name)
        seen = msgspec.structs.replace(observed, replicas=ours)
        return passes(desired, seen, now, self._loop.dice)

    def changed_settings(self, project: Project, revisions: Mapping[str, str]) -> list[str]:
        """What changes of services that go on with the replicas they have."""
        stored = self._store.projects.get(project.name)
        if stored is None:
            return []
        old = {service.name: compute_revision(service) for service in stored.project.services}
        revised = {name for name in revisions if old.get(name) != revisions[name]}
        return settings_changed(stored.project, project, frozenset(revised))

    def outlook(
        self,
        project: Project,
        revisions: Mapping[str, str],
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
        traffic = {key: peak_rate(self._traffic.of(key, now - DAY)) for key in keys}
        return outlook(steps, replicas, weights, traffic)
