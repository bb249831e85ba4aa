"""The impact of a simulated deployment: peak, order and remaining capacity."""

from random import Random
from typing import Any

import pytest

from meshd.model.desired import Desired, DesiredService
from meshd.model.replica import Replica
from meshd.model.replica_phase import Phase
from meshd.model.scaling import Traffic, TrafficSpan
from meshd.reconcile.observe.observe import Observed
from meshd.reconcile.preview.impact import GIB, describe_impact
from meshd.reconcile.preview.simulate import simulate_passes
from meshd.spec.model import Service
from meshd.store.traffic import peak_rate

KEY = "shop/web"
LIMITS = {(KEY, "old"): (0.5, GIB // 4), (KEY, "new"): (0.5, GIB // 2)}


def impact(
    count: int, old: int, traffic: Traffic | None = None, limits: Any = None, **update: Any
) -> list[str]:
    spec = Service.model_validate({"name": "web", "image": "a", "update": update})
    service = DesiredService(project="shop", spec=spec, revision="new", desired=count)
    replicas = tuple(
        Replica(name=f"w{n}", project="shop", service="web", revision="old", phase=Phase.READY,
                ready_since=1.0, created_at=100.0 - n)
        for n in range(old)
    )  # fmt: skip
    desired = Desired(services=(service,), projects=frozenset({"shop"}))
    observed = Observed(replicas=replicas, prepared=frozenset({(KEY, "new")}))
    steps = simulate_passes(desired, observed, 1000.0, Random(1))
    seen = {KEY: traffic} if traffic else {}
    return describe_impact(steps, replicas, LIMITS if limits is None else limits, seen)


NOW_THEN = "now 3 replicas, 1.5 CPUs, 768 MiB; then 3 replicas, 1.5 CPUs, 1.50 GiB"


@pytest.mark.parametrize(
    ("update", "peak", "ready"),
    [
        ({}, "5 replicas, 2.5 CPUs, 2.00 GiB", 3),
        ({"parallelism": 3}, "6 replicas, 3 CPUs, 2.25 GiB", 3),
        ({"order": "stop-first"}, "3 replicas, 1.5 CPUs, 1.50 GiB", 2),
    ],
)
def test_the_peak_and_the_drain_order(update: dict[str, Any], peak: str, ready: int) -> None:
    assert impact(3, 3, **update) == [
        f"at most {peak} at once; {NOW_THEN}",
        f"{KEY}: drained in this order: w0, w1, w2; at least {ready} stay ready",
    ]


def test_services_without_limits_are_named() -> None:
    assert impact(1, 0, limits={}) == [
        "at most 1 replicas at once; now 0 replicas; then 1 replicas; "
        "not counted, as they have no limits: shop/web"
    ]


@pytest.mark.parametrize(
    ("traffic", "line"),
    [
        (
            Traffic(40.0, 25.0),
            "peak in the last day was 40 requests/s, and 2 ready replicas can serve 50",
        ),
        (
            Traffic(60.0, 25.0),
            "peak in the last day was 60 requests/s, and 2 ready replicas can serve only 50: at "
            "that rate, requests will wait or be rejected; replace fewer replicas at a time, or "
            "run more of them",
        ),
        (
            Traffic(60.0),
            "peak in the last day was 60 requests/s; how many one replica can serve is not known "
            "yet",
        ),
    ],
)
def test_whether_the_remaining_replicas_can_serve_the_peak(traffic: Traffic, line: str) -> None:
    assert impact(3, 3, traffic, order="stop-first")[-1] == f"{KEY}: {line}"


def test_without_operations_or_traffic_there_are_no_lines() -> None:
    assert describe_impact([], [], {}, {}) == []
    assert len(impact(3, 3, Traffic(0.0))) == 2


def test_a_long_drain_order_is_shortened() -> None:
    spec = Service.model_validate({"name": "web", "image": "a"})
    service = DesiredService(project="shop", spec=spec, revision="old", desired=1)
    old = tuple(
        Replica(name=f"w{n}", project="shop", service="web", revision="old", phase=Phase.READY,
                ready_since=1.0, created_at=100.0 - n)
        for n in range(15)
    )  # fmt: skip
    desired = Desired(services=(service,), projects=frozenset({"shop"}))
    steps = simulate_passes(desired, Observed(replicas=old), 1000.0, Random(1))
    lines = describe_impact(steps, old, LIMITS, {})
    assert "w11 and 2 more; at least 1 stay ready" in lines[1]


def test_the_busiest_span_and_the_latest_capacity_count() -> None:
    spans = [
        TrafficSpan(0, 10, 900, 0.1, 2.0, 1.0),
        TrafficSpan(10, 10, 100, 0.2, 4.0, 1.0),
        TrafficSpan(20, 10, 0, 0.0, 0.0, 1.0),
    ]
    assert peak_rate(spans) == Traffic(90.0, 20.0)
    assert peak_rate([]) == Traffic(0.0)
