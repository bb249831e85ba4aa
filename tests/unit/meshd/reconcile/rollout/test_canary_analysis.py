"""Is a revision worse? Simulated seconds of traffic, judged: alike, failing, slow, overloaded."""

import random
from collections import Counter
from math import comb

import pytest

from meshd.model.canary import AnalysisResult, CanaryAnalysis, Counts
from meshd.model.significance import Comparison, binomial, hypergeometric
from meshd.reconcile.rollout import canary_analysis
from meshd.spec.model import CanaryAnalysisSettings
from proxy.wire import buckets

GATE = CanaryAnalysisSettings()
START = 1000.0


def second(
    dice: random.Random,
    requests: int,
    failing: float = 0.0,
    latency: float = 0.02,
    held_up: float = 0.0,
) -> Counts:
    """What a revision did in a second: latencies are exponential above a floor, and a share of
    the requests is held up."""
    seen: Counter[int] = Counter()
    for _ in range(requests):
        seen[buckets.index(latency * (0.5 + dice.expovariate(2.0)))] += 1
    for _ in range(sum(held_up > 0 and dice.random() < held_up for _ in range(requests))):
        seen[dice.choice(sorted(+seen))] -= 1
        seen[buckets.index(10 * latency)] += 1
    failed = sum(dice.random() < failing for _ in range(requests))
    return Counts(requests=requests, failed=failed, latency=seen)


def tried(
    dice: random.Random,
    rate: int,
    new: dict[str, float],
    old: dict[str, float] | None = None,
    settings: CanaryAnalysisSettings = GATE,
    natural: float = 1 / 3,
    by_lot: bool = True,
) -> tuple[float, AnalysisResult, CanaryAnalysis]:
    """A trial second by second until it is decided: seconds, verdict, and what was seen."""
    usual = second(dice, rate * 10).latency
    trial = canary_analysis.began(0, START, usual, by_lot=by_lot)
    for passed in range(200):
        rung = canary_analysis.RUNGS[trial.rung] if trial.rung < len(canary_analysis.RUNGS) else 1.0
        share = min(rung, natural)
        mine = sum(dice.random() < share for _ in range(rate))
        ours = second(dice, mine, **new)
        warm = passed >= settings.warm
        ours = ours if warm else Counts(ours.requests, ours.failed)
        theirs = second(dice, rate - mine, **(old or {}))
        trial = canary_analysis.take(trial, settings, START + passed, ours, theirs)
        now = START + passed + 1
        verdict = canary_analysis.verdict(trial, settings, rate, natural, 5.0, now)
        if verdict.word != "wait":
            return now - START, verdict, trial
    raise AssertionError("never decided")


def test_the_distribution_is_that_of_drawing_without_putting_back() -> None:
    low, chances = hypergeometric(3, 7, 4)
    exact = [comb(3, k) * comb(7, 4 - k) / comb(10, 4) for k in range(4)]
    assert low == 0
    assert chances == pytest.approx(exact)
    assert hypergeometric(3, 7, 9)[0] == 2
    assert Comparison().add(3, 2, 7, 2).p == pytest.approx(exact[2] + exact[3])


def test_the_chance_of_so_many_is_that_of_drawing_again_and_again() -> None:
    exact = sum(comb(9, k) * 0.05**k * 0.95 ** (9 - k) for k in range(2, 10))
    assert binomial(2, 9, 0.05) == pytest.approx(exact)
    assert binomial(0, 9, 0.05) == pytest.approx(1.0)


def test_with_odds_of_its_own_it_is_the_noncentral_distribution() -> None:
    ways = [comb(3, k) * comb(7, 4 - k) * 5.0**k for k in range(4)]
    exact = [way / sum(ways) for way in ways]
    assert hypergeometric(3, 7, 4, 5.0)[1] == pytest.approx(exact)
    one = Comparison().add(3, 2, 7, 2, 5.0)
    assert one.p == pytest.approx(exact[2] + exact[3])
    assert one.expected == pytest.approx(sum(k * chance for k, chance in enumerate(exact)))
    many = Comparison()
    for bad in (10, 11) * 50:  # the normal one, where much was seen: 14 of 40 give 10.5 to it
        many = many.add(20, bad, 20, 14 - bad, 5.0)
    assert not many.chances
    assert many.p == pytest.approx(0.5, abs=0.1)


