"""The policy as a function: invariants for every sequence of signals, and tables of causes."""

import json
import re
from math import ceil
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from autoscaler import Decision, ScalingSettings, Signal, State, dump, forget_future, load, make

signals = st.one_of(
    st.none(),
    st.builds(
        Signal,
        interval=st.sampled_from([0.5, 1.0, 2.0]),
        arrivals=st.integers(0, 5000),
        completions=st.integers(0, 5000),
        in_flight=st.floats(0, 5000),
        streams=st.floats(0, 5000),
        latency=st.lists(
            st.tuples(st.floats(0.001, 30.0), st.integers(1, 500)),
            max_size=4,
            unique_by=lambda pair: pair[0],
        ).map(lambda buckets: tuple(sorted(buckets))),
        latency_sum=st.floats(0, 50_000),
        downstream_sum=st.one_of(st.none(), st.floats(0, 10_000)),
        queue_sum=st.one_of(st.none(), st.floats(0, 10_000)),
        errors=st.integers(0, 100),
        shed=st.integers(0, 1000),
        parked=st.integers(0, 1000),
        ready=st.integers(0, 60),
        starting=st.integers(0, 60),
        draining=st.integers(0, 10),
        ejected=st.integers(0, 3),
        startups=st.lists(st.floats(0, 300), max_size=3).map(tuple),
        cpu=st.one_of(st.none(), st.floats(0, 100)),
        external=st.one_of(st.none(), st.floats(0, 1e6)),
        scheduled=st.integers(0, 80),
        busy=st.booleans(),
    ),
)
all_settings = st.builds(
    ScalingSettings,
    min=st.integers(0, 5),
    max=st.integers(5, 60),
    latency=st.one_of(st.none(), st.floats(0.01, 5.0)),
    share=st.floats(50.0, 99.99),
    concurrency=st.one_of(st.none(), st.floats(0.5, 100.0)),
    rps=st.one_of(st.none(), st.floats(0.5, 1000.0)),
    cpu=st.one_of(st.none(), st.floats(1.0, 100.0)),
    queue=st.one_of(st.none(), st.floats(0.001, 1.0)),
    external=st.one_of(st.none(), st.floats(1.0, 1000.0)),
    idle=st.floats(1.0, 20.0),
    down_window=st.one_of(st.none(), st.floats(1.0, 30.0)),
    calm=st.one_of(st.none(), st.floats(0.1, 1000.0)),
)


def drive(
    chosen: ScalingSettings,
    sequence: list[Signal | None],
    state: State | None = None,
    now: float = 0.0,
) -> tuple[State, list[Decision]]:
    policy = make(chosen)
    state = state or policy.initial(now)
    decisions = []
    for signal in sequence:
        now += 1.0
        state, decision = policy.step(state, signal, now)
        decisions.append(decision)
    return state, decisions


@settings(max_examples=60, deadline=None)
@given(all_settings, st.lists(signals, min_size=1, max_size=60))
def test_the_number_is_bounded_and_stays_without_data(
    chosen: ScalingSettings, sequence: list[Signal | None]
) -> None:
    _, decisions = drive(chosen, sequence)
    before = None
    for signal, decision in zip(sequence, decisions, strict=True):
        now = decision.desired
        assert chosen.min <= now <= chosen.max
        if before is not None:
            if signal is None:
                assert now == before
            most = max(before + chosen.step_up_least, int(before * chosen.step_up))
            least = before - max(1, int(before * chosen.step_down))
            assert least <= now <= most
            if signal is not None and (signal.busy or signal.ejected):
                assert now >= before
        if signal is not None:
            before = now
        assert decision.reason
        assert decision.warm >= 0


@settings(max_examples=30, deadline=None)
@given(all_settings, st.lists(signals, min_size=2, max_size=40), st.integers(1, 39))
def test_the_same_input_gives_the_same_decisions_over_a_restart(
    chosen: ScalingSettings, sequence: list[Signal | None], cut: int
) -> None:
    _, whole = drive(chosen, sequence)
    first, second = sequence[:cut], sequence[cut:]
    state, begun = drive(chosen, first)
    stored = json.dumps(dump(state))
    _, ended = drive(chosen, second, load(json.loads(stored)), now=float(len(first)))
    assert begun + ended == whole


def test_no_data_at_the_start_gives_the_minimum() -> None:
    _, decisions = drive(ScalingSettings(min=2, max=9, latency=0.2), [None, None])
    assert [(one.desired, one.cause) for one in decisions] == [(2, "no-data")] * 2


