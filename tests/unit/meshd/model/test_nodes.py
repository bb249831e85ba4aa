"""Which entries of nodes are old ones."""

import pytest

from meshd.model.runtime import Node, find_left


@pytest.mark.parametrize(
    ("states", "left"),
    [
        (["ready"], []),
        (["down"], []),
        (["down", "ready"], [0]),
        (["ready", "down", "down"], [1, 2]),
        (["unknown", "down"], [1]),
        # Not known which one is meant:
        (["down", "down"], []),
        (["ready", "ready", "down"], []),
        (["ready", "unknown"], []),
    ],
)
def test_an_entry_is_old_if_its_node_joined_again(states: list[str], left: list[int]) -> None:
    nodes = [Node("w1", 1.0, 1, id=str(n), state=state) for n, state in enumerate(states)]
    others = [Node("w2", 1.0, 1, id="other", state="down")]
    assert find_left([*nodes, *others]) == {str(n) for n in left}
