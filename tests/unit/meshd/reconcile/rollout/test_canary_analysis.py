"""Canary analyses of simulated traffic: equal, failing, slow and overloaded revisions."""

import random
import re
from collections import Counter
from dataclasses import dataclass
from math import comb

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshd.model.canary import (
    AnalysisResult,
    CanaryAnalysis,
    CanaryDecision,
    Comparison,
    Dispersion,
    binomial,
    hypergeometric,
)
from meshd.model.canary import RevisionSample as Sample
from meshd.reconcile.rollout.canary_analysis import (
    TRAFFIC_STEPS,
    add_second,
    analyze_stage,
    begin_analysis,
    is_suspicious,
    is_too_noisy,
)
from meshd.spec.model import CanaryAnalysisSettings
from proxy.wire import buckets

GATE = CanaryAnalysisSettings()
START = 1000.0
WAIT, PASS, FAIL = CanaryDecision.WAIT, CanaryDecision.PASS, CanaryDecision.FAIL


def second(
    numbers: random.Random,
    requests: int,
    failing: float = 0.0,
    latency: float = 0.02,
    held_up: float = 0.0,
) -> Sample:
    """What a revision served in one second. Latencies are exponential above a minimum, and the
    share `held_up` of the requests takes ten times as long."""
    seen: Counter[int] = Counter()
    for _ in range(requests):
        seen[buckets.index(latency * (0.5 + numbers.expovariate(2.0)))] += 1
    for _ in range(sum(held_up > 0 and numbers.random() < held_up for _ in range(requests))):
        seen[numbers.choice(sorted(+seen))] -= 1
        seen[buckets.index(10 * latency)] += 1
    failed = sum(numbers.random() < failing for _ in range(requests))
    return Sample(requests=requests, failed=failed, latency=seen)


def analyze(
    numbers: random.Random,
    rate: int,
    new: dict[str, float],
    old: dict[str, float] | None = None,
    settings: CanaryAnalysisSettings = GATE,
    natural: float = 1 / 3,
    random_routing: bool = True,
    usual: float = 0.02,
) -> tuple[float, AnalysisResult, CanaryAnalysis]:
    """Analyze second by second until there is a decision: seconds, result, evidence."""
    baseline = second(numbers, rate * 10, latency=usual).latency
    analysis = begin_analysis(0, START, baseline, random_routing=random_routing)
    for passed in range(200):
        step = analysis.traffic_step
        max_share = TRAFFIC_STEPS[step] if step < len(TRAFFIC_STEPS) else 1.0
        share = min(max_share, natural)
        mine = sum(numbers.random() < share for _ in range(rate))
        ours = second(numbers, mine, **new)
        warm = passed >= settings.warm
        ours = ours if warm else Sample(ours.requests, ours.failed)
        theirs = second(numbers, rate - mine, **(old or {}))
        analysis = add_second(analysis, settings, START + passed, ours, theirs)
        now = START + passed + 1
        result = analyze_stage(analysis, settings, rate, natural, 5.0, now)
        if result.decision != WAIT:
            return now - START, result, analysis
    raise AssertionError("never decided")


def test_hypergeometric_is_drawing_without_replacement() -> None:
    low, chances = hypergeometric(3, 7, 4)
    exact = [comb(3, k) * comb(7, 4 - k) / comb(10, 4) for k in range(4)]
    assert low == 0
    assert chances == pytest.approx(exact)
    assert hypergeometric(3, 7, 9)[0] == 2
    assert Comparison().add(3, 2, 7, 2).p == pytest.approx(exact[2] + exact[3])


def test_binomial_is_drawing_with_replacement() -> None:
    exact = sum(comb(9, k) * 0.05**k * 0.95 ** (9 - k) for k in range(2, 10))
    assert binomial(2, 9, 0.05) == pytest.approx(exact)
    assert binomial(0, 9, 0.05) == pytest.approx(1.0)


def test_with_odds_the_distribution_is_noncentral() -> None:
    ways = [comb(3, k) * comb(7, 4 - k) * 5.0**k for k in range(4)]
    exact = [way / sum(ways) for way in ways]
    assert hypergeometric(3, 7, 4, 5.0)[1] == pytest.approx(exact)
    one = Comparison().add(3, 2, 7, 2, 5.0)
    assert one.p == pytest.approx(exact[2] + exact[3])
    assert one.expected == pytest.approx(sum(k * chance for k, chance in enumerate(exact)))
    many = Comparison()
    for bad in (
        10,
        11,
    ) * 50:  # normal approximation: of 14 bad ones in 40, 10.5 are expected in the new revision
        many = many.add(20, bad, 20, 14 - bad, 5.0)
    assert not many.chances
    assert many.p == pytest.approx(0.5, abs=0.1)


