"""One second of a service as the signal of the autoscaler."""

from typing import Any

import pytest

from meshd.model.desired import DesiredService
from meshd.model.replica import Replica
from meshd.model.replica_phase import Phase
from meshd.model.runtime import Usage
from meshd.model.scaling import Load
from meshd.scaling.signals import call_seconds_by_caller, signal_of, without_fast_failures
from meshd.spec.model import Service
from meshd.telemetry.merge import MergedService
from meshd.telemetry.usage_sampler import loads_between
from proxy.wire.report import ServiceReport
from tests.fakes.traffic import histogram
from tests.support.rollouts import rollout

KEY = "shop/orders"


def service(**fields: Any) -> DesiredService:
    spec = Service.model_validate({"name": "orders", "image": "app", **fields.pop("spec", {})})
    return DesiredService(project="shop", spec=spec, revision="new", desired=2, **fields)


def replica(name: str, phase: Phase = Phase.READY, revision: str = "new", **more: Any) -> Replica:
    return Replica(
        name=name, project="shop", service="orders", revision=revision, phase=phase, **more
    )


def second(name: str = KEY, **fields: Any) -> MergedService:
    made = MergedService(interval=1.0)
    made.add_report(ServiceReport(name, **fields))
    return made


def seen(of: DesiredService, *replicas: Replica, **seconds: Any) -> Any:
    given = seconds.pop("seconds", {KEY: second()})
    downstream = call_seconds_by_caller(given.values()).get(KEY, 0.0)
    return signal_of(of, replicas, given.get(KEY), downstream, seconds.pop("loads", {}), 0, 0.0)


def test_without_data_there_is_no_signal() -> None:
    assert signal_of(service(), (), None, 0.0, {}, 0, 0.0) is None
    assert signal_of(service(), (), MergedService(), 0.0, {}, 0, 0.0) is None


def test_fast_failures_do_not_count_as_fast_answers() -> None:
    total, failed = histogram(0.1, 0.11, 0.001, 0.001, 5.0), histogram(0.001, 0.001, 5.0)
    worked = without_fast_failures(second(total=total, failed=failed))
    assert worked.count == 3
    assert worked.sum == pytest.approx(5.21, rel=0.02)
    worked = without_fast_failures(second(total=histogram(0.001), failed=histogram(0.001)))
    assert (worked.count, worked.sum) == (0, 0.0)
    slow = without_fast_failures(second(total=histogram(3.0), failed=histogram(3.0)))
    assert slow.count == 1


def test_time_spent_on_own_calls_is_separate() -> None:
    seconds = {
        KEY: second(total=histogram(0.5)),
        "shop/payments": second("shop/payments", call_seconds={KEY: 0.3, "shop/other": 9.0}),
        "shop/auth": second("shop/auth", call_seconds={KEY: 0.1}),
    }
    assert seen(service(), replica("a"), seconds=seconds).downstream_sum == pytest.approx(0.4)


def test_surge_and_warming_replicas_of_a_rollout_do_not_count() -> None:
    group = (
        replica("a", revision="old"),
        replica("b", revision="old"),
        replica("c"),
        replica("d", Phase.PROBING),
    )
    rolling = seen(service(rollout=rollout()), *group)
    assert (rolling.ready, rolling.starting, rolling.busy) == (2, 0, True)
    settled = seen(service(), replica("a"), replica("b", Phase.PROBING))
    assert (settled.ready, settled.starting, settled.busy) == (1, 1, False)


def test_cpu_is_the_mean_percentage_of_the_limit_over_ready_replicas() -> None:
    group = (replica("a"), replica("b"), replica("c", Phase.PROBING), replica("new"))
    given = {
        "a": Load(0.2, 1),
        "b": Load(0.4, 1),
        "c": Load(5.0, 1),
        "new": Load(None, 1),
    }
    limited = service(spec={"resources": {"cpus": 0.5}})
    assert seen(limited, *group, loads=given).cpu == pytest.approx(60.0)
    assert seen(service(), *group, loads=given).cpu == pytest.approx(30.0)
    assert seen(service(), *group).cpu is None


def test_each_start_up_time_is_reported_once() -> None:
    late = replica("a", created_at=100.0, ready_since=104.5)
    made = signal_of(service(), (late,), second(), 0.0, {}, 0, 104.0)
    assert made is not None
    assert made.startups == (4.5,)
    again = signal_of(service(), (late,), second(), 0.0, {}, 0, 105.0)
    assert again is not None
    assert again.startups == ()
    resumed = replica("b", created_at=100.0, ready_since=204.5, resumed_at=204.4)
    woken = signal_of(service(), (resumed,), second(), 0.0, {}, 0, 204.0)  # fmt: skip
    assert woken is not None
    assert (woken.startups, woken.wakes) == ((), (pytest.approx(0.1),))


def test_in_flight_and_counts_are_those_measured() -> None:
    given = second(
        arrivals=5,
        codes={"GET 2xx": 4, "GET 5xx": 1},
        shed=2,
        queue=histogram(0.2),
        total=histogram(0.5, 0.5, 0.5, 0.5),
    )
    given.endpoint("a").busy_seconds = 2.5
    given.parked = 3
    made = seen(service(), replica("a"), seconds={KEY: given})
    assert (made.arrivals, made.completions, made.errors, made.shed) == (5, 4, 1, 2)
    assert (made.in_flight, made.parked, made.queue_sum) == (2.5, 3, 0.2)


def test_loads_between_two_readings() -> None:
    before = {"a": Usage(1.0, 5, 10.0), "again": Usage(9.0, 5, 10.0)}
    after = {
        "a": Usage(2.0, 7, 15.0),
        "new": Usage(0.5, 3, 15.0),
        "again": Usage(0.1, 3, 15.0),
    }
    assert loads_between(before, after) == {
        "a": Load(0.2, 7),
        "new": Load(None, 3),
        "again": Load(None, 3),
    }


def test_requests_of_background_routes_are_no_load() -> None:
    given = second(total=histogram(0.5))
    given.endpoint("a").busy_seconds = 2.5
    given.background_seconds = 2.0
    assert seen(service(), replica("a"), seconds={KEY: given}).in_flight == 0.5
    given.background_seconds = 2.5 - 1e-9
    assert seen(service(), replica("a"), seconds={KEY: given}).in_flight == 0.0
