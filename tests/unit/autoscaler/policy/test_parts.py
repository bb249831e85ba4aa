"""The parts of the scaling policy: windows, limits, traces, and the published policies."""

import random
from math import ceil, exp, log, sqrt

import pytest
from msgspec.structs import replace

from autoscaler import ScalingSettings, Signal, limits, trace
from autoscaler.baselines.hpa import Hpa
from autoscaler.baselines.kpa import Kpa
from autoscaler.policy import budget, capacity, change_cost, demand, gain_check
from autoscaler.policy.state import CapacityEstimate, DemandEstimate, GainCheck, Removal
from autoscaler.simulate.run import poisson
from autoscaler.window import push, significant_growth, significant_level

LONG = 10_000.0
"""Seconds since the last order, long enough not to matter."""


@pytest.mark.parametrize(
    ("history", "level"),
    [
        ([10.0], 10.0),
        ([10.0] * 40, 10.0),
        ([10.0] * 30 + [12.0], 30 * 10.0 / 30 + 2.0 / 30),
        ([100.0] * 30 + [500.0], 300.0 - 2.0 * sqrt(150.0)),
        ([100.0] * 30 + [500.0] * 2, 500.0 - 2.0 * sqrt(250.0)),
        ([500.0] * 30 + [100.0] * 30, 100.0),
    ],
)
def test_a_rise_counts_when_it_is_significant_and_noise_does_not(
    history: list[float], level: float
) -> None:
    assert significant_level(history) == pytest.approx(level)


def test_only_a_significant_growth_counts() -> None:
    assert significant_growth([100.0] * 32, 10.0, 10.0) == 0.0
    assert significant_growth([100.0, 110.0] * 16, 10.0, 10.0) == 0.0
    assert significant_growth([500.0 - 10.0 * second for second in range(32)], 10.0, 10.0) == 0.0
    steady = [100.0 + 20.0 * second for second in range(32)]
    assert significant_growth(steady, 10.0, 10.0) == pytest.approx(200.0)
    assert significant_growth([100.0] * 28 + [112.0] * 4, 10.0, 10.0) == 0.0


def test_a_growth_of_seconds_is_not_extrapolated_over_minutes() -> None:
    burst = [100.0] * 28 + [200.0] * 4
    assert significant_growth(burst, 16.0, 16.0) == pytest.approx(16 * 25.0)
    assert significant_growth(burst, 100.0, 100.0) == pytest.approx(16 * 25.0)
    assert significant_growth(burst, 100.0, 5.0) == pytest.approx(8 * 25.0)
    steady = [100.0 + 20.0 * second for second in range(32)]
    assert significant_growth(steady, 100.0, 100.0) == pytest.approx(32 * 20.0)


def test_push_keeps_the_newest_values() -> None:
    kept: tuple[int, ...] = ()
    for value in range(5):
        kept = push(kept, value, 3)
    assert kept == (2, 3, 4)
    assert push((1,), 2, 1) == (2,)


@pytest.mark.parametrize(
    ("current", "needed", "expected"),
    [
        (4, 5, (5, None)),
        (4, 100, (40, "step")),
        (0, 9, (4, "step")),
        (50, 1, (10, "step")),
        (1, 0, (1, "min")),
        (90, 120, (100, "max")),
    ],
)
def test_bounds_and_steps(current: int, needed: int, expected: tuple[int, str | None]) -> None:
    settings = ScalingSettings(min=1, max=100, latency=1.0)
    assert limits.apply_limits(settings, current, needed) == expected


@pytest.mark.parametrize(
    ("limit", "text"),
    [
        ("min", "limited by the minimum of 1"),
        ("max", "limited by the maximum of 100"),
        ("step", "limited to one step (at most 10 times as many, or 80% fewer)"),
        ("rollout", "but no replica is removed during a rollout or an ejection"),
        (
            "unmeasured",
            "but the latency objective orders at most twice the ready replicas (at least 2) until "
            "enough answers show how many requests a replica can serve",
        ),
    ],
)
def test_every_limit_has_a_text(limit: str, text: str) -> None:
    assert limits.describe_limit(ScalingSettings(min=1, max=100), limit) == text


def test_bins_are_interpolated_between_centres_and_scaled_to_the_peak() -> None:
    rates = trace.rates_of([60.0, 120.0, 60.0], 60, None)
    assert len(rates) == 180
    assert rates[0] == 1.0
    assert rates[30] == pytest.approx(1.0 + 0.5 / 60)
    assert rates[89] == pytest.approx(2.0 - 0.5 / 60)
    scaled = trace.rates_of([60.0, 120.0, 60.0], 60, 600.0)
    minutes = [sum(scaled[at : at + 60]) / 60 for at in (0, 60, 120)]
    assert max(minutes) == pytest.approx(600.0, rel=0.01)
    assert trace.rates_of([5.0, 7.0], 1, None) == [5.0, 7.0]
    assert trace.percentile([1.0, 2.0, 3.0, 4.0], 50.0) == 2.5


