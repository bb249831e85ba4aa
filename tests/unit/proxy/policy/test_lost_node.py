"""A node is lost if several of its endpoints are silent and none answers."""

import pytest

from proxy.policy.lost_node import forget_old, is_lost

NOW = 100.0


@pytest.mark.parametrize(
    ("silent", "endpoints", "last_answer", "lost"),
    [
        (["a", "b"], 5, 98.9, True),
        (["a"], 5, 98.9, False),
        (["a"], 1, 98.9, True),
        (["a", "b"], 2, 99.6, False),
        (["a", "b", "c"], 3, 0.0, True),
        ([], 3, 0.0, False),
        (["a"], 0, 0.0, False),
    ],
    ids=["two are silent", "one of many", "its only one", "one answered", "none ever answered",
         "none is silent", "it has none any more"],
)  # fmt: skip
def test_when_a_node_is_lost(
    silent: list[str], endpoints: int, last_answer: float, lost: bool
) -> None:
    assert is_lost(dict.fromkeys(silent, NOW), endpoints, last_answer, 1.0, NOW) is lost


def test_an_old_silence_does_not_count() -> None:
    assert forget_old({"a": 96.9, "b": 97.1}, 1.0, NOW) == {"b": 97.1}
