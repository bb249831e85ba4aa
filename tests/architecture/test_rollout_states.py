"""States of rollouts are enum members: no code compares them with strings."""

import ast
from pathlib import Path

import pytest

from meshd.model.release import ReleaseOutcome
from meshd.model.rollout import ROLLOUT_TRANSITIONS, RolloutState
from tests.support.paths import ROOT

WORDS = {state.value for state in RolloutState} | set(ReleaseOutcome)


def words_in(node: ast.AST) -> set[str]:
    """The state words that a node is or directly contains."""
    nodes = node.elts if isinstance(node, ast.Tuple | ast.List | ast.Set) else [node]
    return {n.value for n in nodes if isinstance(n, ast.Constant) and n.value in WORDS}


def compared_words(tree: ast.Module) -> list[int]:
    """The lines that compare something with a state's word, or collect several words."""
    found: list[int] = []
    for node in ast.walk(tree):
        match node:
            case ast.Compare(left=left, comparators=others):
                found += [node.lineno for part in (left, *others) if words_in(part)]
            case ast.MatchValue(value=value) if words_in(value):
                found.append(value.lineno)
            case ast.Tuple() | ast.List() | ast.Set() if len(words_in(node)) > 1:
                found.append(node.lineno)
    return found


@pytest.mark.parametrize(
    "path", sorted((ROOT / "meshd").rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT))
)
def test_no_rollout_state_is_compared_as_a_string(path: Path) -> None:
    assert compared_words(ast.parse(path.read_text())) == []


@pytest.mark.parametrize(
    "line", ["a == 'rolling'", "a in ('done', b)", "WORDS = ['rolling', 'paused']"]
)
def test_the_check_finds_comparisons(line: str) -> None:
    assert compared_words(ast.parse(line))


def test_every_rollout_state_has_a_row_in_the_transition_table() -> None:
    assert set(ROLLOUT_TRANSITIONS) == set(RolloutState)
    reached = {state for row in ROLLOUT_TRANSITIONS.values() for state in row}
    assert reached == set(RolloutState)