def test_strata_of_one_revision_change_nothing_and_others_add_up() -> None:
    one = Comparison().add(10, 1, 90, 0)
    assert one.add(5, 5, 0, 0) == one
    assert one.p == pytest.approx(0.1)
    assert one.add(10, 1, 90, 0).p == pytest.approx(0.01)
    assert one.add(10, 0, 90, 0).p == pytest.approx(0.1)


def test_large_counts_use_the_normal_approximation() -> None:
    many = Comparison()
    for _ in range(100):
        many = many.add(20, 10, 20, 10)
    assert not many.chances
    assert many.p == pytest.approx(0.5, abs=0.02)
    assert many.add(20, 20, 20, 0).add(20, 20, 20, 0).add(20, 20, 20, 0).p < 0.05


def test_equal_revisions_hardly_ever_fail() -> None:
    numbers = random.Random(7)
    like = {"failing": 0.01}
    decisions = Counter(analyze(numbers, 60, like, like)[1].decision for _ in range(300))
    print(f"alike: {decisions}")
    assert decisions[FAIL] <= 3


def test_a_good_revision_passes_within_15_seconds() -> None:
    took, result, analysis = analyze(random.Random(3), 200, {})
    print(f"passed after {took:.0f} s: {result.reason}")
    assert result.decision is PASS
    assert took <= 15
    assert analysis.failures.new >= GATE.requests


@pytest.mark.parametrize("rate", [60, 150, 300])
def test_five_percent_of_errors_are_found_after_a_few(rate: int) -> None:
    numbers, failed = random.Random(rate), []
    for _ in range(30):
        took, result, analysis = analyze(numbers, rate, {"failing": 0.05})
        if result.decision is FAIL:
            failed.append(analysis.failures.new_bad)
            assert took <= GATE.wait
            assert f"{analysis.failures.new_bad} of {analysis.failures.new}" in result.reason
    print(f"{rate} requests/s: {len(failed)} of 30 found, by {sorted(failed)} failed requests")
    assert len(failed) >= 28
    assert sorted(failed)[15] <= 5


@pytest.mark.parametrize("rate", [60, 150, 300])
def test_a_three_times_slower_revision_is_found_after_a_few_requests(rate: int) -> None:
    numbers = random.Random(rate)
    seen = []
    for _ in range(20):
        _, result, analysis = analyze(numbers, rate, {"latency": 0.06})
        assert result.decision is FAIL
        assert "took over" in result.reason
        seen.append(analysis.failures.new)
    print(f"{rate} requests/s: found by {sorted(seen)} requests")
    assert sorted(seen)[10] <= 60


def test_a_ten_percent_slower_revision_passes() -> None:
    decisions = {analyze(random.Random(n), 150, {"latency": 0.022})[1].decision for n in range(20)}
    assert decisions == {PASS}


@pytest.mark.parametrize(("latency", "expected"), [(0.003, PASS), (0.02, FAIL)])
def test_milliseconds_are_where_a_replica_runs(latency: float, expected: CanaryDecision) -> None:
    """A revision whose first replicas are on other nodes than those before is not worse."""
    for seed in range(20):
        new, old = {"latency": latency}, {"latency": 0.001}
        _, result, _ = analyze(random.Random(seed), 200, new, old, usual=0.001)
        assert result.decision == expected, result.reason


@pytest.mark.parametrize(("held_up", "found"), [(0.03, range(4)), (0.3, range(100, 101))])
def test_a_slower_revision_has_a_higher_p95_itself(held_up: float, found: range) -> None:
    """A busy machine that holds up a replica now and then does not make its revision slower."""
    usual = {"held_up": 0.002}
    decisions = Counter(
        analyze(random.Random(n), 150, {"held_up": held_up}, usual)[1].decision for n in range(100)
    )
    print(f"{held_up:.0%} held up: {decisions}")
    assert decisions[FAIL] in found


