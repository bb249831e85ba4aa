"""Limits proposed from usage: quantiles, headroom, and readings kept over restarts."""

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshd.model.replica import Replica
from meshd.model.replica_phase import Phase
from meshd.model.scaling import Load, ResourceUsage, merge_usage
from meshd.scaling.sizing import MIB, MIN_SAMPLES, propose
from meshd.spec.model import Project, Resources, Service
from meshd.store.store import Store
from meshd.store.usage import DAY, UsageLog

NOW = 1_700_000_000.0


def used(*cores: float, memory: int = 100 * MIB, **more: Any) -> ResourceUsage:
    use = ResourceUsage(since=NOW, **more)
    for each in cores:
        use.add_reading(each, memory, 5.0)
    return use


@pytest.mark.parametrize("cores", [0.0, 0.0005, 0.001, 0.02, 0.5, 1.0, 7.9])
def test_a_quantile_is_at_most_a_tenth_too_high(cores: float) -> None:
    assert cores <= used(cores).cores_at(0.5) <= max(1.1 * cores, 0.001) + 1e-12


def test_quantiles_and_sums_of_several_days() -> None:
    use = merge_usage([used(*[0.1] * 90), used(*[1.0] * 10, memory=300 * MIB, requests=50)])
    assert use.cores_at(0.5) == pytest.approx(0.1, rel=0.1)
    assert use.cores_at(0.95) == pytest.approx(1.0, rel=0.1)
    assert (use.samples, use.memory, use.requests) == (100, 300 * MIB, 50)
    assert use.cpu_seconds == pytest.approx(5 * (9 + 10))
    assert merge_usage([]).cores_at(0.5) == 0.0


def test_a_proposal_with_its_reasons() -> None:
    use = used(*[0.2] * 990, *[1.5] * 10, requests=1000)
    sizing = propose("shop/web", use, Resources(cpus=4.0, memory=1024 * MIB))
    assert (sizing.proposed_cpus, sizing.proposed_reserved_cpus) == (0.5, 0.25)
    assert (sizing.proposed_memory, sizing.proposed_reserved_memory) == (128 * MIB, 104 * MIB)
    assert sizing.cpu_per_request == pytest.approx(5 * (198 + 15) / 1000)
    assert sizing.why == (
        "1000 readings with work (83.3 minutes of one replica)",
        "CPU: a replica used at most 0.21 cores for 95 % of the time, 1.5 at the peak",
        "memory: the peak of 100 MiB and a quarter more",
    )


def test_a_service_out_of_memory_gets_more_than_its_limit() -> None:
    use = used(*[0.2] * MIN_SAMPLES, memory=64 * MIB, ooms=3)
    sizing = propose("shop/web", use, Resources(memory=64 * MIB))
    assert sizing.proposed_memory == 96 * MIB
    assert sizing.why[2] == "memory: 3 replicas ran out of memory; the limit and half of it more"


def test_nothing_is_proposed_from_few_readings() -> None:
    sizing = propose("shop/web", used(*[0.2] * (MIN_SAMPLES - 1)), Resources())
    assert (sizing.proposed_cpus, sizing.proposed_memory) == (0.0, 0)
    assert sizing.why == (
        "119 readings with work (9.92 minutes of one replica); a proposal needs 120 readings with "
        "work; try again later",
    )
    assert sizing.cpu_per_request is None


