"""The operations of a deployment, with replicas that have ended."""

from typing import Any

import msgspec
import pytest

from meshd.model.desired import Desired, DesiredService
from meshd.model.replica import Replica
from meshd.model.replica_phase import Phase
from meshd.model.rollout import RolloutState
from meshd.reconcile.observe.observe import Observed
from meshd.reconcile.preview.simulate import simulate
from meshd.spec.model import Service
from tests.support.fixed_random import FixedRandom
from tests.support.rollouts import rollout

NOW = 1000.0


def service(name: str, deployed_at: float = 0.0, **spec: Any) -> DesiredService:
    return DesiredService(
        project="shop",
        spec=Service.model_validate({"name": name, "plain": True, "image": "i", **spec}),
        revision="new",
        desired=1,
        rollout=rollout(RolloutState.DONE, "", since=10.0),
        deployed_at=deployed_at,
    )


def lines(*services: DesiredService, seen: tuple[Replica, ...] = ()) -> list[str]:
    desired = Desired(services=services, projects=frozenset({"shop"}))
    plan = simulate(desired, Observed(replicas=seen), NOW, FixedRandom())
    return [line.partition(":")[0] for line in str(plan).splitlines()]


@pytest.mark.parametrize(("phase", "code"), [(Phase.COMPLETED, 0), (Phase.FAILED, 1)])
def test_an_ended_replica_that_stays_takes_no_operation(phase: Phase, code: int) -> None:
    ended = Replica("a", "shop", "job", "new", phase, exit_code=code, ended_at=NOW - 9)
    assert lines(service("job"), seen=(ended,)) == []


@pytest.mark.parametrize("phase", [Phase.PENDING, Phase.PROBING, Phase.PAUSED])
@pytest.mark.parametrize("managed_service", [True, False])
def test_a_warm_pool_as_desired_takes_no_operation(phase: Phase, managed_service: bool) -> None:
    web = msgspec.structs.replace(service("web", plain=not managed_service), warm=1)
    serving = Replica("a", "shop", "web", "new", Phase.READY, ready_since=NOW - 9)
    warm = Replica("b", "shop", "web", "new", phase, warm=True)
    assert lines(web, seen=(serving, warm)) == []


def test_a_deployment_tries_a_failed_replica_again() -> None:
    ended = Replica("a", "shop", "job", "new", Phase.FAILED, exit_code=1, ended_at=NOW - 9)
    assert lines(service("job", deployed_at=NOW), seen=(ended,)) == [
        "remove a",
        "prepare shop/job@new",
        "start shop-job-baaaa (new)",
    ]


def test_a_service_starts_after_the_one_that_must_complete_first() -> None:
    web = service("web", depends_on=["job"], wait_completed=["job"])
    assert lines(web, service("job")) == [
        "prepare shop/job@new",
        "start shop-job-baaaa (new)",
        "prepare shop/web@new",
        "start shop-web-caaaa (new)",
    ]
