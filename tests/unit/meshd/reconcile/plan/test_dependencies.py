"""What a service waits for, by the conditions of its `depends_on`."""

from typing import Any

import msgspec
import pytest

from meshd.model.desired import DesiredService
from meshd.model.replica import Replica
from meshd.model.replica_phase import Phase
from meshd.model.rollout import Rollout, RolloutState
from meshd.reconcile.plan.dependencies import DependencyChecker, DependencyState
from meshd.spec.model import Service


def service(name: str, rolling: RolloutState = RolloutState.DONE, **spec: Any) -> DesiredService:
    return DesiredService(
        project="shop",
        spec=Service.model_validate({"name": name, "plain": True, "image": "i", **spec}),
        revision="new",
        desired=1,
        rollout=Rollout("new", "old", rolling, since=10.0, cause="it broke"),
    )


def replica(name: str, phase: Phase, code: int | None = None, revision: str = "new") -> Replica:
    return Replica(name=f"{name}-1", project="shop", service=name, revision=revision, phase=phase,
                   exit_code=code)  # fmt: skip


def check(waits: dict[str, Any], *replicas: Replica, db: DesiredService | None = None,
          web: RolloutState = RolloutState.DONE) -> DependencyState:  # fmt: skip
    dependent = service("web", web, depends_on=["db"], **waits)
    groups: dict[str, list[Replica]] = {}
    for each in replicas:
        groups.setdefault(each.key, []).append(each)
    return DependencyChecker((dependent, db or service("db")), groups).check(dependent)


COMPLETED = {"wait_completed": ["db"]}
HEALTHY = {"wait_healthy": ["db"]}


@pytest.mark.parametrize(
    ("waits", "phase", "code", "blocker", "failed"),
    [
        ({}, None, None, "waits for db, which has not been started yet", False),
        ({}, Phase.PROBING, None, "", False),
        ({}, Phase.COMPLETED, 0, "", False),
        ({}, Phase.FAILED, 1, "", False),
        (HEALTHY, Phase.PROBING, None, "waits for db, which has no ready replica yet", False),
        (HEALTHY, Phase.READY, None, "", False),
        (HEALTHY, Phase.COMPLETED, 0, "depends on db, which has ended (exit code 0)", True),
        (HEALTHY, Phase.FAILED, 3, "depends on db, which has failed (exit code 3)", True),
        (COMPLETED, Phase.READY, None, "waits for db, which has not completed yet", False),
        (COMPLETED, Phase.COMPLETED, 0, "", False),
        (COMPLETED, Phase.FAILED, 1, "depends on db, which has failed (exit code 1)", True),
    ],
)
def test_conditions(
    waits: dict[str, Any], phase: Phase | None, code: int | None, blocker: str, failed: bool
) -> None:
    replicas = [replica("db", phase, code)] if phase else []
    state = check(waits, *replicas)
    assert (state.blocker, state.has_failed) == (blocker, failed)


def test_only_the_current_revision_counts_as_completed() -> None:
    state = check(COMPLETED, replica("db", Phase.COMPLETED, 0, revision="old"))
    assert state.blocker == "waits for db, which has not completed yet"


def test_an_optional_dependency_may_fail_but_is_waited_for() -> None:
    optional = {**COMPLETED, "optional_dependencies": ["db"]}
    assert check(optional, replica("db", Phase.FAILED, 1)).blocker == ""
    assert check(optional, replica("db", Phase.READY)).blocker


def test_a_failure_blocks_dependents_of_dependents() -> None:
    services = (
        service("web", depends_on=["api"]),
        service("api", depends_on=["db"], **COMPLETED),
        service("db"),
    )
    checker = DependencyChecker(services, {"shop/db": [replica("db", Phase.FAILED, 1)]})
    assert checker.check(services[0]) == DependencyState(
        "api cannot start: depends on db, which has failed (exit code 1)", has_failed=True
    )


@pytest.mark.parametrize("waits", [COMPLETED, {"dependency_revisions": {"db": "new"}}])
def test_a_rollout_waits_for_that_of_its_dependency(waits: dict[str, Any]) -> None:
    ready = replica("db", Phase.READY)
    rolling = check(waits, ready, db=service("db", RolloutState.ROLLING))
    assert rolling.rollout_blocker == "waits for the rollout of db"
    failed = check(waits, ready, db=service("db", RolloutState.ROLLED_BACK))
    assert failed.rollout_failed
    assert failed.rollout_blocker == "depends on db, whose rollout failed: it broke"
    assert check({}, ready, db=service("db", RolloutState.ROLLING)).rollout_blocker == ""


def test_a_dependency_of_which_no_replica_is_desired_is_not_waited_for() -> None:
    assert check(COMPLETED, db=msgspec.structs.replace(service("db"), desired=0)).blocker == ""