def test_nothing_is_proposed_from_idle_minutes(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.open()
    project = Project(name="shop", services=(Service(name="web", image="a"),))
    store.deploy(project, {"web": "r"}, "test", "", NOW)
    sizes = UsageLog(store)
    idle, busy = Load(0.004, 50 * MIB), Load(0.4, 60 * MIB)
    for second in range(1000):
        sizes.take([replica("a")], {"a": idle}, {"shop/web": 7}, 5.0, NOW + 5 * second)
    sizing = propose("shop/web", sizes.of("shop/web"), Resources())
    assert (sizing.samples, sizing.proposed_cpus, sizing.memory_max) == (0, 0.0, 50 * MIB)
    assert sizing.why[0].startswith("0 readings with work; 1000 without work do not count; ")
    for second in range(1000, 1000 + MIN_SAMPLES):
        sizes.take([replica("a")], {"a": busy}, {"shop/web": second}, 5.0, NOW + 5 * second)
    sizing = propose("shop/web", sizes.of("shop/web"), Resources())
    assert sizing.cpu_p50 == pytest.approx(0.4, rel=0.1)
    assert sizing.proposed_cpus == pytest.approx(0.8, rel=0.15)
    store.close()


def test_requests_show_work_however_little_cpu_they_need(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.open()
    project = Project(name="shop", services=(Service(name="web", image="a"),))
    store.deploy(project, {"web": "r"}, "test", "", NOW)
    sizes = UsageLog(store)
    for second in range(10):
        sizes.take([replica("a")], {"a": Load(0.001, MIB)}, {"shop/web": second}, 5.0, NOW)
    use = sizes.of("shop/web")
    assert (use.samples, use.idle) == (9, 1), "the first count has nothing to compare with"
    store.close()


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.floats(0.0, 60.0), max_size=5),
    st.integers(1, 400),
    st.integers(0, 2000),
    st.integers(0, 64 * 1024 * MIB),
    st.integers(0, 5),
    st.sampled_from([0, 64 * MIB, 8 * 1024 * MIB]),
)
def test_a_proposal_never_contradicts_its_numbers(
    cores: list[float], times: int, idle: int, memory: int, ooms: int, limit: int
) -> None:
    use = used(*cores * times, memory=memory, ooms=ooms, idle=idle)
    sizing = propose("shop/web", use, Resources(memory=limit))
    count = re.match(r"(\d+) readings with work", sizing.why[0])
    assert count is not None
    assert int(count[1]) == use.samples == sizing.samples
    if use.samples < MIN_SAMPLES:
        assert len(sizing.why) == 1
        assert (sizing.proposed_cpus, sizing.proposed_memory) == (0.0, 0)
        return
    figures = re.search(r"at most (\S+) cores .*, (\S+) at the peak", sizing.why[1])
    assert figures is not None
    assert float(figures[1]) <= float(figures[2])
    assert sizing.proposed_reserved_cpus <= sizing.proposed_cpus
    assert sizing.proposed_reserved_cpus >= sizing.cpu_p95 - 1e-9
    assert sizing.proposed_memory >= sizing.proposed_reserved_memory >= sizing.memory_max
    if "ran out of memory" in sizing.why[2]:
        assert min(ooms, limit) > 0
        assert sizing.proposed_memory > limit
    else:
        assert sizing.proposed_memory >= 1.25 * sizing.memory_max


def replica(name: str, **more: Any) -> Replica:
    more.setdefault("ready_since", NOW)
    return Replica(
        name=name, project="shop", service="web", revision="r", phase=Phase.READY, **more
    )


def test_readings_are_kept_over_restarts_for_a_week(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.open()
    project = Project(name="shop", services=(Service(name="web", image="a"),))
    store.deploy(project, {"web": "r"}, "test", "", NOW)
    sizes = UsageLog(store)
    sizes.open()
    loads = {"a": Load(0.5, 50 * MIB), "b": Load(None, 70 * MIB), "gone": Load(9.0, 1)}
    there = [replica("a"), replica("b", oom_killed=True), replica("new", ready_since=0.0)]
    for second, requests in enumerate((100, 110, 130)):
        sizes.take(there, loads, {"shop/web": requests}, 5.0, NOW + 5 * second)
    sizes.flush(NOW + 15)
    store.close()

    store.open()
    sizes = UsageLog(store)
    sizes.open()
    use = sizes.of("shop/web")
    # Of the first reading of b neither CPU nor requests are known.
    assert (use.samples, use.idle, use.memory, use.ooms, use.requests) == (5, 1, 70 * MIB, 1, 30)
    assert use.cpu_seconds == pytest.approx(7.5)
    assert use.since == NOW
    # Counts of the next process start at zero, so those before its first reading are unknown.
    sizes.take(there, loads, {"shop/web": 7}, 5.0, NOW + DAY)
    sizes.take(there, loads, {"shop/web": 9}, 5.0, NOW + DAY + 5)
    assert sizes.of("shop/web").requests == 32
    sizes.flush(NOW + 7 * DAY)
    assert sizes.of("shop/web").samples == 3
    store.forget("shop")
    sizes.flush(NOW + 7 * DAY)
    assert sizes.of("shop/web").samples == 0
    store.close()
