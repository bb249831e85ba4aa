"""What a service waits for: the conditions of its `depends_on`. Pure.

Called by `meshd.reconcile.plan.plan` for each service that is not settled; `service` and the
rollout's outcome act on the result.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from meshd.model.desired import DesiredService
from meshd.model.replica import Replica
from meshd.model.replica_phase import Phase
from meshd.model.service_key import ServiceKey, service_key
from meshd.reconcile.restart_policy import has_completed, has_failed, stays_ended

_STARTED: Final = frozenset({Phase.STARTING, Phase.PROBING, Phase.READY})


class DependencyState(msgspec.Struct, frozen=True):
    """What a service waits for; empty texts: nothing.

    - `blocker`: what its first replica waits for; `has_failed`: that will not happen.
    - `rollout_blocker`: what its rollout waits for; `rollout_failed`: that will not happen.
    """

    blocker: str = ""
    has_failed: bool = False
    rollout_blocker: str = ""
    rollout_failed: bool = False


class DependencyChecker:
    """Evaluates the dependencies of services in one pass. `groups` has the replicas by service."""

    def __init__(
        self,
        services: Sequence[DesiredService],
        groups: Mapping[ServiceKey, Sequence[Replica]],
    ) -> None:
        self._services = {service.key: service for service in services}
        self._groups = groups
        self._known: dict[ServiceKey, DependencyState] = {}

    def check(self, service: DesiredService) -> DependencyState:
        """Return what a service waits for."""
        known = self._known.get(service.key)
        if known is None:
            # Also ends a cycle, which only a stored spec of an earlier version can have.
            self._known[service.key] = DependencyState()
            known = self._known[service.key] = self._evaluate(service)
        return known

    def _evaluate(self, service: DesiredService) -> DependencyState:
        blocker, has_failed = "", False
        rollout_blocker, rollout_failed = "", False
        for name in service.spec.depends_on:
            dependency = self._services.get(service_key(service.project, name))
            if dependency is None or not dependency.desired:
                continue
            text, failed = self._condition(service, dependency)
            if failed and name in service.spec.optional_dependencies:
                continue
            if text and (not blocker or failed > has_failed):
                blocker, has_failed = text, failed
            text, failed = _rollout_condition(service, dependency)
            if text and (not rollout_blocker or failed > rollout_failed):
                rollout_blocker, rollout_failed = text, failed
        return DependencyState(blocker, has_failed, rollout_blocker, rollout_failed)

    def _condition(self, service: DesiredService, dependency: DesiredService) -> tuple[str, bool]:
        """What is missing of a dependency, and whether it will stay missing."""
        name, group = dependency.spec.name, self._groups.get(dependency.key, ())
        phases = {replica.phase for replica in group}
        failed = next((r for r in group if has_failed(dependency, r)), None)
        if name in service.spec.wait_completed:
            if sum(has_completed(dependency, r) for r in group) >= dependency.desired:
                return "", False
            if failed is not None:
                return _describe_end(name, failed), True
            missing = f"waits for {name}, which has not completed yet"
        elif Phase.READY in phases:
            return "", False
        elif name in service.spec.wait_healthy:
            ended = next((r for r in group if stays_ended(dependency, r)), None)
            if ended is not None:
                return _describe_end(name, ended), True
            missing = f"waits for {name}, which has no ready replica yet"
        elif phases & _STARTED or any(stays_ended(dependency, r) for r in group):
            return "", False
        else:
            missing = f"waits for {name}, which has not been started yet"
        own = self.check(dependency)
        if own.has_failed and not phases & _STARTED:
            return f"{name} cannot start: {own.blocker}", True
        return missing, False


def _describe_end(name: str, replica: Replica) -> str:
    how = "has ended" if replica.exit_code == 0 else "has failed"
    return f"depends on {name}, which {how} (exit code {replica.exit_code})"


def _rollout_condition(service: DesiredService, dependency: DesiredService) -> tuple[str, bool]:
    """What a rollout waits for: a dependency that must complete first, or whose new revision
    restarts this service, is rolled out before it."""
    name, theirs = dependency.spec.name, dependency.rollout
    if name not in (*service.spec.wait_completed, *service.spec.dependency_revisions):
        return "", False
    if theirs.is_rolling:
        return f"waits for the rollout of {name}", False
    if theirs.is_rolling_back and theirs.since >= service.rollout.since:
        return f"depends on {name}, whose rollout failed: {theirs.cause}", True
    return "", False
