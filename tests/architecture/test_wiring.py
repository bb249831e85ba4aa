"""Parts are wired by constructor arguments: no part sets an attribute of another one."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.paths import ROOT

WIRING = [ROOT / "meshd" / "daemon" / name for name in ("main.py", "wiring.py")]


def stores(tree: ast.AST) -> Iterator[ast.Attribute]:
    """Every attribute that is assigned to."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store | ast.Del):
            yield node


def is_own(node: ast.Attribute) -> bool:
    return isinstance(node.value, ast.Name) and node.value.id == "self"


def own_stores_outside_init(tree: ast.AST) -> list[int]:
    """The lines where a method other than `__init__` assigns to an attribute of `self`."""
    return [
        store.lineno
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        and function.name != "__init__"
        for store in stores(function)
        if is_own(store)
    ]


def foreign_stores(source: str) -> list[int]:
    tree = ast.parse(source)
    lines = [store.lineno for store in stores(tree) if not is_own(store)]
    lines += [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "setattr"
    ]
    return lines


@pytest.mark.parametrize("path", WIRING, ids=lambda path: path.name)
def test_the_wiring_sets_no_attribute_after_construction(path: Path) -> None:
    source = path.read_text()
    assert foreign_stores(source) == []
    assert own_stores_outside_init(ast.parse(source)) == []


@pytest.mark.parametrize(
    "path", sorted((ROOT / "meshd").rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT))
)
def test_callbacks_are_constructor_arguments(path: Path) -> None:
    callbacks = [
        store.lineno
        for store in stores(ast.parse(path.read_text()))
        if store.attr.removeprefix("_").startswith("on_") and not is_own(store)
    ]
    assert callbacks == []


@pytest.mark.parametrize("line", ["a.b = 1", "self.x.y = 1", "a.b += 1", "setattr(a, 'b', 1)"])
def test_the_check_finds_an_assignment_from_outside(line: str) -> None:
    assert foreign_stores(line)