def test_burn_rate_is_misses_per_allowed_miss() -> None:
    chosen = ScalingSettings(latency=0.1, share=99.0)
    spent = (0.0, 0.0)
    for _ in range(5000):
        signal = Signal(arrivals=100, latency=((0.1, 98), (0.4, 2)))
        spent = budget.observe(spent, signal, chosen)
    assert budget.burn_rate(spent, 99.0, 100.0) == pytest.approx(2.0, rel=0.2)
    assert budget.burn_rate((0.0, 0.0), 99.0, 100.0) == 1.0
    lax, strict = budget.sizing_caution(95.0, 1.0, 10.0), budget.sizing_caution(99.9, 1.0, 10.0)
    assert lax < strict
    assert budget.sizing_caution(99.0, 1.0, 10.0) < budget.sizing_caution(99.0, 2.0, 10.0)
    assert budget.sizing_caution(99.0, 1.0, 10.0)[0] < budget.sizing_caution(99.0, 1.0, 30.0)[0]


def test_the_headroom_corrects_more_than_in_proportion() -> None:
    """Twice the allowed misses leave a quarter of the shortfalls uncovered, half of them twice as
    many. An objective of 98 % has the headroom of 99.6 %, which has less than 99.9 %."""

    def uncovered(share: float, burning: float) -> float:
        return 1.0 - budget.sizing_caution(share, burning, 10.0)[0]

    usual = uncovered(99.6, 1.0)
    assert uncovered(99.6, 1.2) == pytest.approx(usual / 1.2**3)
    assert uncovered(99.6, 2.0) == pytest.approx(usual / budget.MAX_CAUTION)
    assert uncovered(99.6, 0.5) == pytest.approx(2.0 * usual)
    assert uncovered(98.0, 1.0) == usual
    assert uncovered(95.0, 1.0) == budget.MAX_SHORTFALL
    assert uncovered(95.0, 2.0) == pytest.approx(1.56 / 2.0**3)
    assert uncovered(95.0, 8.0) == pytest.approx(uncovered(98.0, 8.0))
    assert uncovered(99.9, 1.0) == pytest.approx(usual / 4.0)


@pytest.mark.parametrize(
    ("throughput", "latency", "gain"),
    [(50.0, 2.0, False), (80.0, 2.0, True), (50.0, 0.5, True), (52.0, 1.9, False)],
)
def test_a_scale_up_without_gain_is_capped(throughput: float, latency: float, gain: bool) -> None:
    before = GainCheck(since=0.0, ready=2, throughput=50.0, latency=2.0)
    learned = CapacityEstimate(
        service_time=0.1, completions=10.0 * throughput, latency=10.0 * throughput * latency
    )
    second = Signal(ready=6, completions=int(throughput), latency_sum=int(throughput) * latency)
    check, cap = gain_check.evaluate(before, None, learned, second, 6, 50.0, 0.4, 5.0)
    assert check is not None
    assert (check.served, cap) == (5.0, None)
    check, cap = gain_check.evaluate(check, None, learned, second, 6, 50.0, 0.4, 60.0)
    assert check is None
    assert (cap is None) is gain
    if cap:
        assert cap.number == 2
        assert (cap.added, cap.latency) == (4, (2.0, pytest.approx(latency)))
        assert gain_check.active_cap(cap, 50.0, 100.0) is cap
        assert gain_check.active_cap(cap, 500.0, 100.0) is None
        assert gain_check.active_cap(cap, 50.0, 1000.0) is None
        fewer = replace(learned, completions=0.5 * learned.completions)
        assert gain_check.evaluate(None, cap, fewer, second, 6, 50.0, 0.4, 70.0) == (None, None)
        later = replace(learned, latency=1.4 * learned.latency)
        assert gain_check.evaluate(None, cap, later, second, 6, 50.0, 0.4, 70.0) == (None, cap)
        later = replace(learned, latency=1.6 * learned.latency)
        assert gain_check.evaluate(None, cap, later, second, 6, 50.0, 0.4, 70.0) == (None, None)


@pytest.mark.parametrize(
    ("slowdown", "objective", "trouble"),
    [(6.0, 0.4, True), (6.0, 0.8, False), (6.0, None, False), (3.0, 0.4, False), (1.0, 2.0, True)],
)
def test_requests_that_wait_or_cannot_meet_the_objective_are_in_trouble(
    slowdown: float, objective: float | None, trouble: bool
) -> None:
    """Requests of 0.1 s take 0.6 s: by a slowdown, or because they wait."""
    learned = CapacityEstimate(
        service_time=0.1, slowdown=slowdown, completions=100.0, latency=100.0 * 0.1 * 6.0
    )
    if slowdown == 3.0:
        learned = replace(learned, latency=100.0 * 0.1 * 3.0)
    assert gain_check.is_in_trouble(learned, objective) is trouble


