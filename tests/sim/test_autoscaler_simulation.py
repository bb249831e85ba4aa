"""The policy in the simulator: learning, stability, steps, bottlenecks, and the published
policies."""

import os
import random
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from math import ceil, exp, log, pi, sin
from pathlib import Path

import pytest

from autoscaler import Decision, ScalingSettings, Signal, State, make, simulate, trace
from autoscaler.baselines.kpa import Kpa
from autoscaler.baselines.oracle import Oracle
from autoscaler.policy import Policy
from bench.autoscaling import rates
from meshd.cli.simulate import runner

MODEL = simulate.ServiceModel()
GOAL = ScalingSettings(min=1, max=200, latency=0.4, share=99.6)


class Watched:
    """A policy that keeps its observations and decisions."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.seen: list[tuple[Signal, Decision]] = []

    def initial(self, now: float) -> State:
        return self.policy.initial(now)

    def step(self, state: State, signal: Signal | None, now: float) -> tuple[State, Decision]:
        state, decision = self.policy.step(state, signal, now)
        assert signal is not None
        self.seen.append((signal, decision))
        return state, decision


def watch(
    rates: Sequence[float],
    settings: ScalingSettings = GOAL,
    model: simulate.ServiceModel = MODEL,
    seed: int = 1,
) -> tuple[simulate.SimulationResult, list[tuple[Signal, Decision]]]:
    watched = Watched(make(settings))
    return simulate.run(rates, watched, model, random.Random(seed)), watched.seen


def lunch(
    seconds: int = 2400, low: float = 60.0, high: float = 400.0, seed: int = 7
) -> list[float]:
    """Return a synthetic trace of a rush with bursts, in bins of ten seconds."""
    dice = random.Random(7)
    counts = []
    for at in range(seconds // 10):
        base = low + (high - low) * max(0.0, sin(pi * at * 10 / seconds)) ** 2
        counts.append(10.0 * base * dice.uniform(0.8, 1.25) * (1.6 if dice.random() < 0.03 else 1))
    return trace.rates_of(counts, 10, None)


def test_one_replica_behaves_as_queueing_theory_says() -> None:
    model = replace(MODEL, workers=1, queue=10_000, max_replicas=1, unscored=0, objective=10.0)
    result, seen = watch([7.0] * 6000, ScalingSettings(max=1, latency=10.0), model)
    waited = sum(signal.latency_sum for signal, _ in seen) / result.requests
    # Pollaczek-Khinchine: rho 0.7, service 0.1 s, squared variation 0.25.
    assert waited == pytest.approx(0.1 + 0.7 * 0.1 * 1.25 / (2 * 0.3), rel=0.08)
    in_flight = sum(signal.in_flight for signal, _ in seen) / len(seen)
    assert in_flight == pytest.approx(7.0 * waited, rel=0.02)


def test_every_request_is_accounted_for() -> None:
    model = replace(MODEL, queue=0, max_replicas=2, unscored=0)
    result, seen = watch([100.0] * 120, ScalingSettings(max=2, latency=0.4), model)
    came = sum(signal.arrivals for signal, _ in seen)
    shed = sum(signal.shed for signal, _ in seen)
    done = sum(signal.completions for signal, _ in seen)
    assert came == result.requests
    assert shed > 0
    assert 0 <= came - shed - done <= 20
    for signal, _ in seen:
        assert sum(count for _, count in signal.latency) == signal.completions


def test_same_seed_same_run() -> None:
    rates = lunch(600)
    once, again = watch(rates)[0], watch(rates)[0]
    assert (once.missed, once.replica_hours, once.actions) == (
        again.missed,
        again.replica_hours,
        again.actions,
    )
    assert watch(rates, seed=2)[0].missed != once.missed


@pytest.mark.parametrize(("workers", "service"), [(2, 0.05), (4, 0.1), (8, 0.2)])
def test_the_capacity_of_a_replica_is_learned(workers: int, service: float) -> None:
    model = replace(MODEL, workers=workers, service_mean=service, startup=(1.0, 3.0))
    each = workers / service
    rates = [each * (0.5 + 6.0 * second / 900) for second in range(900)]
    _, seen = watch(rates, ScalingSettings(max=40, latency=4 * service, share=99.0), model)
    numbers = seen[-1][1].numbers
    assert numbers["service_time"] == pytest.approx(service, rel=0.15)
    assert numbers["workers_bound"] == pytest.approx(workers, rel=0.2)
    assert numbers["startup"] == pytest.approx(2.5, abs=0.8)


@pytest.mark.parametrize("rate", [12.0, 90.0, 180.0])
def test_an_hour_of_noisy_constant_load_settles(rate: float) -> None:
    model = replace(MODEL, startup=(1.0, 3.0))
    _, seen = watch([rate] * (900 + 3600), GOAL, model)
    wanted = [decision.desired for _, decision in seen]
    changes = [second for second in range(901, len(wanted)) if wanted[second] != wanted[second - 1]]
    assert len(changes) <= 2, [(second, seen[second][1].reason) for second in changes]


def test_a_step_scales_up_at_once_and_down_without_flapping() -> None:
    model = replace(MODEL, service_mean=0.05, startup=(0.3, 2.0), objective=0.2, queue=500)
    rates = [20.0] * 120 + [200.0] * 180 + [20.0] * 300
    _, seen = watch(rates, ScalingSettings(max=10, latency=0.2), model)
    wanted = [decision.desired for _, decision in seen]
    assert max(wanted[:120]) <= 2
    assert max(wanted[120:122]) >= 3
    late = [second for second in range(120, 300) if seen[second][0].misses(0.2) > 0.05 * 200]
    assert max(late) <= 132, "the objective holds again as soon as start-up allows"
    down = wanted[300:]
    assert down == sorted(down, reverse=True), "no way up again after the rush"
    assert down[20] == wanted[299], "not removed at the first quiet second"
    assert down[-1] <= 2


def test_beats_knative_on_a_rush_at_less_cost() -> None:
    """Means of four seeds: the misses of one seed are those of one or two bursts."""
    rates, seeds = lunch(), (1, 2, 3, 4)
    all_ours = [watch(rates, seed=seed)[0] for seed in seeds]
    all_knative = [simulate.run(rates, Kpa(2.8), MODEL, random.Random(seed)) for seed in seeds]
    ours, knative = all_ours[0], all_knative[0]
    oracle = simulate.run(rates, Oracle(rates, 0.1, 4), MODEL, random.Random(1))
    assert sum(run.missed_pct for run in all_ours) <= sum(run.missed_pct for run in all_knative)
    assert ours.replica_hours <= knative.replica_hours
    assert ours.actions < knative.actions
    assert oracle.missed_pct < 0.2
    assert oracle.replica_hours < knative.replica_hours


def test_degrades_gracefully_with_slow_start_up() -> None:
    model = replace(MODEL, startup=(20.0, 40.0))
    rates = lunch()
    ours, _ = watch(rates, GOAL, model)
    knative = simulate.run(rates, Kpa(2.8), model, random.Random(1))
    assert ours.missed_pct <= knative.missed_pct + 0.2
    assert ours.replica_hours <= 1.05 * knative.replica_hours


def test_a_warm_pool_saves_requests_during_start_up() -> None:
    rates = ([20.0] * 170 + [300.0] * 30) * 8
    cold, _ = watch(rates)
    warm, _ = watch(rates, GOAL, replace(MODEL, warm=10))
    assert warm.missed_pct < 0.6 * cold.missed_pct
    assert warm.warm_hours > 0.0 == cold.warm_hours


def drive(
    settings: ScalingSettings, second: Callable[[int, int], Signal], seconds: int, ready: int = 2
) -> list[Decision]:
    """Step the policy against a service whose signals `second(second, replicas)` returns. Replicas
    are ready two seconds after the decision."""
    policy = make(settings)
    state, decisions = policy.initial(0.0), []
    coming = [ready] * 3
    for at in range(seconds):
        state, decision = policy.step(state, second(at, coming[0]), float(at + 1))
        decisions.append(decision)
        coming = [*coming[1:], decision.desired]
    return decisions


def slow_callee(at: int, ready: int, known: bool) -> Signal:
    """Return the signal of 40 requests/s of 50 ms; from second 120 on its callee takes 2 s
    longer."""
    outside = 0.02 if at < 120 else 2.0
    latency = 0.05 + outside
    return Signal(
        arrivals=40,
        completions=40,
        in_flight=40 * latency,
        latency=((latency * 1.1, 40),),
        latency_sum=40 * latency,
        downstream_sum=40 * outside if known else None,
        ready=ready,
    )


def test_a_slow_dependency_does_not_scale_its_caller() -> None:
    decisions = drive(
        ScalingSettings(max=20, latency=0.2),
        lambda at, ready: slow_callee(at, ready, known=True),
        600,
    )
    before = decisions[119].desired
    assert max(decision.desired for decision in decisions[120:]) <= before
    assert "strain" in {decision.cause for decision in decisions[120:]}


def test_a_service_without_data_keeps_its_number() -> None:
    """Also before the first second with data, when the policy does not know the number."""
    gaps = replace(MODEL, gaps=1.0)
    result = simulate.run([300.0] * 300, make(GOAL), gaps, random.Random(1))
    assert result.actions == 0
    assert result.missed_pct < 0.4


def test_replicas_without_gain_are_removed_again() -> None:
    """A database behind the service serves 50 requests/s, however many replicas use it."""

    def shared(at: int, ready: int) -> Signal:
        rate = 30 if at < 120 else 80
        waiting = 3.0 if rate < 50 else min(30.0 * (at - 119), 400.0)
        done = min(rate, 50)
        latency = waiting / done
        return Signal(
            arrivals=rate,
            completions=done,
            in_flight=waiting,
            latency=((latency * 1.1, done),),
            latency_sum=done * latency,
            shed=rate - done if waiting >= 400.0 else 0,
            ready=ready,
        )

    decisions = drive(ScalingSettings(max=20, latency=0.2), shared, 400)
    causes = [decision.cause for decision in decisions]
    assert "no-gain" in causes
    at = causes.index("no-gain")
    assert at < 200
    peak = max(decision.desired for decision in decisions[120:at])
    assert min(decision.desired for decision in decisions[at : at + 100]) < peak
    assert "bottleneck" in decisions[at].reason


@pytest.mark.parametrize(
    ("slow", "rise", "most"), [(0.5, 1, 1.5), (0.5, 600, 4.0), (2.0, 1, 2.0), (2.0, 600, 2.0)]
)
def test_a_slow_dependency_that_the_proxy_does_not_see_ends_the_growth(
    slow: float, rise: int, most: float
) -> None:
    """Each request waits `slow` seconds for it, however many replicas run. At first it takes 0.1 s,
    and the objective is 0.4 s."""
    dice = random.Random(1)

    def waits(at: int, ready: int) -> Signal:
        rate = max(0, round(dice.gauss(200.0, 14.0)))
        extra = slow * min(1.0, (at - 600) / rise) if 600 <= at < 3600 else 0.0
        counts: Counter[float] = Counter()
        for _ in range(rate):
            each = 0.1 * exp(dice.gauss(0.0, 0.3)) + extra * exp(dice.gauss(0.0, 0.15))
            counts[1.12 ** ceil(log(each) / log(1.12))] += 1
        mean = 0.1 + extra
        return Signal(
            arrivals=rate, completions=rate, in_flight=rate * mean,
            latency=tuple(sorted(counts.items())), latency_sum=rate * mean, ready=ready,
        )  # fmt: skip

    decisions = drive(ScalingSettings(max=200, latency=0.4), waits, 4200)
    before = decisions[599].desired
    numbers = [decision.desired for decision in decisions]
    print(f"{before} before, {max(numbers)} at most, {numbers[3599]} at the end")
    assert sum(numbers[600:3600]) / 3000 <= most * before
    assert numbers[3599] <= most * before
    reason = next(each.reason for each in decisions if each.cause == "no-gain")
    assert re.match(r"added \d+ replicas?, answers (stayed at|went from) [\d. sto]+ s: ", reason)
    assert "replicas are not the bottleneck" in reason
    assert numbers[3899] <= 1.5 * before, "the dependency is as fast as before"


def slowed(factor: float, rate: float, service: float) -> list[int]:
    """Return the desired replicas, second by second, of a service whose own time is multiplied
    after three minutes. A replica has four workers."""
    model = replace(MODEL, service_mean=service, startup=(2.0, 4.0))
    dice = random.Random(1)
    played = simulate.SimulatedService(model, dice)
    played.fleet.begin(2)
    policy = make(ScalingSettings(min=1, max=200, latency=0.4))
    state, wanted = policy.initial(0.0), [2]
    for second in range(400):
        if second == 180:
            played.costs[:] = [factor * cost for cost in played.costs]
        times = sorted(second + dice.random() for _ in range(simulate.poisson(rate, dice)))
        signal, _ = played.second(second, times)
        state, decision = policy.step(state, signal, second + 1.0)
        played.fleet.scale(decision.desired, second + 1.0)
        wanted.append(decision.desired)
    return wanted


@pytest.mark.parametrize(("rate", "service"), [(40.0, 0.05), (200.0, 0.02)])
def test_a_service_that_gets_twenty_times_slower_gets_enough_replicas(
    rate: float, service: float
) -> None:
    wanted, needed = slowed(20.0, rate, service), rate * 20.0 * service / 4
    assert max(wanted[:180]) <= 3
    assert max(wanted[180:200]) >= needed, "within a few start-ups"
    assert min(wanted[225:]) >= needed, "and they stay"
    assert max(wanted) <= 5 * needed


TRACES = os.environ.get("MESHD_TRACES", "")
needs_traces = pytest.mark.skipif(
    not TRACES, reason="MESHD_TRACES names no folder with real traces"
)


def run_traces(paths: Sequence[Path]) -> tuple[list[float], list[float]]:
    """Run KPA and ours with one setting on real traces, everything learned. Return the mean share
    of misses (percent) and the sum of the replica-hours of each."""
    jobs = [
        runner.SimulationJob(policy, rates(path), MODEL, GOAL, "p2c", 70.0, 1)
        for policy in ("kpa", "ours")
        for path in paths
    ]
    results = [outcome.result for outcome in runner.run_all(jobs, 2)]
    missed, hours = [], []
    for each in (results[: len(paths)], results[len(paths) :]):
        missed.append(sum(result.missed_pct for result in each) / len(each))
        hours.append(sum(result.replica_hours for result in each))
    print(
        f"KPA {missed[0]:.3f} % for {hours[0]:.1f} h, ours {missed[1]:.3f} % for {hours[1]:.1f} h"
    )
    return missed, hours


@pytest.mark.slow
@needs_traces
def test_real_hours_keep_the_objective_for_fewer_replica_hours_than_knative() -> None:
    """The short ones of the real traces: ten hours."""
    names = ("autothrottle_*.csv", "faro_*.csv")
    missed, hours = run_traces([path for name in names for path in sorted(Path(TRACES).glob(name))])
    assert missed[1] <= 0.2, "half of what the objective allows"
    assert hours[1] <= 0.9 * hours[0]


@pytest.mark.slow
@pytest.mark.acceptance
@pytest.mark.timeout(1800)
@needs_traces
def test_real_days_miss_less_than_under_knative_for_fewer_replica_hours() -> None:
    """All eight real traces. The published policy is first checked against its measured result with
    other seeds: 0.38 % and 567 replica-hours."""
    missed, hours = run_traces(sorted(Path(TRACES).glob("*.csv")))
    assert 0.2 < missed[0] < 0.5
    assert abs(hours[0] - 567.0) < 15.0
    assert missed[1] <= 0.23
    assert hours[1] <= 505.0
