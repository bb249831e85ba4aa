"""Ejection as scenarios over virtual time."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.policy.eject import EndpointHealth, eject_outliers, may_eject, record_failure
from proxy.wire.snapshot import Ejection

POLICY = Ejection(consecutive=5, base=5.0, longest=30.0, share=0.5)


def hosts(count: int) -> list[EndpointHealth]:
    return [EndpointHealth(f"h{i}") for i in range(count)]


def fail(peers: list[EndpointHealth], index: int, times: int, now: float = 0.0) -> list[str | None]:
    return [record_failure(POLICY, peers[index], peers, now) for _ in range(times)]


def test_failures_in_a_row() -> None:
    peers = hosts(3)
    assert fail(peers, 0, 5) == [None] * 4 + ["5 failures in a row"]
    assert peers[0].ejected
    assert peers[0].ejected_until == 5.0


def test_a_success_between_starts_over() -> None:
    peers = hosts(3)
    fail(peers, 0, 4)
    peers[0].record_success(0.01)
    assert fail(peers, 0, 4) == [None] * 4
    assert not peers[0].ejected


def test_never_the_last_one_and_never_beyond_the_share() -> None:
    alone = hosts(1)
    fail(alone, 0, 50)
    assert not alone[0].ejected
    pair = hosts(2)
    fail(pair, 0, 5)
    fail(pair, 1, 50)
    assert [h.ejected for h in pair] == [True, False]
    ten = hosts(10)
    for index in range(10):
        fail(ten, index, 5)
    assert sum(h.ejected for h in ten) == 5


@pytest.mark.parametrize(
    ("share", "count", "most"), [(0.1, 4, 1), (0.1, 30, 3), (0.0, 3, 1), (1.0, 4, 3)]
)
def test_share(share: float, count: int, most: int) -> None:
    peers = hosts(count)
    for health in peers:
        if may_eject(Ejection(share=share), peers):
            health.ejected = True
    assert sum(h.ejected for h in peers) == most


def test_half_open_probe_re_admits_on_success() -> None:
    peers = hosts(3)
    fail(peers, 0, 5)
    sick = peers[0]
    assert not sick.may_probe(4.9)
    assert sick.may_probe(5.0)
    sick.probing = True
    assert not sick.may_probe(5.0), "one probe at a time"
    assert sick.record_success(0.01)
    assert not sick.ejected
    assert not sick.fast_failing


def test_half_open_probe_failing_doubles_the_backoff() -> None:
    peers = hosts(3)
    fail(peers, 0, 5)
    sick = peers[0]
    now, backoffs = 0.0, []
    for _ in range(5):
        now = sick.ejected_until
        sick.probing = True
        assert record_failure(POLICY, sick, peers, now) == "the probe request failed"
        backoffs.append(sick.ejected_until - now)
    assert backoffs == [10.0, 20.0, 30.0, 30.0, 30.0]


def test_answers_to_older_requests_do_not_count_while_ejected() -> None:
    peers = hosts(3)
    fail(peers, 0, 5)
    assert not peers[0].record_success(0.01)
    assert peers[0].ejected
    assert fail(peers, 0, 5, now=1.0) == [None] * 5
    assert peers[0].ejected_until == 5.0


def test_a_probe_without_an_answer_may_be_made_again() -> None:
    peers = hosts(3)
    fail(peers, 0, 5)
    peers[0].probing = True
    peers[0].record_abandoned()
    assert peers[0].may_probe(6.0)


def test_good_behaviour_is_remembered() -> None:
    peers = hosts(3)
    fail(peers, 0, 5)
    peers[0].probing = True
    peers[0].record_success(0.01)
    assert peers[0].ejection_count == 1
    eject_outliers(POLICY, peers, 20.0)
    assert peers[0].ejection_count == 0


def test_fast_failing_rises_and_fades() -> None:
    peers = hosts(2)
    fail(peers, 0, 2)
    assert peers[0].fast_failing
    for _ in range(8):
        peers[0].record_success(0.01)
    assert not peers[0].fast_failing
    fail(peers, 1, 3)
    eject_outliers(POLICY, peers, 10.0)
    assert not peers[1].fast_failing, "fades with time too, for one that gets no requests"


def counted(rates: list[float], requests: int) -> list[EndpointHealth]:
    peers = hosts(len(rates))
    for health, rate in zip(peers, rates, strict=True):
        health.successes = round(requests * rate)
        health.failures = requests - health.successes
        health.success_seconds = 0.01 * health.successes
    return peers


@pytest.mark.parametrize(
    ("rates", "requests", "out"),
    [
        ([1.0, 1.0, 1.0, 1.0, 0.6], 200, [4]),
        ([1.0, 1.0, 1.0, 1.0, 0.99], 200, []),
        ([0.5, 0.5, 0.5, 0.5, 0.5], 200, []),
        ([0.0, 0.0, 0.0], 200, []),
        ([1.0, 1.0, 0.1], 60, [2]),
        ([1.0, 1.0, 0.1], 40, []),
        ([1.0, 0.5], 200, []),
        ([1.0, 0.05], 200, [1]),
    ],
)
def test_success_rate(rates: list[float], requests: int, out: list[int]) -> None:
    peers = counted(rates, requests)
    found = eject_outliers(POLICY, peers, 10.0)
    assert [h.id for h, _ in found] == [f"h{i}" for i in out]
    assert all(h.successes == h.failures == 0 for h in peers)
    assert [h.ejected for h in peers] == [i in out for i in range(len(peers))]


def test_success_rate_can_be_off() -> None:
    peers = counted([1.0, 1.0, 0.0], 200)
    assert eject_outliers(Ejection(success_rate=False), peers, 10.0) == []


def test_latency_outlier() -> None:
    peers = counted([1.0] * 4, 200)
    peers[2].success_seconds = 200 * 0.05
    assert eject_outliers(Ejection(), [*peers], 10.0) == []
    peers = counted([1.0] * 4, 200)
    peers[2].success_seconds = 200 * 0.05
    [(health, cause)] = eject_outliers(Ejection(latency_factor=3.0), peers, 10.0)
    assert health is peers[2]
    assert cause == "mean latency 50 ms, 5 times its peers'"


def test_the_worst_goes_first_when_the_share_is_small() -> None:
    peers = counted([1.0] * 18 + [0.3, 0.05], 200)
    [(health, _)] = eject_outliers(Ejection(share=0.05), peers, 10.0)
    assert health is peers[19]


answers = st.tuples(st.integers(0, 400), st.integers(0, 400), st.floats(0.0, 5.0))


@settings(max_examples=200, deadline=None)
@given(st.lists(answers, min_size=2, max_size=8), st.sampled_from([0.0, 1.5, 3.0]))
def test_a_cause_never_contradicts_its_numbers(
    seen: list[tuple[int, int, float]], factor: float
) -> None:
    peers = hosts(len(seen))
    for peer, (good, bad, seconds) in zip(peers, seen, strict=True):
        peer.successes, peer.failures, peer.success_seconds = good, bad, good * seconds
    policy = Ejection(share=1.0, success_rate=True, latency_factor=factor)
    for _, cause in eject_outliers(policy, peers, 0.0):
        if rates := re.fullmatch(r"success rate (\d+)%, mean of all (\d+)%", cause):
            assert int(rates[1]) < int(rates[2])
        elif share := re.fullmatch(r"(\d+)% of its answers failed", cause):
            assert int(share[1]) >= 85
        else:
            match = re.fullmatch(r"mean latency (\S+) ms, (\S+) times its peers'", cause)
            assert match, cause
            assert float(match[1]) > 0.0, cause
            assert float(match[2]) >= factor * 0.999, cause