def test_one_fast_first_answer_does_not_make_a_replica_look_like_one_worker() -> None:
    learned = CapacityEstimate()
    for second in range(60):
        took = 0.04 if second < 2 else 0.12
        signal = Signal(ready=1, arrivals=1, completions=1, latency_sum=took, in_flight=took)
        learned = capacity.observe(learned, signal)
    # A second in which requests arrive together by chance.
    signal = Signal(ready=1, arrivals=9, completions=9, latency_sum=2.4, in_flight=0.9)
    learned = capacity.observe(learned, signal)
    assert learned.service_time == pytest.approx(0.12, rel=0.15)
    assert not learned.saturated
    assert learned.bound == CapacityEstimate().bound


@pytest.mark.parametrize(("number", "measured"), [(11, False), (40, True)])
def test_one_long_request_among_few_does_not_show_the_limit(number: int, measured: bool) -> None:
    """The mean latency of one second is 2.2 times the service time."""
    learned = CapacityEstimate(
        service_time=0.1, completions=80.0, latency=8.0, quick=4.0, replicas=10.0
    )
    second = Signal(
        ready=1, arrivals=number, completions=number, in_flight=0.22 * number,
        latency_sum=0.22 * number, latency=((0.1, number - 1), (2.0, 1)),
    )  # fmt: skip
    assert capacity.observe(learned, second).saturated is measured


def test_an_assumed_limit_is_not_below_the_proven_workers() -> None:
    """The service time is too low by a fifth, so that requests seem to wait, however many replicas
    are added."""
    learned = CapacityEstimate(service_time=0.08, proven=2.5, bound=2.6)
    for _ in range(900):
        ready = ceil(80.0 / (0.85 * learned.bound))
        signal = Signal(
            ready=ready, arrivals=1000, completions=1000, in_flight=100.0, latency_sum=100.0,
            latency=((0.1, 1000),),
        )  # fmt: skip
        learned = capacity.observe(learned, signal)
    assert learned.bound >= learned.proven >= 2.4


@pytest.mark.parametrize(
    ("number", "started", "share"), [(40, 1, 1.5), (40, 0, 1.25), (4000, 1, 1.25)]
)
def test_a_wait_that_chance_explains_does_not_lower_the_assumed_limit(
    number: int, started: int, share: float
) -> None:
    """Requests take a tenth longer than the service time: of few, that says nothing. Of many, it
    halves the assumed share beyond the busy workers."""
    learned = CapacityEstimate(
        service_time=0.1, answers=1000.0, proven=2.0, bound=3.6, started=started
    )
    for _ in range(300):
        signal = Signal(
            ready=number // 20, arrivals=number, completions=number, in_flight=0.11 * number,
            latency_sum=0.11 * number,
        )  # fmt: skip
        learned = capacity.observe(learned, signal)
    assert learned.bound == pytest.approx(share * 2.0, rel=0.08)


def test_seconds_with_few_answers_all_count_for_the_first_service_time() -> None:
    """The slower ones too: with the quicker ones alone it is 0.2 s. The mean of all is 0.32 s."""
    learned = CapacityEstimate()
    for second in range(100):
        took = 0.1 if second // 15 % 2 else 0.5
        signal = Signal(
            ready=2, arrivals=10, completions=10, in_flight=10 * took, latency_sum=10 * took
        )
        learned = capacity.observe(learned, signal)
    assert 0.24 < learned.service_time < 0.36


@pytest.mark.parametrize(("startups", "measured"), [((), True), ((2.0, 2.0, 2.0), False)])
def test_new_replicas_that_are_slow_at_first_do_not_show_the_limit(
    startups: tuple[float, ...], measured: bool
) -> None:
    learned = CapacityEstimate()
    for _ in range(20):
        idle = Signal(ready=2, arrivals=15, completions=15, latency_sum=1.5, in_flight=0.7)
        learned = capacity.observe(learned, idle)
    for second in range(4):
        queue = Signal(
            ready=5, arrivals=25, completions=25, latency_sum=40.0, in_flight=40.0,
            startups=startups if not second else (),
        )  # fmt: skip
        learned = capacity.observe(learned, queue)
    assert learned.saturated is measured


@pytest.mark.parametrize(("quick", "measured"), [(0.06, False), (0.3, True)])
def test_requests_that_wait_at_some_replicas_do_not_show_the_limit(
    quick: float, measured: bool
) -> None:
    """The quickest fifth of the requests takes as long as usual, or waits like all others."""
    learned = CapacityEstimate(
        service_time=0.1, spread=1.6, proven=3.0, bound=4.0, completions=200.0, latency=20.0,
        quick=12.0, replicas=10.0,
    )  # fmt: skip
    for _ in range(5):
        queue = Signal(
            ready=8, arrivals=100, completions=100, in_flight=40.0, latency_sum=40.0,
            latency=((quick, 40), (0.6, 60)),
        )  # fmt: skip
        learned = capacity.observe(learned, queue)
    assert learned.saturated is measured