def test_an_invalid_stored_state_is_rejected() -> None:
    with pytest.raises(ValueError, match="not a stored autoscaler state"):
        load({"desired": "many"})


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"min": 3, "max": 2}, "min 3, max 2"),
        ({"min": -1}, "min -1"),
        ({"max": 0, "min": 0}, "max 0"),
        ({"share": 100.0}, "share"),
        ({"latency": 0.0}, "latency"),
        ({"concurrency": -1.0}, "concurrency"),
        ({"calm": 0.0}, "calm"),
        ({"step_up": 1.0}, "step"),
    ],
)
def test_invalid_settings_are_rejected_by_name(wrong: dict[str, float], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        ScalingSettings(**wrong)  # type: ignore[arg-type]


def steady(rate: int, service: float, ready: int, **more: object) -> Signal:
    """A second in which no request waits."""
    return Signal(
        arrivals=rate,
        completions=rate,
        in_flight=rate * service,
        latency=((service * 1.1, rate),) if rate else (),
        latency_sum=rate * service,
        ready=ready,
        **more,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(
    ("chosen", "signal", "needed", "winner"),
    [
        (ScalingSettings(max=50, rps=10.0), steady(95, 0.05, 4), 10, "rps"),
        (ScalingSettings(max=50, concurrency=2.0), steady(200, 0.05, 4), 5, "concurrency"),
        (ScalingSettings(max=50, cpu=50.0), steady(9, 0.05, 4, cpu=80.0), 7, "cpu"),
        (
            ScalingSettings(max=50, external=100.0),
            steady(9, 0.05, 4, external=1150.0),
            12,
            "external",
        ),
        (ScalingSettings(max=50, rps=100.0), steady(9, 0.05, 4, scheduled=8), 8, "schedule"),
        (ScalingSettings(max=50, rps=10.0, concurrency=100.0), steady(95, 0.05, 4), 10, "rps"),
    ],
)
def test_the_objective_with_the_largest_need_wins(
    chosen: ScalingSettings, signal: Signal, needed: int, winner: str
) -> None:
    _, decisions = drive(chosen, [signal] * 4)
    last = decisions[-1]
    assert last.desired == needed
    assert last.candidates[winner] == max(last.candidates.values()) == needed


def test_the_reason_names_the_limit() -> None:
    _, decisions = drive(ScalingSettings(max=8, rps=1.0), [steady(100, 0.01, 2)] * 3)
    assert (decisions[-1].desired, decisions[-1].limited_by) == (8, "max")
    assert decisions[-1].reason.endswith("100 needed, limited by the maximum of 8")
    _, decisions = drive(ScalingSettings(max=500, rps=1.0), [steady(300, 0.01, 2)])
    assert (decisions[0].desired, decisions[0].limited_by) == (20, "step")


def test_no_replica_is_removed_during_a_rollout_or_an_ejection() -> None:
    calm = [steady(100, 0.05, 10)] * 30
    for reason in ({"busy": True}, {"ejected": 1}):
        quiet = [steady(2, 0.05, 10, **reason)] * 200
        _, decisions = drive(ScalingSettings(max=20, rps=10.0), calm + quiet)
        assert decisions[-1].desired == 10
        assert decisions[-1].limited_by == "rollout"
    _, decisions = drive(ScalingSettings(max=20, rps=10.0), calm + [steady(2, 0.05, 10)] * 200)
    assert decisions[-1].desired == 1


@pytest.mark.parametrize("more", [{}, {"rps": 100.0}, {"min": 0, "idle": 30.0}])
def test_an_external_signal_that_is_gone_holds_the_number(more: dict[str, Any]) -> None:
    chosen = ScalingSettings(**{"min": 1, "max": 9, "external": 1.0, **more})
    state, decisions = drive(chosen, [steady(1, 0.01, 3, external=3.0)] * 60)
    assert decisions[-1].desired == 3
    gone = [Signal(ready=3)] * 600
    state, decisions = drive(chosen, gone, state, 60.0)
    assert {one.desired for one in decisions} == {3}
    assert decisions[-1].limited_by == "signal"
    assert decisions[-1].reason.endswith("is removed while the external signal is unknown")
    _, decisions = drive(chosen, [Signal(ready=3, external=1.0)] * 600, state, 660.0)
    assert decisions[-1].desired < 3


def test_scale_to_zero_when_idle_and_back_for_parked_requests() -> None:
    chosen = ScalingSettings(min=0, max=20, latency=0.2, share=95.0, idle=60.0)
    busy = [steady(40, 0.05, 2)] * 60
    quiet = [Signal(ready=2)] * 120
    state, decisions = drive(chosen, busy + quiet)
    assert decisions[-1].desired == 0
    causes = [one.cause for one in decisions[60:]]
    assert 55 <= causes.index("idle") <= 65
    _, woken = drive(chosen, [Signal(arrivals=3, parked=3)], state, 180.0)
    assert (woken[0].desired, woken[0].cause) == (1, "wake")
    _, burst = drive(chosen, [Signal(arrivals=400, parked=400)], state, 180.0)
    assert burst[0].desired >= 4
    _, still = drive(chosen, [Signal()] * 30, state, 180.0)
    assert {one.desired for one in still} == {0}


def test_a_schedule_starts_replicas_of_a_service_at_zero() -> None:
    chosen = ScalingSettings(min=0, max=20, latency=0.2, share=95.0, idle=60.0)
    state, decisions = drive(chosen, [Signal(ready=1)] * 120)
    assert decisions[-1].desired == 0
    state, scheduled = drive(chosen, [Signal(scheduled=3)] * 5, state, 120.0)
    assert (scheduled[0].desired, scheduled[0].cause) == (3, "schedule")
    assert "3 replicas scheduled" in scheduled[0].reason
    _, later = drive(chosen, [Signal(ready=3)] * 120, state, 125.0)
    assert later[-1].desired == 0


def test_times_of_a_clock_that_was_ahead_are_forgotten() -> None:
    chosen = ScalingSettings(min=0, max=20, latency=0.2, share=95.0, idle=60.0)
    day = 400 * 86400.0
    state, _ = drive(chosen, [steady(40, 0.05, 2)] * 60, None, day)
    state = forget_future(state, 100.0)
    assert state.capacity.service_time > 0.0
    _, decisions = drive(chosen, [Signal(ready=2)] * 120, state, 100.0)
    assert decisions[-1].desired == 0


def test_a_minimum_above_zero_prevents_scale_to_zero() -> None:
    _, decisions = drive(
        ScalingSettings(min=1, max=5, latency=0.2, idle=5.0), [Signal(ready=1)] * 100
    )
    assert {one.desired for one in decisions} == {1}


def test_the_reason_contains_the_numbers() -> None:
    _, decisions = drive(ScalingSettings(max=20, latency=0.2), [steady(100, 0.05, 4)] * 10)
    last = decisions[-1]
    assert "100.0 requests/s of 50 ms" in last.reason
    assert last.numbers["load"] == pytest.approx(5.0, rel=0.05)
    assert last.numbers["service_time"] == pytest.approx(0.05)


@pytest.mark.parametrize(
    ("chosen", "signal", "cause", "reason"),
    [
        (
            ScalingSettings(min=2, max=9, latency=0.2),
            Signal(ready=2),
            "hold",
            "load is within target (0.0 of 4.0 workers busy per replica)",
        ),
        (
            ScalingSettings(min=1, max=9, latency=0.2),
            Signal(ready=2),
            "hold",
            "load is within target (0.0 of 4.0 workers busy per replica); 1 would do, but not for "
            "long enough to remove replicas",
        ),
        (
            ScalingSettings(max=50, rps=10.0),
            steady(95, 0.05, 10),
            "hold",
            "load is within target (9.5 of 10 requests/s per replica)",
        ),
        (
            ScalingSettings(max=50, concurrency=2.0),
            steady(200, 0.05, 5),
            "hold",
            "load is within target (2.0 of 2 requests in flight per replica)",
        ),
        (
            ScalingSettings(max=50, rps=10.0),
            steady(95, 0.05, 4),
            "load",
            "the load needs more replicas (23.8 of 10 requests/s per replica)",
        ),
        (
            ScalingSettings(max=50, cpu=50.0),
            steady(9, 0.05, 4, cpu=80.0),
            "load",
            "the load needs more replicas (80 of 50 % CPU per replica)",
        ),
        (
            ScalingSettings(max=50, external=100.0),
            steady(9, 0.05, 10, external=1150.0),
            "load",
            "the load needs more replicas (115 of 100 from the query per replica)",
        ),
        (
            ScalingSettings(max=50, rps=100.0),
            steady(9, 0.05, 4, scheduled=8),
            "schedule",
            "the schedule asks for more replicas (8 replicas scheduled)",
        ),
        (
            ScalingSettings(max=50, rps=10.0, queue=0.1),
            steady(9, 0.05, 4, queue_sum=1.8),
            "load",
            "the load needs more replicas (0.2 s in the queue, target 0.1 s)",
        ),
        (
            ScalingSettings(min=0, max=9, rps=10.0),
            Signal(arrivals=3, parked=3),
            "wake",
            "requests wait and no replica runs (3.0 requests/s, 3 waiting for a first replica)",
        ),
        (
            ScalingSettings(min=0, max=9, rps=10.0),
            Signal(),
            "hold",
            "no requests, so no replica is needed (0.0 requests/s)",
        ),
        (
            ScalingSettings(min=0, max=9, rps=10.0),
            Signal(scheduled=3),
            "schedule",
            "the schedule asks for more replicas (3 replicas scheduled)",
        ),
    ],
)
def test_the_first_reason_of_a_service(
    chosen: ScalingSettings, signal: Signal, cause: str, reason: str
) -> None:
    _, (first,) = drive(chosen, [signal])
    assert (first.cause, first.reason) == (cause, reason)


@settings(max_examples=60, deadline=None)
@given(all_settings, st.lists(signals, min_size=1, max_size=60))
def test_a_reason_never_contradicts_its_numbers(
    chosen: ScalingSettings, sequence: list[Signal | None]
) -> None:
    _, decisions = drive(chosen, sequence)
    for decision in decisions:
        found = re.search(r"within target \(([\d.e+]+) of ([\d.e+]+) ", decision.reason)
        if found:
            assert float(found[1]) <= float(found[2]) * 1.001 + 0.1, decision.reason
        if match := re.search(r"; (\d+) would do", decision.reason):
            assert int(match[1]) < decision.desired
        if decision.limited_by == "unmeasured":
            assert decision.desired < decision.numbers["wanted"]


@pytest.mark.parametrize(
    ("rate", "service", "most"),
    [(6, 0.1, 1), (15, 0.1, 1), (25, 0.1, 2), (30, 0.02, 1), (150, 0.02, 2)],
)
def test_the_start_of_traffic_is_not_taken_for_a_rise_that_continues(
    rate: int, service: float, most: int
) -> None:
    """A new replica is assumed to have four workers; the load keeps at most three of them busy."""
    _, decisions = drive(
        ScalingSettings(max=20, latency=0.2),
        [Signal(ready=1)] * 10 + [steady(rate, service, 1)] * 20,
    )
    assert max(decision.desired for decision in decisions) <= most


@pytest.mark.parametrize(
    ("chosen", "more", "desired", "limited_by"),
    [
        ({"latency": 0.2}, {"ready": 0}, 2, "unmeasured"),
        ({"latency": 0.2}, {"ready": 1}, 2, "unmeasured"),
        ({"latency": 0.2}, {"ready": 3}, 6, "unmeasured"),
        ({"latency": 0.2, "min": 3}, {"ready": 0}, 3, "min"),
        ({"latency": 0.2, "concurrency": 20}, {"ready": 1}, 3, None),
        ({"latency": 0.2, "rps": 12.0}, {"ready": 1}, 5, "unmeasured"),
        ({"latency": 0.2}, {"ready": 1, "scheduled": 7}, 7, "unmeasured"),
        ({"rps": 12.0}, {"ready": 1}, 5, None),
    ],
)
def test_few_replicas_are_ordered_while_the_capacity_of_one_is_unknown(
    chosen: dict[str, Any], more: dict[str, Any], desired: int, limited_by: str | None
) -> None:
    signal = Signal(arrivals=60, in_flight=60.0, parked=0, **more)
    _, (first,) = drive(ScalingSettings(max=20, **chosen), [signal])
    assert (first.desired, first.limited_by) == (desired, limited_by)


def test_the_forecast_looks_further_ahead_before_a_start_up_was_seen() -> None:
    """A ramp of two requests per second and second, with and without a start-up of 2 s in it."""
    forecasts = []
    for startups in ((), (2.0,)):
        policy = make(ScalingSettings(max=50, latency=0.4))
        state = policy.initial(0.0)
        for second in range(40):
            rate = 60 + 2 * second
            signal = Signal(
                arrivals=rate, completions=rate, in_flight=0.1 * rate, latency=((0.1, rate),),
                latency_sum=0.1 * rate, ready=8, startups=startups if second == 5 else (),
            )  # fmt: skip
            state, decision = policy.step(state, signal, float(second))
        forecasts.append(decision.numbers["forecast"] - decision.numbers["rate"])
    unknown, known = forecasts
    assert unknown > 2.0 * 25.0
    assert known < 2.0 * 15.0


def test_the_number_is_not_limited_any_more_once_the_capacity_is_known() -> None:
    busy = [steady(rate, 0.1, 2) for rate in (20,) * 30 + (200,) * 5]
    _, decisions = drive(ScalingSettings(max=50, latency=0.4), busy)
    assert decisions[-1].desired > 4
    assert decisions[-1].limited_by is None


def test_misses_split_the_bucket_of_the_objective_and_count_shed_requests() -> None:
    signal = Signal(latency=((0.1, 10), (0.2, 8), (0.4, 4), (0.8, 2)), shed=3)
    assert signal.misses(0.3) == pytest.approx(2 + 2 + 3)
    assert signal.misses(0.4) == pytest.approx(2 + 3)
    assert signal.misses(5.0) == 3
    assert Signal().misses(0.1) == 0


def test_a_step_of_the_load_is_answered_within_two_seconds() -> None:
    quiet = [steady(20, 0.05, 1)] * 60
    rush = Signal(arrivals=200, completions=80, in_flight=70.0, latency_sum=22.0, ready=1)
    _, decisions = drive(ScalingSettings(max=20, latency=0.2), [*quiet, rush, rush])
    assert max(one.desired for one in decisions[60:]) >= ceil(200 * 0.05 / 4.0)


def test_the_stated_concurrency_is_trusted_until_the_limit_is_seen() -> None:
    calm = [steady(100, 0.1, 2)] * 40
    _, stated = drive(ScalingSettings(max=20, latency=0.4, concurrency=20.0), calm)
    _, unstated = drive(ScalingSettings(max=20, latency=0.4), calm)
    assert max(one.desired for one in stated) < max(one.desired for one in unstated)
    assert stated[-1].candidates["concurrency"] == 1


def test_open_connections_are_no_queue() -> None:
    quiet = Signal(in_flight=60.0, streams=60.0, ready=1)
    chosen = ScalingSettings(min=1, max=10, latency=0.2)
    _, decisions = drive(chosen, [Signal(arrivals=60, ready=1), *[quiet] * 120])
    assert {decision.desired for decision in decisions} == {1}
    assert "60 open connections" in decisions[-1].reason


def test_requests_behind_open_connections_still_queue() -> None:
    busy = Signal(
        arrivals=40, completions=10, in_flight=160.0, streams=60.0, latency_sum=10.0, ready=1
    )
    chosen = ScalingSettings(min=1, max=10, latency=0.2)
    _, decisions = drive(chosen, [busy] * 30)
    assert decisions[-1].desired > 1


def test_open_connections_count_for_a_target_of_concurrency() -> None:
    chosen = ScalingSettings(min=1, max=10, concurrency=20.0)
    quiet = Signal(in_flight=60.0, streams=60.0, ready=3)
    _, decisions = drive(chosen, [Signal(arrivals=60, in_flight=1.0, ready=1), *[quiet] * 60])
    assert decisions[-1].desired == 3
    _, decisions = drive(chosen, [Signal(arrivals=5, in_flight=60.0, streams=60.0, ready=3)] * 60)
    assert decisions[-1].desired == 3, "the rate of new connections does not matter"


def test_open_connections_keep_a_service_from_zero() -> None:
    chosen = ScalingSettings(min=0, max=3, latency=0.2, idle=10.0)
    quiet = Signal(in_flight=1.0, streams=1.0, ready=1)
    _, decisions = drive(chosen, [Signal(arrivals=1, in_flight=1.0, ready=1), *[quiet] * 60])
    assert decisions[-1].desired == 1
    _, decisions = drive(chosen, [Signal(arrivals=1, ready=1), *[Signal(ready=1)] * 60])
    assert decisions[-1].desired == 0


def test_before_a_first_start_up_was_seen_the_caution_is_that_of_half_a_minute() -> None:
    chosen = ScalingSettings(max=300, latency=0.4)
    calm = Signal(
        arrivals=4000,
        completions=4000,
        in_flight=400.0,
        latency=((0.1, 4000),),
        latency_sum=400.0,
        ready=150,
    )
    state, _ = drive(chosen, [calm] * 60)
    needs = []
    for started, startup in ((0, 10.0), (1, 10.0), (1, 30.0)):
        known = replace(state.capacity, started=started, startup=startup)
        _, (decision,) = drive(chosen, [calm], replace(state, capacity=known), 60.0)
        needs.append(decision.candidates["latency"])
    assert needs[0] == pytest.approx(needs[2])
    assert needs[0] > needs[1]
