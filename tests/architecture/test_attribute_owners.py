"""The attributes of the request path's central classes are written by their own module only.

`proxy.request.fast_path` is the one exception: it repeats a few of their methods for speed. Without
types a test cannot know the class of `x` in `x.phase = 1`. So every write to an attribute that one
of the classes defines counts, through whatever expression, unless the expression is `self` or is
listed in `OTHER_CLASSES`.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.paths import ROOT

OWNERS = {
    "Attempt": "proxy/request/attempt.py",
    "Exchange": "proxy/request/exchange.py",
    "Upstream": "proxy/request/upstream.py",
    "EndpointState": "proxy/state/endpoint_state.py",
}
FAST_PATH = "proxy/request/fast_path.py"
OTHER_CLASSES = {
    (
        "counters",
        "*",
    ): "`ServiceCounters` and `EndpointCounters`, which the code around them adds to",
    ("service", "in_flight"): "`ServiceState.in_flight`",
}
"""Writes that are allowed because the variable or attribute is of another class, which has an
attribute of the same name. Each with the class that is meant."""


def defined_in(cls: ast.ClassDef) -> set[str]:
    """The names of the attributes that a class defines: in its body, as slots, or on `self`."""
    found: set[str] = set()
    for node in cls.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found.add(node.target.id)
        elif isinstance(node, ast.Assign):
            found |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    for base, name, _ in writes(cls):
        if base == "self":
            found.add(name)
    return {name for name in found if not name.startswith("__")}


def writes(tree: ast.AST) -> Iterator[tuple[str, str, int]]:
    """All assignments to and deletions of attributes: the last name of the expression before the
    dot (empty: no name), the attribute, and the line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store | ast.Del):
            base = node.value
            name = (
                base.id
                if isinstance(base, ast.Name)
                else base.attr
                if isinstance(base, ast.Attribute)
                else ""
            )
            yield name, node.attr, node.lineno


def attributes() -> dict[str, set[str]]:
    """The files that may write each attribute of the classes."""
    found: dict[str, set[str]] = {}
    for name, path in OWNERS.items():
        tree = ast.parse((ROOT / path).read_text())
        (cls,) = [n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == name]
        for attribute in defined_in(cls):
            found.setdefault(attribute, {FAST_PATH}).add(path)
    return found


def foreign_writes(path: str, source: str) -> list[str]:
    """The writes in a file that the rule forbids."""
    owners = attributes()
    return [
        f"{path}:{line}: {base}.{name} is written outside {', '.join(sorted(owners[name]))}"
        for base, name, line in writes(ast.parse(source))
        if base != "self"
        and name in owners
        and path not in owners[name]
        and not {(base, name), (base, "*")} & set(OTHER_CLASSES)
    ]


def sources() -> list[Path]:
    return [
        path
        for part in ("request", "state", "worker")
        for path in sorted((ROOT / "proxy" / part).glob("*.py"))
    ]


def test_each_class_defines_the_attributes_that_are_looked_for() -> None:
    found = attributes()
    for name in ("phase", "service", "endpoint", "sink", "idle_until", "serving", "in_flight"):
        assert name in found, name
    assert len(found) > 60


@pytest.mark.parametrize("path", sources(), ids=lambda path: path.stem)
def test_no_attribute_is_written_outside_its_module(path: Path) -> None:
    assert foreign_writes(str(path.relative_to(ROOT)), path.read_text()) == []


@pytest.mark.parametrize(
    "statement",
    [
        "exchange.phase = 1",
        "exchange.bytes_in += 1",
        "del exchange.hedge",
        "self.exchange.status = 200",
        "exchange.upstream.sink = None",
        "made().span = None",
        "a, exchange.trace = 1, 2",
        "state.serving = False",
    ],
)
def test_a_write_from_another_module_is_found(statement: str) -> None:
    assert len(foreign_writes("proxy/request/dispatch.py", statement)) == 1


def test_only_exchange_and_fast_path_assign_the_phase() -> None:
    for path in sources():
        assigned = [name for _, name, _ in writes(ast.parse(path.read_text())) if name == "phase"]
        assert not assigned or path.stem in ("exchange", "fast_path"), path
