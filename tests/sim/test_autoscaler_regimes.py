"""The benchmark of many regimes: its simulator, its rules, and the rows that are quick."""

import random
from dataclasses import replace

import pytest

from autoscaler import ScalingSettings, make, simulate
from autoscaler.baselines.oracle import Oracle
from bench import regimes
from bench.regimes import Regime, Score

STEADY = Regime("steady", "constant", 300.0)


def play(regime: Regime, policy: str = "oracle", seconds: int = 600) -> Score:
    (scores,) = regimes.run_rows([regime], (policy,), (1,), cut=seconds)
    return scores[policy]


@pytest.mark.parametrize("service", ["slots", "shared"])
def test_a_shared_processor_has_the_latency_of_queueing_theory(service: str) -> None:
    """With one worker at 70 % both kinds are known: M/G/1 by Pollaczek and Khinchine, and M/G/1-PS,
    whose mean is service / (1 - rho) whatever the distribution."""
    model = simulate.ServiceModel(
        workers=1, queue=10_000, max_replicas=1, unscored=0, objective=10.0,
        sharing=service == "shared",
    )  # fmt: skip
    dice, waited, done = random.Random(1), 0.0, 0
    played = simulate.SimulatedService(model, dice)
    played.fleet.begin(1)
    for second in range(6000):
        times = sorted(second + dice.random() for _ in range(simulate.poisson(7.0, dice)))
        signal, _ = played.second(second, times)
        waited, done = waited + signal.latency_sum, done + signal.completions
    wanted = 0.1 / 0.3 if model.sharing else 0.1 + 0.7 * 0.1 * 1.25 / (2 * 0.3)
    assert waited / done == pytest.approx(wanted, rel=0.08)


@pytest.mark.parametrize("sharing", [False, True])
def test_every_request_of_a_changing_service_is_accounted_for(sharing: bool) -> None:
    model = simulate.ServiceModel(
        queue=2, max_replicas=2, sharing=sharing, service_factors=(1.0, 2.0)
    )
    dice = random.Random(1)
    played = simulate.SimulatedService(model, dice)
    played.fleet.begin(2)
    came = refused = done = 0
    for second in range(60):
        times = sorted(second + dice.random() for _ in range(simulate.poisson(80.0, dice)))
        signal, _ = played.second(second, times)
        came, refused = came + signal.arrivals, refused + signal.shed
        done += signal.completions
    played.fleet.scale(0, 60.0)
    for second in range(60, 70):
        done += played.second(second, [])[0].completions
    assert refused > 0
    assert came == refused + done


def test_a_drifting_service_needs_more_replicas_at_its_slowest() -> None:
    oracle = Oracle([40.0] * 100, 0.1, 4, ahead=5, factors=(1.0,) * 50 + (3.0,) * 50)
    early = oracle.step(oracle.initial(0.0), None, 10.0)[1].desired
    late = oracle.step(oracle.initial(0.0), None, 60.0)[1].desired
    assert late > 2 * early


@pytest.mark.parametrize("seed", [1, 3])
def test_a_slow_rise_is_met_although_no_start_up_was_seen(seed: int) -> None:
    """The first replicas are ordered early enough, although they take 80 s."""
    row = Regime("slow", "smooth", 300.0, startup=(80.0, 80.0))
    (scores,) = regimes.run_rows([row], ("ours",), (seed,), cut=700)
    assert scores["ours"].missed < 0.2


def test_a_slow_fall_is_followed_although_replicas_start_slowly() -> None:
    row = Regime("slow", "smooth", 300.0, startup=(80.0, 80.0))
    (scores,) = regimes.run_rows([row], ("ours", "kpa"), (1,), cut=1800)
    assert scores["ours"].hours < 1.02 * scores["kpa"].hours


@pytest.mark.parametrize(
    "change",
    [
        {"warm_up": (60.0, 4.0), "load": "bursty"},
        {"revision": 3.0},
        {"dependency": (0.05, 2.0)},
        {"startup": (100.0, 100.0), "load": "square"},
        {"start_slots": 1, "load": "square"},
    ],
)
def test_each_kind_of_trouble_costs_requests(change: dict[str, object]) -> None:
    plain = replace(STEADY, load=str(change.get("load", "constant")))
    assert play(replace(plain, **change), "kpa").missed > play(plain, "kpa").missed  # type: ignore[arg-type]


def test_gaps_are_seconds_without_a_signal() -> None:
    seen: list[bool] = []

    class Watched:
        policy = make(ScalingSettings(max=20, latency=0.4))
        initial = policy.initial

        def step(self, state, signal, now):  # type: ignore[no-untyped-def]
            seen.append(signal is None)
            return self.policy.step(state, signal, now)

    model = simulate.ServiceModel(gaps=0.2)
    simulate.run([50.0] * 500, Watched(), model, random.Random(1))
    assert 70 <= sum(seen) <= 130


def test_a_row_shows_a_fault_if_a_published_policy_dominates_or_the_objective_is_missed() -> None:
    row = Regime("row", share=99.6)
    good, cheap = Score(0.1, 10.0, 5.0), Score(0.1, 9.0, 5.0)
    bad, dear = Score(0.9, 10.0, 5.0), Score(0.05, 20.0, 5.0)

    def found(ours: Score, kpa: Score, hpa: Score, oracle: Score = good) -> list[str]:
        scores = {"ours": ours, "kpa": kpa, "hpa-rps": hpa, "oracle": oracle}
        return regimes.faults(row, scores)

    assert found(good, good, dear) == []
    assert found(good, cheap, dear) == ["kpa better"]
    assert found(good, dear, Score(0.07, 10.1, 5.0)) == ["hpa-rps better"]
    assert found(bad, dear, dear) == ["objective missed"]
    assert found(bad, Score(0.7, 11.0, 5.0), dear) == ["objective missed"]
    assert found(bad, Score(0.7, 11.0, 5.0), bad) == []
    assert found(bad, dear, dear, Score(0.3, 9.0, 5.0)) == []


def test_varied_rows_are_of_the_same_kinds_and_reproducible() -> None:
    rows = regimes.vary(regimes.REGIMES, 5)
    assert rows == regimes.vary(regimes.REGIMES, 5)
    assert rows != regimes.vary(regimes.REGIMES, 6)
    for row, other in zip(regimes.REGIMES, rows, strict=True):
        assert other.load == row.load
        assert other.sharing == row.sharing
        assert (other.warm_up[0] > 0.0) == (row.warm_up[0] > 0.0)
        assert other.peak != row.peak


def test_the_quick_rows_compare_all_policies() -> None:
    rows = [row for row in regimes.REGIMES if row.quick]
    scores = regimes.run_rows(rows, seeds=(1,), cut=regimes.QUICK_SECONDS)
    by_name = {row.name: each for row, each in zip(rows, scores, strict=True)}
    for name, each in by_name.items():
        assert set(each) == set(regimes.POLICIES), name
        assert all(score.hours > 0.0 for score in each.values())
    drift = by_name["service time drifts 60 to 180 ms"]
    assert drift["hpa-rps"].missed > 10.0, "a fixed rate per replica does not know of the drift"
