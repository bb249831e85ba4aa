"""The limit of simultaneous starts, and which starts go first."""

from random import Random
from typing import Any

import msgspec
import pytest

from meshd.model.desired import Desired, DesiredService
from meshd.model.operation import StartReplica, Urgency
from meshd.model.replica import Replica, ReplicaFailure
from meshd.model.replica_phase import Phase
from meshd.model.runtime import Node
from meshd.reconcile.observe.memory import BackoffSlot
from meshd.reconcile.observe.observe import Observed
from meshd.reconcile.plan.plan import plan
from meshd.reconcile.plan.start_limit import START_TIME, limit_starts, start_slots, used_slots
from meshd.spec.model import Service
from tests.support.rollouts import rollout

NOW = 1000.0


@pytest.mark.parametrize(
    ("cpus", "per_node", "expected"),
    [((), 0, 0), ((1.0,), 0, 2), ((2.0,), 0, 2), ((8.0,), 0, 8), ((8.0, 1.0), 0, 10),
     ((8.0, 8.0), 3, 6), ((), 3, 0)],
)  # fmt: skip
def test_a_node_has_a_start_slot_per_cpu_but_at_least_two(
    cpus: tuple[float, ...], per_node: int, expected: int
) -> None:
    assert start_slots([Node(str(n), c, 1) for n, c in enumerate(cpus)], per_node) == expected


def replica(service: str, name: str, phase: Phase, **more: Any) -> Replica:
    more.setdefault("ready_since", NOW - 100 if phase is Phase.READY else 0.0)
    return Replica(name=name, project="shop", service=service, revision="new", phase=phase, **more)


@pytest.mark.parametrize(
    ("phase", "age", "expected"),
    [
        (Phase.PENDING, 0.0, 1),
        (Phase.PENDING, 60.0, 1),
        (Phase.STARTING, START_TIME - 0.1, 1),
        (Phase.PROBING, START_TIME - 0.1, 1),
        (Phase.PROBING, START_TIME, 0),
        (Phase.READY, 0.0, 0),
        (Phase.DRAINING, 0.0, 0),
        (Phase.FAILED, 0.0, 0),
    ],
)
def test_a_replica_uses_a_slot_until_it_is_ready_or_only_waits(
    phase: Phase, age: float, expected: int
) -> None:
    assert used_slots([replica("web", "a", phase, created_at=NOW - age)], NOW) == expected


@pytest.mark.parametrize(
    ("olds", "news", "desired", "failed", "update", "expected"),
    [
        (2, 0, 2, 0, {}, [Urgency.ROLLOUT]),
        (1, 0, 2, 1, {}, [Urgency.HEAL]),
        (1, 0, 2, 1, {"parallelism": 2}, [Urgency.HEAL, Urgency.ROLLOUT]),
        (2, 0, 2, 1, {"parallelism": 2}, [Urgency.ROLLOUT, Urgency.ROLLOUT]),
        (2, 0, 3, 0, {}, [Urgency.ROLLOUT]),
        (1, 0, 2, 0, {"order": "stop-first"}, [Urgency.ROLLOUT]),
        (1, 0, 3, 1, {"order": "stop-first"}, [Urgency.HEAL, Urgency.ROLLOUT]),
    ],
    ids=["surge", "failed", "failed and surge", "made up for", "growth", "stop", "stop, failed"],
)
def test_starts_of_a_rollout_that_make_up_for_failed_replicas_heal(
    olds: int, news: int, desired: int, failed: int, update: dict[str, Any], expected: list[Urgency]
) -> None:
    """They go before growth. The surge of the rollout itself goes after it."""
    spec = Service.model_validate({"name": "web", "image": "app", "update": update})
    service = DesiredService(
        project="shop", spec=spec, revision="new", desired=desired,
        rollout=rollout(since=NOW - 60),
    )  # fmt: skip
    replicas = [replica("web", f"new-{n}", Phase.READY) for n in range(news)]
    for n in range(olds):
        old = replica("web", f"old-{n}", Phase.READY)
        replicas.append(msgspec.structs.replace(old, revision="old"))
    failures = tuple(ReplicaFailure(NOW - 1, f"gone-{n}", "was killed") for n in range(failed))
    earlier = ReplicaFailure(NOW - 90, "earlier", "was killed before the rollout")
    observed = Observed(
        replicas=tuple(replicas),
        prepared=frozenset({("shop/web", "new")}),
        failures={("shop/web", "old"): (earlier, *failures)},
    )
    planned = plan(Desired((service,), frozenset({"shop"})), observed, NOW, Random(1)).operations
    assert [each.urgency for each in planned if isinstance(each, StartReplica)] == expected


