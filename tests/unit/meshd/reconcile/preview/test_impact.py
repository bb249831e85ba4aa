"""What a deployment means on its way, read from its forecast."""

from random import Random
from typing import Any

import pytest

from meshd.model.desired import Desired, DesiredService
from meshd.model.replica import Replica
from meshd.model.replica_phase import Phase
from meshd.model.scaling import Traffic, TrafficSpan
from meshd.reconcile.observe.observe import Observed
from meshd.reconcile.preview.impact import GIB, outlook
from meshd.reconcile.preview.simulate import passes
from meshd.spec.model import Service
from meshd.store.traffic import peak_rate

KEY = "shop/web"
WEIGHTS = {(KEY, "old"): (0.5, GIB // 4), (KEY, "new"): (0.5, GIB // 2)}


def told(
    count: int, old: int, traffic: Traffic | None = None, weights: Any = None, **update: Any
) -> list[str]:
    spec = Service.model_validate({"name": "web", "image": "a", "update": update})
    service = DesiredService(project="shop", spec=spec, revision="new", count=count)
    replicas = tuple(
        Replica(name=f"w{n}", project="shop", service="web", revision="old", phase=Phase.READY,
                ready_since=1.0, created_at=100.0 - n)
        for n in range(old)
    )  # fmt: skip
    desired = Desired(services=(service,), projects=frozenset({"shop"}))
    observed = Observed(replicas=replicas, prepared=frozenset({(KEY, "new")}))
    steps = passes(desired, observed, 1000.0, Random(1))
    seen = {KEY: traffic} if traffic else {}
    return outlook(steps, replicas, WEIGHTS if weights is None else weights, seen)


NOW_THEN = "now 3 replicas, 1.5 CPUs, 768 MiB; then 3 replicas, 1.5 CPUs, 1.50 GiB"


@pytest.mark.parametrize(
    ("update", "peak", "ready"),
    [
        ({}, "5 replicas, 2.5 CPUs, 2.00 GiB", 3),
        ({"parallelism": 3}, "6 replicas, 3 CPUs, 2.25 GiB", 3),
        ({"order": "stop-first"}, "4 replicas, 2 CPUs, 1.75 GiB", 2),
    ],
)
def test_the_peak_and_the_order(update: dict[str, Any], peak: str, ready: int) -> None:
    assert told(3, 3, **update) == [
        f"on the way at most {peak}; {NOW_THEN}",
        f"{KEY}: leave in this order: w0, w1, w2; at least {ready} stay ready",
    ]


def test_what_has_no_limits_is_said() -> None:
    assert told(1, 0, weights={}) == [
        "on the way at most 1 replicas; now 0 replicas; then 1 replicas; "
        "without limits, and not in the sums: shop/web"
    ]


@pytest.mark.parametrize(
    ("traffic", "line"),
    [
        (
            Traffic(40.0, 25.0),
            "up to 40 requests/s came in the last day, and 2 ready ones carry 50",
        ),
        (
            Traffic(60.0, 25.0),
            "up to 60 requests/s came in the last day, and 2 ready ones carry only 50: requests "
            "will wait or be turned away if as many come; replace fewer at a time, or have more "
            "of them",
        ),
        (
            Traffic(60.0),
            "up to 60 requests/s came in the last day; how many a replica carries is not known yet",
        ),
    ],
)
def test_whether_those_left_carry_the_load(traffic: Traffic, line: str) -> None:
    assert told(3, 3, traffic, order="stop-first")[-1] == f"{KEY}: {line}"


def test_nothing_to_do_and_nothing_known_say_nothing() -> None:
    assert outlook([], [], {}, {}) == []
    assert len(told(3, 3, Traffic(0.0))) == 2


def test_a_service_that_only_shrinks_is_told_too() -> None:
    spec = Service.model_validate({"name": "web", "image": "a"})
    service = DesiredService(project="shop", spec=spec, revision="old", count=1)
    old = tuple(
        Replica(name=f"w{n}", project="shop", service="web", revision="old", phase=Phase.READY,
                ready_since=1.0, created_at=100.0 - n)
        for n in range(15)
    )  # fmt: skip
    desired = Desired(services=(service,), projects=frozenset({"shop"}))
    steps = passes(desired, Observed(replicas=old), 1000.0, Random(1))
    lines = outlook(steps, old, WEIGHTS, {})
    assert "w11 and 2 more; at least 1 stay ready" in lines[1]


def test_the_busiest_step_and_the_newest_capacity_count() -> None:
    spans = [
        TrafficSpan(0, 10, 900, 0.1, 2.0, 1.0),
        TrafficSpan(10, 10, 100, 0.2, 4.0, 1.0),
        TrafficSpan(20, 10, 0, 0.0, 0.0, 1.0),
    ]
    assert peak_rate(spans) == Traffic(90.0, 20.0)
    assert peak_rate([]) == Traffic(0.0)