def test_new_replicas_that_are_slow_at_first_are_not_useless() -> None:
    """Before 40 s, unless every request takes longer: then something behind them is slow."""
    check = GainCheck(since=0.0, ready=2, throughput=50.0, latency=1.0, served=10.0)
    second = Signal(ready=3, completions=50, latency_sum=50.0)
    learned = CapacityEstimate(
        service_time=0.1, completions=500.0, latency=500.0, spread=1.6, quick=500.0 * 0.08
    )
    early = gain_check.evaluate(check, None, learned, second, 3, 50.0, 0.4, 40.0)
    assert early == (check, None)
    assert gain_check.evaluate(check, None, learned, second, 3, 50.0, 0.4, 50.0)[1] is not None
    newer = replace(learned, newcomers=0.1)  # another replica became ready 20 s ago
    assert gain_check.evaluate(check, None, newer, second, 3, 50.0, 0.4, 50.0) == (check, None)
    slow = replace(learned, quick=500.0 * 0.5)
    assert gain_check.evaluate(check, None, slow, second, 3, 50.0, 0.4, 40.0)[1] is not None


@pytest.mark.parametrize(("seconds", "useless"), [(0.9, True), (0.7, False)])
def test_replicas_are_not_useless_while_answers_become_quicker(
    seconds: float, useless: bool
) -> None:
    """The last ten seconds took 1 s an answer; the present second takes less, so the queue drains
    or slow first seconds end."""
    check = GainCheck(since=0.0, ready=2, throughput=50.0, latency=0.6, served=10.0)
    learned = CapacityEstimate(
        service_time=0.1, completions=500.0, latency=500.0, spread=1.6, quick=500.0 * 0.5
    )
    second = Signal(ready=3, completions=50, latency_sum=50.0 * seconds)
    kept, cap = gain_check.evaluate(check, None, learned, second, 3, 50.0, 0.4, 60.0)
    assert (cap is not None) is useless
    assert (kept == check) is not useless


def test_replicas_that_were_missed_stay_longer_the_next_time() -> None:
    removed = change_cost.judge_removal(Removal(), 14, 10, 65.0, 100.0)
    assert removed == Removal(100.0, 4, 1.0)
    missed = change_cost.judge_removal(removed, 10, 14, 65.0, 108.0)
    assert (missed.count, missed.caution) == (0, 2.0)
    paid = change_cost.judge_removal(removed, 10, 14, 65.0, 120.0)
    assert (paid.count, paid.caution) == (0, 1.0)
    late = change_cost.judge_removal(removed, 10, 14, 65.0, 109.0)
    assert late.caution == 1.0, "their absence has saved half a change"
    for second in range(20):
        missed = change_cost.judge_removal(missed, 14, 10, 65.0, 200.0 + second)
        missed = change_cost.judge_removal(missed, 10, 14, 65.0, 200.5 + second)
    assert missed.caution == change_cost.MAX_CAUTION
    for second in range(3600):
        missed = change_cost.judge_removal(missed, 14, 14, 65.0, 300.0 + second)
    assert missed.caution == pytest.approx(1.0, abs=0.03)


@pytest.mark.parametrize(("caution", "low"), [(1.0, 1), (2.0, 1), (2.1, 9), (4.0, 9)])
def test_caution_leaves_out_the_short_windows(caution: float, low: int) -> None:
    """The number was high until a minute ago: only the longer windows see that."""
    recent, blocks = (1.0,) * 60, (9.0,) * 24 + (1.0,) * 6
    found = change_cost.lower_count(9, recent, blocks, 60, 0.0, 100.0, LONG, caution)
    assert found == low


def test_start_up_time_is_learned_as_a_high_percentile() -> None:
    learned = CapacityEstimate()
    for _ in range(60):
        learned = capacity.observe(learned, Signal(startups=(1.0, 2.0)))
    assert 1.5 < learned.startup <= 2.0


def test_a_first_start_that_lasts_longer_than_expected_counts_at_once() -> None:
    learned = CapacityEstimate()
    for _ in range(91):
        learned = capacity.observe(learned, Signal(starting=1))
    assert learned.planned_startup == pytest.approx(90.0)
    for _ in range(300):
        learned = capacity.observe(learned, Signal(starting=1))
    assert learned.planned_startup == learned.startup, "it has probably failed"


def test_late_starts_count_as_if_they_ended_now() -> None:
    learned = CapacityEstimate(startup=10.0, started=50)
    for second in range(41):
        learned = capacity.observe(learned, Signal(starting=1))
        late = second > learned.startup
        assert (learned.planned_startup > learned.startup) is late
    one, ended = learned.planned_startup, capacity.observe(learned, Signal(startups=(40.0,)))
    assert ended.startup == pytest.approx(one) == ended.planned_startup
    assert ended.starting == ()


def test_the_newest_start_is_cancelled_and_the_one_that_ended_is_found_by_its_age() -> None:
    learned = CapacityEstimate()
    for starting in (1, 1, 1, 2, 2, 3):
        learned = capacity.observe(learned, Signal(starting=starting))
    assert learned.starting == (5.0, 2.0, 0.0)
    learned = capacity.observe(learned, Signal(starting=2))
    assert learned.starting == (6.0, 3.0)
    learned = capacity.observe(learned, Signal(starting=1, startups=(4.1,)))
    assert learned.starting == (7.0,)