@pytest.mark.parametrize(
    ("failing", "held_up", "random_routing", "found"),
    [
        (0.04, 0.02, True, range(90, 101)),
        (0.04, 0.02, False, range(2)),
        (0.02, 0.2, True, range(90, 101)),
        (0.02, 0.2, False, range(2)),
        (0.5, 0.02, False, range(100, 101)),
        (0.02, 0.9, False, range(100, 101)),
    ],
)
def test_matched_requests_may_differ_from_the_rest(
    failing: float, held_up: float, random_routing: bool, found: range
) -> None:
    """At random, twice as many failures are the revision's fault. Matched requests may fail more
    often by themselves."""
    usual = {"failing": 0.01, "held_up": 0.05}
    mine = {"failing": failing, "held_up": held_up}
    decisions = Counter(
        analyze(random.Random(n), 400, mine, usual, random_routing=random_routing)[1].decision
        for n in range(100)
    )
    print(f"{failing:.0%} failed, {held_up:.0%} held up, random {random_routing}: {decisions}")
    assert decisions[FAIL] in found


def test_an_overload_of_both_revisions_does_not_fail_the_new_one() -> None:
    over = {"failing": 0.2, "latency": 0.2}
    decisions = [analyze(random.Random(n), 150, over, over)[1].decision for n in range(40)]
    assert decisions.count(FAIL) <= 1


def test_bad_requests_in_a_single_second_are_not_enough() -> None:
    analysis = begin_analysis(0, START, second(random.Random(1), 1000).latency)
    slow = Counter({buckets.index(1.0): 30})
    bad = Sample(requests=30, failed=10, latency=slow)
    fine = second(random.Random(2), 200)
    analysis = add_second(analysis, GATE, START, bad, fine)
    assert analyze_stage(analysis, GATE, 230, 0.3, 5, START + 1).decision is WAIT
    analysis = add_second(analysis, GATE, START + 1, bad, fine)
    assert analyze_stage(analysis, GATE, 230, 0.3, 5, START + 2).decision is FAIL


def test_an_ejected_replica_is_evidence() -> None:
    analysis = begin_analysis(0, START, {})
    for passed, failed in enumerate((2, 2, 1)):
        out = Sample(requests=10, failed=failed, ejected=passed == 2)
        analysis = add_second(analysis, GATE, START + passed, out, Sample(requests=20))
    text = analyze_stage(analysis, GATE, 30, 0.3, 5, START + 3).reason
    assert text.startswith("the proxy ejected one of its replicas; 16.67% of its requests")


@pytest.mark.parametrize(
    ("rate", "after", "decision"),
    [
        (0.0, 0.0, PASS),
        (None, 20.0, WAIT),
        (0.2, 1.0, WAIT),
        (0.2, 5.0, PASS),
        (20.0, 5.0, WAIT),
    ],
)
def test_with_too_little_traffic_a_rollout_does_not_wait(
    rate: float | None, after: float, decision: CanaryDecision
) -> None:
    analysis = begin_analysis(0, START, {})
    result = analyze_stage(analysis, GATE, rate, 0.3, 5.0, START + after)
    assert result.decision == decision
    assert "too little traffic" in result.reason or decision is WAIT


def test_a_suspicion_delays_the_decision_until_the_limit() -> None:
    analysis = begin_analysis(0, START, {})
    analysis = add_second(analysis, GATE, START, Sample(5, 1), Sample(100, 0))
    assert is_suspicious(analysis)
    assert analyze_stage(analysis, GATE, 0.0, 0.3, 5.0, START + 20).decision is WAIT
    late = analyze_stage(analysis, GATE, 0.0, 0.3, 5.0, START + GATE.wait)
    assert (late.decision, late.reason) == (
        PASS,
        "not proven worse in 5 requests, 1 failed, within 30 s",
    )


def test_one_request_is_counted_in_the_singular() -> None:
    analysis = add_second(begin_analysis(0, START, {}), GATE, START, Sample(1, 1), Sample(100, 0))
    late = analyze_stage(analysis, GATE, 0.0, 0.3, 5.0, START + GATE.wait)
    assert late.reason == "not proven worse in 1 request, 1 failed, within 30 s"


def crowded_second(
    numbers: random.Random, requests: int, latency: float, held: float, uncached: float
) -> Sample:
    """One second in which the share `held` of the requests waits up to 0.2 s for the processor, and
    the share `uncached` takes ten times as long by itself."""
    seen: Counter[int] = Counter()
    for _ in range(requests):
        took = latency * numbers.uniform(0.9, 1.1) * (10 if numbers.random() < uncached else 1)
        took += 0.2 * numbers.random() if numbers.random() < held else 0.0
        seen[buckets.index(took)] += 1
    return Sample(requests=requests, latency=seen)