def test_strata_that_say_nothing_change_nothing_and_the_rest_adds_up() -> None:
    one = Comparison().add(10, 1, 90, 0)
    assert one.add(5, 5, 0, 0) == one
    assert one.p == pytest.approx(0.1)
    assert one.add(10, 1, 90, 0).p == pytest.approx(0.01)
    assert one.add(10, 0, 90, 0).p == pytest.approx(0.1)


def test_where_much_was_seen_the_normal_distribution_serves() -> None:
    many = Comparison()
    for _ in range(100):
        many = many.add(20, 10, 20, 10)
    assert not many.chances
    assert many.p == pytest.approx(0.5, abs=0.02)
    assert many.add(20, 20, 20, 0).add(20, 20, 20, 0).add(20, 20, 20, 0).p < 0.05


def test_of_revisions_that_are_alike_hardly_one_is_called_worse() -> None:
    dice = random.Random(7)
    like = {"failing": 0.01}
    words = Counter(tried(dice, 60, like, like)[1].word for _ in range(300))
    print(f"alike: {words}")
    assert words["worse"] <= 3


def test_a_good_one_is_let_on_within_a_quarter_of_a_minute_of_traffic() -> None:
    took, verdict, trial = tried(random.Random(3), 200, {})
    print(f"let on after {took:.0f} s: {verdict.text}")
    assert verdict.word == "fine"
    assert took <= 15
    assert trial.failures.new >= GATE.requests


@pytest.mark.parametrize("rate", [60, 150, 300])
def test_five_percent_of_errors_are_found_by_a_handful_of_them(rate: int) -> None:
    dice, failed = random.Random(rate), []
    for _ in range(30):
        took, verdict, trial = tried(dice, rate, {"failing": 0.05})
        if verdict.word == "worse":
            failed.append(trial.failures.new_bad)
            assert took <= GATE.wait
            assert f"{trial.failures.new_bad} of {trial.failures.new}" in verdict.text
    print(f"{rate} requests/s: {len(failed)} of 30 found, by {sorted(failed)} failed requests")
    assert len(failed) >= 28
    assert sorted(failed)[15] <= 5


@pytest.mark.parametrize("rate", [60, 150, 300])
def test_three_times_slower_is_found_by_a_few_requests(rate: int) -> None:
    dice = random.Random(rate)
    seen = []
    for _ in range(20):
        _, verdict, trial = tried(dice, rate, {"latency": 0.06})
        assert verdict.word == "worse"
        assert "took over" in verdict.text
        seen.append(trial.failures.new)
    print(f"{rate} requests/s: found by {sorted(seen)} requests")
    assert sorted(seen)[10] <= 60


def test_what_is_a_tenth_slower_is_let_on() -> None:
    words = {tried(random.Random(n), 150, {"latency": 0.022})[1].word for n in range(20)}
    assert words == {"fine"}


@pytest.mark.parametrize(("held_up", "found"), [(0.03, range(4)), (0.3, range(100, 101))])
def test_slower_is_what_is_so_by_its_own_p95(held_up: float, found: range) -> None:
    """A replica that a busy machine holds up now and then is not a slower revision."""
    usual = {"held_up": 0.002}
    words = Counter(
        tried(random.Random(n), 150, {"held_up": held_up}, usual)[1].word for n in range(100)
    )
    print(f"{held_up:.0%} held up: {words}")
    assert words["worse"] in found


@pytest.mark.parametrize(
    ("failing", "held_up", "by_lot", "found"),
    [
        (0.04, 0.02, True, range(90, 101)),
        (0.04, 0.02, False, range(2)),
        (0.02, 0.2, True, range(90, 101)),
        (0.02, 0.2, False, range(2)),
        (0.5, 0.02, False, range(100, 101)),
        (0.02, 0.9, False, range(100, 101)),
    ],
)
def test_chosen_requests_may_be_unlike_the_rest(
    failing: float, held_up: float, by_lot: bool, found: range
) -> None:
    """By lot, twice as many failures are the revision's; of who was chosen they may be his own."""
    usual = {"failing": 0.01, "held_up": 0.05}
    mine = {"failing": failing, "held_up": held_up}
    words = Counter(
        tried(random.Random(n), 400, mine, usual, by_lot=by_lot)[1].word for n in range(100)
    )
    print(f"{failing:.0%} failed, {held_up:.0%} held up, by lot {by_lot}: {words}")
    assert words["worse"] in found