def test_caution_has_one_bound_for_long_start_ups_and_many_misses() -> None:
    most = budget.sizing_caution(99.6, budget.MAX_BURN, 10.0)
    assert budget.sizing_caution(99.6, 1.0, 60.0) < most
    assert budget.sizing_caution(99.6, budget.MAX_BURN, 60.0) == most


def test_the_first_step_is_not_extrapolated_beyond_twice_the_level() -> None:
    """After ten minutes of even traffic too: no trend could be compared with what followed yet."""
    known = DemandEstimate()
    for second in range(606):
        signal = Signal(arrivals=40 if second < 600 else 400)
        known = demand.observe(known, signal, 31.0, 0.0, 11.0)
        assert known.forecast <= 2.0 * known.level
        assert (known.rise > 0.0) is (second >= 600)


def test_a_steady_growth_is_seen_over_a_long_start_up() -> None:
    """Half a request per second and second: too little to be significant within half a minute."""
    known = DemandEstimate()
    for second in range(200):
        known = demand.observe(known, Signal(arrivals=100 + second // 2), 100.0, 0.0)
    assert known.forecast == pytest.approx(known.level + 50.0, abs=10.0)


def test_the_limit_of_a_replica_is_found_again_while_the_service_is_slower() -> None:
    """A limit of 2.4 workers that was measured too low: all requests take twice as long, 2.9
    of them are in flight at each replica, and none waits."""
    learned = CapacityEstimate(
        service_time=0.1, proven=2.4, bound=2.4, saturated=True, spread=1.45, slowdown=2.0
    )
    for _ in range(120):
        learned = capacity.observe(learned, shaped(2.0, 0.0, 7))
    assert learned.slowdown > 1.6
    assert learned.bound > 2.6


def test_a_slowdown_by_an_overload_does_not_raise_the_limit() -> None:
    """It may be waiting: a slow dependency delays all requests, and replicas look busy."""
    learned = CapacityEstimate(
        service_time=0.1,
        proven=2.4,
        bound=2.4,
        saturated=True,
        spread=1.45,
        slowdown=2.0,
        abrupt=True,
    )
    for _ in range(120):
        learned = capacity.observe(learned, shaped(2.0, 0.0, 7))
    assert learned.bound == learned.proven == 2.4


def steps(policy: Kpa | Hpa, sequence: list[Signal]) -> list[int]:
    state, found = policy.initial(0.0), []
    for second, signal in enumerate(sequence, start=1):
        state, decision = policy.step(state, signal, float(second))  # type: ignore[arg-type]
        found.append(decision.desired)
    return found


def test_kpa_averages_60_s_and_panics_on_6_s() -> None:
    calm = [Signal(in_flight=28.0, ready=10)] * 120
    assert steps(Kpa(2.8), calm)[-1] == 10
    burst = calm + [Signal(in_flight=70.0, ready=10)] * 6
    assert steps(Kpa(2.8), burst)[-1] == 25
    after = burst + [Signal(in_flight=28.0, ready=25)] * 60
    assert min(steps(Kpa(2.8), after)[-60:]) == 25
    assert steps(Kpa(2.8), after + [Signal(in_flight=28.0, ready=25)] * 20)[-1] < 25


def test_hpa_tolerates_10_percent_and_waits_300_s_to_scale_down() -> None:
    def at(cpu: float, ready: int, seconds: int) -> list[Signal]:
        return [Signal(cpu=cpu, ready=ready)] * seconds

    assert steps(Hpa("cpu", 70.0), at(76.0, 10, 60))[-1] == 10
    assert steps(Hpa("cpu", 70.0), at(100.0, 10, 45))[-1] == 15
    down = steps(Hpa("cpu", 70.0), at(70.0, 10, 300) + at(35.0, 10, 330))
    assert down[300 + 280] == 10
    assert down[-1] == 5
    rate = [Signal(arrivals=280, ready=10)] * 60 + [Signal(arrivals=560, ready=10)] * 75
    assert steps(Hpa("rps", 28.0), rate)[59] == 10
    assert steps(Hpa("rps", 28.0), rate)[-1] == 20


@pytest.mark.parametrize(
    ("current", "needs", "low"),
    [
        (9, [1.0] * 29, 9),  # not enough history
        (9, [1.0] * 60, 1),  # eight surplus replicas have cost enough after 30 s
        (4, [1.0] * 60, 1),  # three after 60 s
        (2, [1.0] * 60, 2),  # one has not after 60 s
        (9, [9.0] * 30 + [1.0] * 30, 1),
        (9, [1.0] * 59 + [9.0], 9),
    ],
)
def test_surplus_replicas_go_when_they_have_cost_as_much_as_a_change(
    current: int, needs: list[float], low: int
) -> None:
    assert change_cost.lower_count(current, tuple(needs), (), 60, 0.0, 100.0, LONG) == low


def test_one_surplus_replica_goes_late_and_any_goes_in_the_end() -> None:
    recent, high = (1.0,) * 60, 1000.0
    assert change_cost.lower_count(2, recent, (1.0,) * 11, 60, 0.0, 100.0, LONG) == 2
    assert change_cost.lower_count(2, recent, (1.0,) * 12, 60, 0.0, 100.0, LONG) == 1
    assert change_cost.lower_count(2, recent, (1.0,) * 29, 60, 0.0, high, LONG) == 2
    assert change_cost.lower_count(2, recent, (1.0,) * 30, 60, 0.0, high, LONG) == 1
    noisy = change_cost.lower_count(2, recent, (1.0,) * 30, 60, 0.5, high, LONG)
    assert noisy == 2, "noise may change the estimate by this much"


@pytest.mark.parametrize(
    ("current", "unchanged", "low"),
    [
        (9, 1.0, 9),  # ordered a second ago: they have cost nothing yet
        (9, 12.4, 9),
        (9, 12.5, 1),  # eight have now cost as much as a change
        (2, 299.0, 1),
        (2, 99.0, 2),
    ],
)
def test_replicas_just_ordered_are_not_removed_at_once(
    current: int, unchanged: float, low: int
) -> None:
    assert (
        change_cost.lower_count(current, (1.0,) * 60, (1.0,) * 30, 60, 0.0, 100.0, unchanged) == low
    )


def test_extra_replicas_are_ordered_for_a_steady_rise_only() -> None:
    assert change_cost.extra_order(10.0, DemandEstimate(level=100.0), 100.0) == 0.0
    few = change_cost.extra_order(10.0, DemandEstimate(level=100.0, rise=2.0), 100.0)
    assert few == pytest.approx(sqrt(0.5 * 100.0 * 0.2))
    assert change_cost.extra_order(
        10.0, DemandEstimate(level=100.0, rise=2.0), 400.0
    ) == pytest.approx(2.0 * few)


def test_the_change_cost_is_proportional_to_the_window_unless_it_is_set() -> None:
    usual, fast = ScalingSettings(latency=0.1), ScalingSettings(latency=0.1, down_window=6.0)
    assert change_cost.change_cost(usual, 10.0) == pytest.approx(64.8)
    assert change_cost.change_cost(fast, 10.0) == pytest.approx(8.1)
    stated = ScalingSettings(latency=0.1, down_window=6.0, calm=7.0)
    assert change_cost.change_cost(stated, 100.0) == 7.0
    assert (
        change_cost.down_window(ScalingSettings(latency=0.1))
        == change_cost.down_window(ScalingSettings(latency=0.1, calm=500.0))
        == 48
    )
    assert change_cost.down_window(ScalingSettings(latency=0.1, calm=10.0)) == 7


def test_a_change_costs_more_if_replicas_start_slowly() -> None:
    chosen = ScalingSettings(latency=0.1)
    cheap = change_cost.change_cost(chosen, 2.0)
    assert change_cost.change_cost(chosen, change_cost.USUAL_STARTUP) == cheap
    assert change_cost.change_cost(chosen, 3.0 * change_cost.USUAL_STARTUP) == 3.0 * cheap


def test_a_change_that_no_rise_would_undo_costs_the_same_for_every_start_up() -> None:
    chosen = ScalingSettings(latency=0.1)
    cheap = change_cost.change_cost(chosen, 2.0)
    assert change_cost.change_cost(chosen, 8.0 * change_cost.USUAL_STARTUP, safe=True) == cheap
    assert change_cost.change_cost(ScalingSettings(calm=7.0), 100.0, safe=True) == 7.0


@pytest.mark.parametrize(
    ("weights", "peak", "rate"),
    [
        ({0: 500.0}, 300.0, 100.0),
        ({0: 500.0, 4: 0.1}, 300.0, 100.0),  # forgotten
        ({0: 500.0, 4: 1.0}, 300.0, 100.0 * exp(5.0 / 16.0)),
        ({0: 500.0, 4: 9.0, 8: 1.0}, 120.0, 120.0),
        ({0: 500.0, 31: 1.0}, 5000.0, 5000.0),  # ten times as much, or more
    ],
)
def test_the_largest_rise_is_remembered_for_a_while(
    weights: dict[int, float], peak: float, rate: float
) -> None:
    shortfalls = tuple(weights.get(bucket, 0.0) for bucket in range(32))
    known = DemandEstimate(shortfalls=shortfalls, level=100.0, forecast=100.0, peak=peak)
    assert demand.largest_rise(known) == pytest.approx(rate)


def climb(seconds: int, slow_ahead: float | None = None) -> DemandEstimate:
    """From 100 requests/s, half a request/s more each second, with a start-up of 80 s."""
    known = DemandEstimate()
    for second in range(seconds):
        known = demand.observe(
            known, Signal(arrivals=100 + second // 2), 80.0, 0.0, 80.0, slow_ahead
        )
    return known


def test_slow_growth_continues_over_a_long_start_up() -> None:
    known = climb(300)
    assert known.forecast == pytest.approx(known.level + 40.0, abs=3.0)
    assert len(known.slow_past) == 121
    few = climb(60)
    assert few.forecast - few.level < 25.0, "seen for less than a start-up"


def test_wrong_slopes_of_seconds_do_not_hide_slow_growth() -> None:
    """A spike every minute looks like a slope of seconds that never continues."""
    known = DemandEstimate()
    for second in range(600):
        spike = 60 if second % 60 < 4 else 0
        known = demand.observe(known, Signal(arrivals=100 + second // 5 + spike), 80.0, 0.0, 80.0)
    assert known.forecast == pytest.approx(known.level + 16.0, abs=1.0)


def test_slow_growth_does_not_make_slopes_of_seconds_come_true() -> None:
    """Over a long start-up the level rises as far as a spike seems to lead, but not because of
    it."""
    known, beyond = DemandEstimate(), 0.0
    for second in range(900):
        spike = 60 if second >= 340 and second % 60 < 4 else 0
        known = demand.observe(known, Signal(arrivals=100 + second // 2 + spike), 81.0, 0.0, 80.0)
        if second > 760:
            beyond = max(beyond, known.forecast - max(known.level, known.slow_past[-1][1]))
    assert beyond == 0.0


def test_slow_growth_looks_further_ahead_than_slopes_before_a_first_start_up() -> None:
    near, far = DemandEstimate(), DemandEstimate()
    for second in range(200):
        signal = Signal(arrivals=100 + second // 2)
        near = demand.observe(near, signal, 31.0, 0.0, 11.0)
        far = demand.observe(far, signal, 31.0, 0.0, 11.0, 121.0)
    assert near.forecast - near.level < 20.0
    assert far.forecast == pytest.approx(far.level + 60.0, abs=3.0)


def test_headroom_leads_at_most_to_the_highest_level_of_the_last_minutes() -> None:
    """A wave between 20 and 200 requests/s needs ten times as much in the valley, and no more on
    its peak."""
    known = DemandEstimate()
    for second in range(600):
        rate = 200 if second % 60 >= 30 else 20
        known = demand.observe(known, Signal(arrivals=rate), 10.0, 0.0)
        if second > 300:
            sized, extra = demand.expected_peak(known, 0.99)
            assert sized <= max(known.forecast, 1.01 * known.peak)
            assert sized == pytest.approx(known.forecast * (1.0 + extra))
    for _ in range(30):
        known = demand.observe(known, Signal(arrivals=20), 10.0, 0.0)
    assert demand.expected_peak(known, 0.99)[0] > 100.0


def shaped(factor: float, waiting: float, ready: int) -> Signal:
    """One second of 100 answers of 50 to 150 ms, each multiplied by `factor`, then waiting."""
    times = sorted(factor * (0.05 + 0.001 * number) + waiting for number in range(100))
    histogram = tuple((each, 1) for each in times)
    total = sum(times)
    return Signal(
        arrivals=100, completions=100, in_flight=total, latency=histogram, latency_sum=total,
        ready=ready,
    )  # fmt: skip


def test_a_service_time_that_drifts_is_followed_within_minutes_both_ways() -> None:
    learned = CapacityEstimate()
    for _ in range(120):
        learned = capacity.observe(learned, shaped(1.0, 0.0, 3))
    before = learned.present_time
    assert before == pytest.approx(0.1, rel=0.05)
    for _ in range(240):
        learned = capacity.observe(learned, shaped(2.0, 0.0, 6))
    assert learned.present_time == pytest.approx(0.2, rel=0.2)
    for _ in range(60):
        learned = capacity.observe(learned, shaped(1.0, 0.0, 6))
    assert learned.present_time == pytest.approx(before, rel=0.1)


def test_requests_that_wait_are_not_taken_for_a_slower_service() -> None:
    learned = CapacityEstimate()
    for _ in range(120):
        learned = capacity.observe(learned, shaped(1.0, 0.0, 3))
    for _ in range(60):
        learned = capacity.observe(learned, shaped(1.0, 0.5, 3))
    assert learned.slowdown == pytest.approx(1.0, abs=0.05)


def test_new_replicas_that_are_slow_at_first_do_not_make_the_service_slower() -> None:
    """Three of ten replicas take four times as long; the service is idle otherwise."""
    learned = CapacityEstimate()
    for _ in range(120):
        learned = capacity.observe(learned, shaped(1.0, 0.0, 30))
    before = learned.present_time
    fast, slow = shaped(1.0, 0.0, 30), shaped(4.0, 0.0, 30)
    latency = tuple(sorted([*fast.latency[::2], *slow.latency[::5]]))
    total = sum(upper for upper, _ in latency)
    mixed = Signal(
        arrivals=70, completions=70, in_flight=total, latency=latency, latency_sum=total, ready=30
    )
    for _ in range(30):
        learned = capacity.observe(learned, mixed)
    assert learned.present_time < 1.3 * before


def random_answers(
    learned: CapacityEstimate, seconds: int, rate: float, ready: int
) -> CapacityEstimate:
    """Return the estimate after requests of 0.2 s that vary much (log-normal, as much as their
    mean) and never wait."""
    dice, sigma = random.Random(1), sqrt(log(2.0))
    busy: list[tuple[float, float]] = []
    for second in range(seconds):
        arrivals = poisson(rate, dice)
        for _ in range(arrivals):
            took = 0.2 * dice.lognormvariate(-sigma * sigma / 2.0, sigma)
            busy.append((second + dice.random() + took, took))
        ended = sorted(took for end, took in busy if end <= second + 1.0)
        busy = [(end, took) for end, took in busy if end > second + 1.0]
        learned = capacity.observe(
            learned,
            Signal(
                arrivals=arrivals,
                completions=len(ended),
                in_flight=rate * 0.2,
                latency=tuple((took, 1) for took in ended),
                latency_sum=sum(ended),
                ready=ready,
            ),
        )
    return learned


@pytest.mark.parametrize(("rate", "ready"), [(8.0, 1), (15.0, 2), (40.0, 4)])
@pytest.mark.parametrize("seconds", [30, 600])
def test_few_answers_that_vary_do_not_make_the_service_time_too_low(
    rate: float, ready: int, seconds: int
) -> None:
    """A fall beyond chance only, and no cut of a rise that chance explains: it was up to a quarter
    too low, so that every latency looked like waiting."""
    learned = random_answers(CapacityEstimate(answers=0.0), seconds, rate, ready)
    assert learned.service_time == pytest.approx(0.2, rel=0.12)


@pytest.mark.parametrize(
    ("startups", "quick", "lowers"),
    [((), 0.15, True), ((10.0,), 0.15, False), ((10.0,), 0.4, True)],
)
def test_new_replicas_that_may_be_slow_do_not_lower_a_known_limit(
    startups: tuple[float, ...], quick: float, lowers: bool
) -> None:
    """Unless every request takes longer: then the new ones are not the only slow replicas."""
    learned = CapacityEstimate(
        service_time=0.1, proven=4.0, bound=4.0, saturated=True, spread=1.0, started=3
    )
    for second in range(30):
        learned = capacity.observe(
            learned,
            Signal(
                arrivals=60,
                completions=60,
                in_flight=24.0,
                latency=((quick, 20), (0.5, 40)),
                latency_sum=24.0,
                ready=2,
                startups=startups if second == 0 else (),
            ),
        )
    assert (learned.bound < 3.7) is lowers


def test_new_replicas_that_keep_up_with_the_load_are_a_gain() -> None:
    before = GainCheck(since=0.0, ready=2, throughput=40.0, latency=1.0, served=5.0)
    learned = CapacityEstimate(service_time=0.1, completions=500.0, latency=500.0)
    second = Signal(ready=6, completions=50, latency_sum=50.0)
    assert gain_check.evaluate(before, None, learned, second, 6, 50.0, 0.4, 60.0) == (None, None)
    _, cap = gain_check.evaluate(
        replace(before, throughput=48.0), None, learned, second, 6, 50.0, 0.4, 60.0
    )
    assert cap is not None


def test_a_check_starts_when_more_replicas_serve_and_ends_when_the_order_is_revoked() -> None:
    """One second alone is never evaluated, however old the order is."""
    before = GainCheck(since=0.0, ready=2, throughput=50.0, latency=2.0)
    learned = CapacityEstimate(service_time=0.1, completions=500.0, latency=1000.0)
    second = Signal(ready=3, completions=50, latency_sum=100.0)
    serving, cap = gain_check.evaluate(before, None, learned, second, 6, 50.0, 0.4, 90.0)
    assert serving is not None
    assert (serving.served, cap) == (90.0, None)
    assert gain_check.evaluate(serving, None, learned, second, 6, 50.0, 0.4, 97.0) == (
        serving,
        None,
    )
    _, cap = gain_check.evaluate(serving, None, learned, second, 6, 50.0, 0.4, 98.0)
    assert cap is not None
    alone, _ = gain_check.evaluate(serving, None, learned, Signal(ready=2), 6, 50.0, 0.4, 97.0)
    assert alone is not None
    assert alone.served is None, "the new replica is gone again"
    for number in (2, 1):
        assert gain_check.evaluate(serving, None, learned, second, number, 50.0, 0.4, 98.0) == (
            None,
            None,
        )


def test_a_check_compares_with_what_the_old_replicas_did_last() -> None:
    """At the time of the order their figures are from before the load, or the service, changed."""
    before = GainCheck(since=0.0, ready=2, throughput=50.0, latency=0.1)
    learned = CapacityEstimate(service_time=0.1, completions=80.0, latency=160.0)
    waiting, _ = gain_check.evaluate(before, None, learned, Signal(ready=2), 6, 50.0, 0.4, 3.0)
    assert waiting is not None
    assert (waiting.throughput, waiting.latency) == (pytest.approx(8.0), pytest.approx(2.0))