@dataclass(frozen=True)
class Crowd:
    """A machine on which the share `held` of the requests of every third second is held up, until
    second `quiet_from`. `latency` is that of the new revision, 15 ms that of the old one.
    `uncached` are the shares of both, the old one first."""

    name: str
    latency: float
    held: float
    decision: CanaryDecision
    seconds: tuple[int, int]
    reason: str
    uncached: tuple[float, float] = (0.0, 0.0)
    quiet_from: int = 1000


CROWDS = [
    Crowd("equal", 0.015, 0.0, PASS, (10, 20), "no worse in"),
    Crowd("equal, noise", 0.015, 0.8, PASS, (10, 30), "no worse in"),
    Crowd("slower", 0.045, 0.0, FAIL, (2, 15), "by chance alone"),
    Crowd("slower, noise", 0.045, 0.8, FAIL, (60, 60), "with this noise"),
    Crowd("slower, noise that ends", 0.045, 0.8, FAIL, (20, 60), "took over", quiet_from=15),
    Crowd("slightly slower, noise", 0.018, 0.8, PASS, (10, 30), "no worse in"),
    Crowd("nothing cached yet", 0.015, 0.0, PASS, (10, 30), "worse in", uncached=(0.1, 1.0)),
]


@pytest.mark.parametrize("crowd", CROWDS, ids=[crowd.name for crowd in CROWDS])
def test_noise_does_not_let_a_slower_revision_pass(crowd: Crowd) -> None:
    """3 times as slow is found in noise too, though later. Other rollouts take no longer."""
    outcomes = Counter(analyze_in_crowd(random.Random(seed), crowd) for seed in range(12))
    print(f"{crowd.name}: {outcomes}")
    right = 0
    for (decision, took, reason), count in outcomes.items():
        first, last = crowd.seconds
        if decision is crowd.decision and first <= took <= last and crowd.reason in reason:
            right += count
    assert right >= 11


def analyze_in_crowd(numbers: random.Random, crowd: Crowd) -> tuple[CanaryDecision, int, str]:
    """Return the decision, after how many seconds it came, and its reason."""
    latency: Counter[int] = Counter()
    for at in range(9):
        held = 0.0 if at % 3 else crowd.held
        latency.update(crowded_second(numbers, 100, 0.015, held, crowd.uncached[0]).latency)
    analysis = begin_analysis(0, START, latency)
    for passed in range(200):
        step = analysis.traffic_step
        share = min(1 / 3, TRAFFIC_STEPS[step] if step < len(TRAFFIC_STEPS) else 1.0)
        mine = sum(numbers.random() < share for _ in range(100))
        held = crowd.held if passed % 3 == 0 and passed < crowd.quiet_from else 0.0
        ours = crowded_second(numbers, mine, crowd.latency, held, crowd.uncached[1])
        theirs = crowded_second(numbers, 100 - mine, 0.015, held, crowd.uncached[0])
        analysis = add_second(analysis, GATE, START + passed, ours, theirs)
        now = START + passed + 1
        result = analyze_stage(analysis, GATE, 100, 1 / 3, 5.0, now)
        if result.decision is not WAIT:
            return result.decision, passed + 1, result.reason
        if passed + 1 >= GATE.wait:
            assert result.reason.startswith("too noisy to analyze: ")
            assert is_too_noisy(analysis)
    raise AssertionError("never decided")


NOISE, CALM = Dispersion(30, 3000, 750, 372.0), Dispersion(30, 3000, 750, 193.0)


@pytest.mark.parametrize(
    ("noise", "bad", "waited", "decision", "reason"),
    [
        (CALM, 240, 20, PASS, "no worse in 250 requests"),
        (NOISE, 70, 20, PASS, "no worse in 250 requests"),
        (NOISE, 150, 20, WAIT, "too noisy to analyze: 60.0% of its requests took over 15.3 ms"),
        (NOISE, 240, 59, WAIT, "(240 of 250), 25.0% of the old revision's (125 of 500) in the same "
         "seconds, whose share varies 33.9 times as much between seconds as by chance"),
        (NOISE, 150, 60, PASS, "not proven worse within 60 s; too noisy to analyze: 60.0%"),
        (NOISE, 240, 60, FAIL, "96.0% of its requests took over 15.3 ms (240 of 250), 25.0% of"),
    ],
)  # fmt: skip
def test_a_noisy_comparison_waits_longer_and_then_decides(
    noise: Dispersion, bad: int, waited: float, decision: CanaryDecision, reason: str
) -> None:
    quick = Comparison(250, bad, 500, 125, 20, expected=62.5, variance=60.0, chances=())
    analysis = begin_analysis(0, START, {buckets.index(0.01): 100})
    analysis = msgspec.structs.replace(
        analysis, failures=Comparison(250, 0, 500, 0), quick=quick, noise=noise
    )
    result = analyze_stage(analysis, GATE, 100.0, 0.3, 5.0, START + waited)
    assert result.decision is decision, result
    assert reason in result.reason
    check_reason(result, analysis)


