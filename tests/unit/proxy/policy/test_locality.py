"""The preference for endpoints on the own node: who has it, and how it follows the latencies."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

import pytest

from proxy.policy.balance import make_picker, prefers_node
from proxy.policy.hot_cold import HotCold
from proxy.policy.locality import (
    ADJUST_PICKS,
    ADJUST_SECONDS,
    FIRST_SHARE,
    LARGEST_SHARE,
    LocalFirst,
    adjust_share,
)
from proxy.wire.snapshot import Balance, Endpoint


@dataclass(eq=False)
class Replica:
    id: str
    node: str
    latency: float = 0.01
    in_flight: int = 0
    weight: float = 1.0
    fast_failing: bool = False


def on_nodes(*nodes: str, latency: float = 0.01) -> tuple[Replica, ...]:
    return tuple(Replica(f"r{i}", node, latency) for i, node in enumerate(nodes))


def members(candidates: Sequence[Replica]) -> list[Endpoint]:
    return [Endpoint(c.id, "", 1, node=c.node) for c in candidates]


def share_of_node(picker: LocalFirst, candidates: Sequence[Replica], picks: int = 2000) -> float:
    """Return the share of the picks on node n1, over twenty seconds."""
    dice, counts = Random(3), Counter[str]()
    for number in range(picks):
        now = 20.0 * number / picks
        counts[candidates[picker.pick(candidates, None, dice.random, now)].node] += 1
    return counts["n1"] / picks


def local_first() -> LocalFirst:
    return LocalFirst(HotCold, "n1")


@pytest.mark.parametrize(
    ("nodes", "own", "preferred"),
    [
        (("n1", "n2"), "n1", True),
        (("n1", "n2"), "n3", False),
        (("n1", "n1"), "n1", False),
        (("n1", "n2"), "", False),
        (("", ""), "", False),
        ((), "n1", False),
    ],
)
def test_a_preference_needs_endpoints_here_and_elsewhere(
    nodes: tuple[str, ...], own: str, preferred: bool
) -> None:
    ends = members(on_nodes(*nodes))
    assert prefers_node(Balance(), ends, own) is preferred
    assert isinstance(make_picker(Balance(), ends, own), LocalFirst) is preferred


@pytest.mark.parametrize("algorithm", ["round-robin", "weighted", "random", "maglev", "peak-ewma"])
def test_other_algorithms_have_none(algorithm: str) -> None:
    balance = Balance(algorithm)  # type: ignore[arg-type]
    assert not prefers_node(balance, members(on_nodes("n1", "n2")), "n1")


def test_nearly_all_requests_stay_while_both_are_equally_fast() -> None:
    picker = local_first()
    assert share_of_node(picker, on_nodes("n1", "n2", "n2", "n2")) > 0.85
    assert picker.share == LARGEST_SHARE


def test_requests_leave_a_node_that_is_slower_and_come_back() -> None:
    here, *others = candidates = on_nodes("n1", "n2", "n2", "n2")
    picker = local_first()
    here.latency = 0.03
    assert share_of_node(picker, candidates) < 0.1
    assert picker.share < 0.01
    here.latency, others[0].latency = 0.01, 0.5  # one slow endpoint elsewhere does not count
    picker = local_first()
    share_of_node(picker, candidates)
    assert picker.share == LARGEST_SHARE


def test_the_share_changes_by_answers_and_time() -> None:
    candidates, picker, dice = on_nodes("n1", "n2"), local_first(), Random(1)
    for _ in range(10 * ADJUST_PICKS):
        picker.pick(candidates, None, dice.random, ADJUST_SECONDS / 2)
    assert picker.share == FIRST_SHARE
    picker.pick(candidates, None, dice.random, ADJUST_SECONDS)
    assert picker.share > FIRST_SHARE
    unknown = on_nodes("n1", "n2", latency=0.0)
    idle = local_first()
    share_of_node(idle, unknown)
    assert idle.share == FIRST_SHARE


def test_it_picks_among_what_is_left() -> None:
    picker, dice = local_first(), Random(1)
    everyone = on_nodes("n1", "n2")
    for candidates in (everyone, everyone[1:], everyone[:1], everyone):
        for _ in range(20):
            assert 0 <= picker.pick(candidates, None, dice.random, 0.0) < len(candidates)
    assert picker.pick((), None, dice.random, 0.0) == -1


def test_the_slower_the_node_the_faster_requests_leave() -> None:
    assert adjust_share(0.9, 0.011, 0.010) > 0.9
    assert adjust_share(0.0, 0.010, 0.010) > 0.0
    assert adjust_share(0.5, 0.012, 0.010) < 0.5
    assert adjust_share(0.5, 0.5, 0.01) < adjust_share(0.5, 0.012, 0.010)
    assert adjust_share(LARGEST_SHARE, 0.0001, 0.0001) == LARGEST_SHARE
