"""No test sleeps: it waits for a condition, or says why real time has to pass."""

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.support.paths import ROOT

FOLDERS = ("tests/unit", "tests/integration")
ALLOWED: frozenset[str] = frozenset()
"""Files that may sleep, each with its reason in a comment here. None does."""


def sleeps(path: Path) -> Iterator[int]:
    """Yield the lines with a call of `time.sleep` or `asyncio.sleep` for more than 0 seconds."""
    for node in ast.walk(ast.parse(path.read_text())):
        if not (isinstance(node, ast.Call) and node.args):
            continue
        match node.func, node.args[0]:
            case _, ast.Constant(value=0):
                continue
            case ast.Attribute(value=ast.Name(id="time" | "asyncio"), attr="sleep"), _:
                yield node.lineno
            case ast.Name(id="sleep"), _:
                yield node.lineno


def test_tests_wait_through_the_helpers() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}"
        for folder in FOLDERS
        for path in sorted((ROOT / folder).rglob("*.py"))
        if str(path.relative_to(ROOT)) not in ALLOWED
        for line in sleeps(path)
    ]
    assert not found, "use tests.support.waiting or tests.fakes.virtual"