def start(service: str, name: str, urgency: Urgency = Urgency.SCALE) -> StartReplica:
    return StartReplica(
        name=name, project="shop", service=service, revision="new", urgency=urgency, cause="wanted"
    )


def allowed(starts: list[StartReplica], *replicas: Replica, limit: int, **counts: int) -> list[str]:
    keys = {f"shop/{name}": count for name, count in counts.items()}
    operations, _ = limit_starts(starts, replicas, keys, limit, NOW)
    return [op.subject for op in operations]


def test_healing_precedes_scaling_then_rollouts_then_the_warm_pool() -> None:
    starts = [
        start("a", "warm", Urgency.WARM),
        start("b", "roll", Urgency.ROLLOUT),
        start("c", "scale"),
        start("d", "heal", Urgency.HEAL),
    ]
    assert allowed(starts, limit=1) == ["heal"]
    assert allowed(starts, limit=2) == ["scale", "heal"]
    assert allowed(starts, limit=3) == ["roll", "scale", "heal"]
    assert allowed(starts, limit=0) == ["warm", "roll", "scale", "heal"]


def test_the_service_with_the_smallest_part_starts_first_and_services_take_turns() -> None:
    starts = [start("a", "a1"), start("a", "a2"), start("b", "b1"), start("b", "b2")]
    there = [replica("a", f"a-{n}", Phase.READY) for n in range(2)]
    assert allowed(starts, *there, limit=1, a=4, b=2) == ["b1"]
    assert allowed(starts, *there, limit=2, a=4, b=2) == ["a1", "b1"]


@pytest.mark.parametrize(
    ("attempts", "expected"),
    [
        ((0, 0), ["heal-1", "heal-2"]),
        ((0, 0, 0, 0), ["heal-1", "heal-2"]),
        ((0, 1), ["heal-1"]),
        ((1, 1), []),
        ((0,), ["heal-1", "heal-2"]),
        ((), ["heal-1", "heal-2"]),
    ],
)
def test_healing_waits_for_other_healing_only(
    attempts: tuple[int, ...], expected: list[str]
) -> None:
    """`attempts` are those of the replicas that start now: growth (0) or healing (1)."""
    starts = [
        start("a", "grow-1"),
        start("a", "grow-2"),
        start("b", "heal-1", Urgency.HEAL),
        start("c", "heal-2", Urgency.HEAL),
    ]
    coming = [replica("z", f"z{n}", Phase.PENDING, attempt=a) for n, a in enumerate(attempts)]
    assert allowed(starts, *coming, limit=2) == expected


def test_a_starting_replica_uses_a_slot() -> None:
    coming = replica("z", "z1", Phase.PENDING)
    starts = [start("a", "a1"), start("a", "a2")]
    assert allowed(starts, coming, limit=2) == ["a1"]
    assert allowed(starts, coming, limit=1) == []


def service(name: str, count: int, **more: Any) -> DesiredService:
    spec = Service(name=name, image="app")
    return DesiredService(project="shop", spec=spec, revision="new", desired=count, **more)


def test_a_plan_restarts_failed_replicas_first_and_reports_waiting_ones() -> None:
    services = (service("crowd", 6), service("web", 2))
    slots = {("shop/web", "new"): (BackoffSlot(attempt=1, not_before=NOW, opened=NOW),)}
    observed = Observed(
        replicas=(replica("web", "web-1", Phase.READY),),
        prepared=frozenset({("shop/web", "new"), ("shop/crowd", "new")}),
        slots=slots,
        start_slots=2,
    )
    desired = Desired(services=services, projects=frozenset({"shop"}))
    made = plan(desired, observed, NOW, Random(1))
    kinds = [(op.service, op.urgency) for op in made.operations if isinstance(op, StartReplica)]
    assert kinds == [("crowd", Urgency.SCALE), ("web", Urgency.HEAL)]
    text = "5 more to start; 2 may start at once on the nodes"
    assert made.waiting == (("shop/crowd", text),)