def test_the_overload_of_both_is_not_the_new_ones_fault() -> None:
    over = {"failing": 0.2, "latency": 0.2}
    words = [tried(random.Random(n), 150, over, over)[1].word for n in range(40)]
    assert words.count("worse") <= 1


def test_a_hiccup_in_one_second_is_not_enough() -> None:
    trial = canary_analysis.began(0, START, second(random.Random(1), 1000).latency)
    slow = Counter({buckets.index(1.0): 30})
    bad = Counts(requests=30, failed=10, latency=slow)
    fine = second(random.Random(2), 200)
    trial = canary_analysis.take(trial, GATE, START, bad, fine)
    assert canary_analysis.verdict(trial, GATE, 230, 0.3, 5, START + 1).word == "wait"
    trial = canary_analysis.take(trial, GATE, START + 1, bad, fine)
    assert canary_analysis.verdict(trial, GATE, 230, 0.3, 5, START + 2).word == "worse"


def test_a_replica_that_the_proxy_took_out_counts_as_evidence() -> None:
    trial = canary_analysis.began(0, START, {})
    for passed, failed in enumerate((2, 2, 1)):
        out = Counts(requests=10, failed=failed, ejected=passed == 2)
        trial = canary_analysis.take(trial, GATE, START + passed, out, Counts(requests=20))
    text = canary_analysis.verdict(trial, GATE, 30, 0.3, 5, START + 3).text
    assert text.startswith("the proxy took a replica of it out of rotation; 16.67% of its requests")


@pytest.mark.parametrize(
    ("rate", "after", "word"),
    [
        (0.0, 0.0, "fine"),
        (None, 20.0, "wait"),
        (0.2, 1.0, "wait"),
        (0.2, 5.0, "fine"),
        (20.0, 5.0, "wait"),
    ],
)
def test_where_traffic_is_too_thin_a_rollout_does_not_wait_for_it(
    rate: float | None, after: float, word: str
) -> None:
    trial = canary_analysis.began(0, START, {})
    verdict = canary_analysis.verdict(trial, GATE, rate, 0.3, 5.0, START + after)
    assert verdict.word == word
    assert "too little traffic" in verdict.text or word == "wait"


def test_a_doubt_is_waited_out_and_no_longer_than_is_allowed() -> None:
    trial = canary_analysis.began(0, START, {})
    trial = canary_analysis.take(trial, GATE, START, Counts(5, 1), Counts(100, 0))
    assert canary_analysis.suspicious(trial)
    assert canary_analysis.verdict(trial, GATE, 0.0, 0.3, 5.0, START + 20).word == "wait"
    late = canary_analysis.verdict(trial, GATE, 0.0, 0.3, 5.0, START + GATE.wait)
    assert (late.word, late.text) == ("fine", "not proved worse in 5 requests, 1 failed and 30 s")


def test_after_a_switch_the_new_one_is_held_against_what_the_old_one_did_before() -> None:
    dice = random.Random(5)
    before = second(dice, 2000)
    trial = canary_analysis.began(1, START, before.latency, before)
    for passed in range(4):
        trial = canary_analysis.take(trial, GATE, START + passed, second(dice, 100, 0.05), Counts())
    verdict = canary_analysis.verdict(trial, GATE, 100, 1.0, 5.0, START + 4)
    assert verdict.word == "worse"
    assert "before the switch" in verdict.text


def test_the_share_grows_with_the_trust() -> None:
    trial = canary_analysis.began(0, START, {})
    rungs = []
    for passed in range(14):
        trial = canary_analysis.take(trial, GATE, START + passed, Counts(1), Counts(20))
        rungs.append(trial.rung)
    assert rungs == [0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4]
    trial = canary_analysis.began(0, START, {})
    for passed in range(14):
        trial = canary_analysis.take(
            trial, GATE, START + passed, Counts(1, int(passed == 0)), Counts(20)
        )
    assert trial.rung == 0