def test_requests_that_are_slow_together_are_dispersed() -> None:
    numbers = random.Random(3)
    alone, together = Dispersion(), Dispersion()
    for at in range(30):
        alone = alone.add(100, sum(numbers.random() < 0.25 for _ in range(100)))
        together = together.add(100, 0 if at % 4 else 100)
        if at < 3:
            assert together.index == 1.0
    assert alone.index == pytest.approx(1.0, abs=0.5)
    assert not alone.exceeds_chance(3.0)
    assert together.index == pytest.approx(100 * 30 / 29)
    assert together.exceeds_chance(3.0)
    assert together.add(0, 0) == together
    assert Dispersion(30, 100, 0, 0.0).index == 1.0


def test_noise_makes_a_difference_less_certain() -> None:
    many = Comparison()
    for _ in range(40):
        many = many.add(20, 12, 20, 8)
    assert many.p_with_noise(1.0) == pytest.approx(many.p)
    assert many.p_with_noise(0.5) == many.p_with_noise(1.0)
    assert many.p < many.p_with_noise(4.0) < many.p_with_noise(16.0) < 0.5
    assert Comparison().p_with_noise(2.0) == 1.0


def test_after_a_switch_the_new_revision_is_compared_with_the_time_before() -> None:
    numbers = random.Random(5)
    before = second(numbers, 2000)
    analysis = begin_analysis(1, START, before.latency, before)
    for passed in range(4):
        analysis = add_second(analysis, GATE, START + passed, second(numbers, 100, 0.05), Sample())
    result = analyze_stage(analysis, GATE, 100, 1.0, 5.0, START + 4)
    assert result.decision is FAIL
    assert "before the switch" in result.reason


def test_the_share_grows_unless_there_is_a_suspicion() -> None:
    analysis = begin_analysis(0, START, {})
    steps = []
    for passed in range(14):
        analysis = add_second(analysis, GATE, START + passed, Sample(1), Sample(20))
        steps.append(analysis.traffic_step)
    assert steps == [0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4]
    analysis = begin_analysis(0, START, {})
    for passed in range(14):
        analysis = add_second(
            analysis, GATE, START + passed, Sample(1, int(passed == 0)), Sample(20)
        )
    assert analysis.traffic_step == 0


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 10_000),
    st.integers(1, 60),
    st.sampled_from([0.0, 0.02, 0.2, 0.9]),
    st.sampled_from([0.02, 0.05, 0.4]),
    st.sampled_from([0.0, 0.2]),
    st.booleans(),
)
def test_a_reason_never_contradicts_its_numbers(
    seed: int, rate: int, failing: float, latency: float, old_failing: float, at_random: bool
) -> None:
    """At every second of an analysis, whatever it decides."""
    numbers = random.Random(seed)
    analysis = begin_analysis(0, START, second(numbers, 200).latency, random_routing=at_random)
    for passed in range(40):
        ours = second(numbers, rate, failing, latency)
        theirs = second(numbers, rate, old_failing)
        analysis = add_second(analysis, GATE, START + passed, ours, theirs)
        now = START + passed + 1
        result = analyze_stage(analysis, GATE, 2.0 * rate, 0.5, 5.0, now)
        check_reason(result, analysis)
        if result.decision != WAIT:
            return


def check_reason(result: AnalysisResult, analysis: CanaryAnalysis) -> None:
    reason = result.reason
    for bad, count in re.findall(r"\((\d+) of (\d+)\)", reason):
        assert int(bad) <= int(count), reason
    if progress := re.fullmatch(r"analyzed (\d+) of (\d+) requests", reason):
        assert result.decision == WAIT
        assert int(progress[1]) < int(progress[2]), reason
    if counts := re.search(r"worse in (\d+) requests, (\d+) failed", reason):
        assert (int(counts[1]), int(counts[2])) == (
            analysis.failures.new,
            analysis.failures.new_bad,
        )
        assert (result.decision == WAIT) == ("looks worse" in reason), reason
    if result.decision == FAIL:
        shares = re.findall(r"([\d.]+)% of (?:its|the)", reason)
        assert float(shares[0]) >= float(shares[1]), reason
        assert float(reason.rpartition("p = ")[2]) <= 1.0 - GATE.confidence, reason
