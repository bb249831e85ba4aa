"""Each balancing rule: its spread, what it prefers, and what it must never do."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import get_args

import pytest

from proxy.policy.balance import (
    Candidate,
    in_panic,
    least_request_score,
    make_picker,
    peak_ewma_score,
    pick_weighted,
    slow_start_factor,
)
from proxy.policy.hashing import hash_key
from proxy.wire.snapshot import Algorithm, Balance, Endpoint

ALL: tuple[Algorithm, ...] = get_args(Algorithm)
AWARE: tuple[Algorithm, ...] = ("hot-cold", "least-request", "peak-ewma")


@dataclass(eq=False)
class Replica:
    id: str
    in_flight: int = 0
    latency: float = 0.0
    weight: float = 1.0
    fast_failing: bool = False
    node: str = ""


def replicas(count: int, **fields: float) -> tuple[Replica, ...]:
    return tuple(Replica(f"r{i}", **fields) for i in range(count))  # type: ignore[arg-type]


def endpoints(candidates: Sequence[Candidate]) -> list[Endpoint]:
    return [Endpoint(id=c.id, host="", port=1, weight=c.weight) for c in candidates]


def shares(
    algorithm: Algorithm, candidates: Sequence[Replica], picks: int = 4000, flights: int = 0
) -> dict[str, float]:
    """The share of picks of each candidate; the last `flights` requests stay in flight."""
    random = Random(7)
    picker = make_picker(Balance(algorithm=algorithm), endpoints(candidates))
    counts: Counter[str] = Counter()
    running: list[Replica] = []
    for turn in range(picks):
        key = hash_key(b"client %d" % turn)
        chosen = candidates[picker.pick(candidates, key, random.random, turn * 0.001)]
        counts[chosen.id] += 1
        chosen.in_flight += 1
        running.append(chosen)
        if len(running) > flights:
            running.pop(random.randrange(len(running))).in_flight -= 1
    return {c.id: counts[c.id] / picks for c in candidates}


@pytest.mark.parametrize("algorithm", ALL)
@pytest.mark.parametrize("flights", [0, 30])
def test_equal_replicas_get_equal_shares(algorithm: Algorithm, flights: int) -> None:
    found = shares(algorithm, replicas(10), flights=flights)
    tolerance = 0.03 if algorithm in ("ring-hash", "maglev", "random") else 0.015
    assert all(abs(share - 0.1) <= tolerance for share in found.values()), found


@pytest.mark.parametrize("algorithm", ALL)
def test_two_sequential_clients_reach_both_replicas(algorithm: Algorithm) -> None:
    found = shares(algorithm, replicas(2), picks=400)
    assert min(found.values()) > 0.35, found


@pytest.mark.parametrize("algorithm", ALL)
def test_no_replica_and_a_single_one(algorithm: Algorithm) -> None:
    picker = make_picker(Balance(algorithm=algorithm))
    assert picker.pick((), 5, Random(1).random, 0.0) == -1
    assert picker.pick(replicas(1, fast_failing=True), 5, Random(1).random, 0.0) == 0
    assert picker.pick((), None, Random(1).random, 0.0) == -1


@pytest.mark.parametrize("algorithm", [a for a in ALL if a != "round-robin"])
def test_a_light_replica_gets_less(algorithm: Algorithm) -> None:
    candidates = replicas(4)
    candidates[0].weight = 0.25
    found = shares(algorithm, candidates, picks=6000, flights=40)
    expected = 0.25 / 3.25
    assert 0.4 * expected < found["r0"] < 1.6 * expected, found
    others = [found[f"r{i}"] for i in (1, 2, 3)]
    assert max(others) - min(others) < (0.09 if algorithm == "ring-hash" else 0.06), found


@pytest.mark.parametrize("algorithm", ALL)
def test_a_set_that_changes_is_noticed(algorithm: Algorithm) -> None:
    random = Random(3)
    everyone = replicas(6)
    picker = make_picker(Balance(algorithm=algorithm), endpoints(everyone))
    for turn in range(600):
        some = everyone[turn // 100 :]
        chosen = picker.pick(some, hash_key(b"%d" % turn), random.random, turn * 0.001)
        assert 0 <= chosen < len(some)
    newcomers = (*everyone[:2], Replica("new"))
    counts = Counter(
        picker.pick(newcomers, hash_key(b"%d" % turn), random.random, 1.0) for turn in range(300)
    )
    assert set(counts) == {0, 1, 2}


@pytest.mark.parametrize("algorithm", AWARE)
def test_a_fast_failing_replica_is_never_preferred(algorithm: Algorithm) -> None:
    candidates = replicas(5, latency=0.1)
    candidates[2].latency = 0.0005
    candidates[2].fast_failing = True
    found = shares(algorithm, candidates, flights=20)
    assert found["r2"] < 0.01, found


@pytest.mark.parametrize("algorithm", AWARE)
def test_when_all_fail_fast_all_are_used(algorithm: Algorithm) -> None:
    candidates = replicas(3, fast_failing=True)
    assert min(shares(algorithm, candidates, flights=6).values()) > 0.2


@pytest.mark.parametrize("algorithm", AWARE)
def test_the_loaded_replica_is_avoided(algorithm: Algorithm) -> None:
    candidates = replicas(4, latency=0.05)
    candidates[1].in_flight = 50
    assert shares(algorithm, candidates)["r1"] < 0.01


def test_hot_cold_takes_the_quickest_cold_one() -> None:
    candidates = replicas(10, latency=0.2)
    for candidate in candidates:
        candidate.in_flight = 3
    candidates[4].latency = 0.05
    picker = make_picker(Balance())
    assert picker.pick(candidates, None, Random(1).random, 0.0) == 4
    # It gets hot: everybody else is colder, though slower.
    candidates[4].in_flight = 9
    assert picker.pick(candidates, None, Random(1).random, 1.0) != 4


def test_hot_cold_reacts_to_load_between_refreshes() -> None:
    candidates = replicas(4, latency=0.05)
    picker = make_picker(Balance())
    chosen = []
    for _ in range(20):  # all in one instant
        index = picker.pick(candidates, None, Random(1).random, 0.0)
        candidates[index].in_flight += 1
        chosen.append(index)
    assert [candidate.in_flight for candidate in candidates] == [5, 5, 5, 5], chosen


def test_hot_cold_tries_a_slow_replica_again() -> None:
    candidates = replicas(5, latency=0.01)
    candidates[3].latency = 1.0
    picker = make_picker(Balance())
    random = Random(1)
    tries = sum(
        picker.pick(candidates, None, random.random, turn * 0.01) == 3 for turn in range(12_000)
    )  # two minutes
    assert 6 <= tries <= 14


def test_hot_cold_tries_a_failing_replica_again() -> None:
    candidates = replicas(2, latency=0.01)
    candidates[0].fast_failing = True
    picker = make_picker(Balance())
    random = Random(1)
    picks = [picker.pick(candidates, None, random.random, turn * 0.01) for turn in range(6000)]
    assert 3 <= picks.count(0) <= 8


def test_round_robin_takes_turns() -> None:
    picker = make_picker(Balance(algorithm="round-robin"))
    candidates = replicas(3)
    picks = [picker.pick(candidates, None, lambda: 0.0, 0.0) for _ in range(7)]
    assert picks == [0, 1, 2, 0, 1, 2, 0]


def test_weighted_interleaves() -> None:
    candidates = replicas(3)
    candidates[0].weight = 4.0
    picker = make_picker(Balance(algorithm="weighted"))
    picks = [picker.pick(candidates, None, Random(1).random, 0.0) for _ in range(600)]
    assert [picks.count(i) for i in range(3)] == [pytest.approx(n, abs=2) for n in (400, 100, 100)]
    assert max(len(run) for run in "".join(map(str, picks)).replace("1", "2").split("2")) <= 8


@pytest.mark.parametrize("algorithm", ["ring-hash", "maglev"])
def test_a_key_stays_on_its_replica(algorithm: Algorithm) -> None:
    everyone = replicas(10)
    keys = [hash_key(b"user %d" % number) for number in range(2000)]
    random = Random(1)

    def places(candidates: Sequence[Replica], members: Sequence[Replica]) -> list[str]:
        picker = make_picker(Balance(algorithm=algorithm), endpoints(members))
        return [candidates[picker.pick(candidates, k, random.random, 0.0)].id for k in keys]

    before = places(everyone, everyone)
    assert before == places(tuple(reversed(everyone)), everyone)
    out = tuple(c for c in everyone if c.id != "r3")
    for after in (places(out, everyone), places(out, out)):
        moved = sum(b != a for b, a in zip(before, after, strict=True) if b != "r3")
        assert moved <= (0 if algorithm == "ring-hash" else 0.06 * len(keys)), moved
    held = places(out, everyone)
    assert all(b == h for b, h in zip(before, held, strict=True) if b != "r3")
    inherited = Counter(h for b, h in zip(before, held, strict=True) if b == "r3")
    assert len(inherited) >= 6, "the keys of a lost replica go to many, not to one neighbour"


@pytest.mark.parametrize(
    ("age", "window", "share"),
    [(0, 0, 1.0), (0, 10, 0.1), (0.5, 10, 0.1), (5, 10, 0.5), (10, 10, 1.0), (99, 10, 1.0)],
)
def test_ramp(age: float, window: float, share: float) -> None:
    assert slow_start_factor(age, window) == pytest.approx(share)


@pytest.mark.parametrize(
    ("healthy", "total", "threshold", "panic"),
    [(5, 10, 0.5, False), (4, 10, 0.5, True), (0, 3, 0.5, True), (0, 3, 0.0, False)],
)
def test_panic(healthy: int, total: int, threshold: float, panic: bool) -> None:
    assert in_panic(healthy, total, threshold) is panic


def test_scores() -> None:
    assert least_request_score(Replica("a", in_flight=3, weight=2.0)) == 2.0
    assert peak_ewma_score(Replica("a", in_flight=1, latency=0.1)) == pytest.approx(0.2)
    assert peak_ewma_score(Replica("a")) == pytest.approx(0.03)


@pytest.mark.parametrize(
    ("weights", "roll", "index"),
    [
        ([1, 1], 0.0, 0),
        ([1, 1], 0.5, 1),
        ([1, 3], 0.24, 0),
        ([1, 3], 0.26, 1),
        ([0, 2, 0], 0.999, 1),
        ([0, 0], 0.3, 1),
        ([], 0.3, -1),
    ],
)
def test_spin(weights: list[float], roll: float, index: int) -> None:
    assert pick_weighted(weights, roll) == index
