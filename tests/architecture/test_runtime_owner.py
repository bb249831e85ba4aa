"""Only the reconciler's executor changes anything on a runtime, and the rest of the daemon uses the
reconciler through its ports."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from meshd.reconcile.loop import Reconciler
from meshd.runtime.base import Runtime
from tests.support.paths import ROOT

READS = {
    "token_address", "all_nodes", "own_node",
    "address_ranges", "capabilities", "follow", "image_progress", "is_local", "is_volume_empty",
    "jobs", "list", "logs", "mesh_addresses", "name", "nodes", "read_volume", "timed_logs", "usage",
    "unobtainable_reason", "volumes", "watch",
}  # fmt: skip
CONNECTION = {"close", "open"}
OWNERSHIP = {"claim", "claims", "unclaim"}
CHANGES = {
    "commit_volume", "discard_staged", "execute", "pause", "prepare", "redirect_ports", "remove",
    "remove_volume", "resolve", "set_availability", "set_host_names", "stage_volume", "start",
    "stop", "teardown", "unpause",
}  # fmt: skip
PORTS = {"view", "request", "ready"}
DRIVER = {"run", "run_pass", "close"}
"""Called by the wiring, tests and benchmarks, which drive the loop."""

MODULES = sorted((ROOT / "meshd").rglob("*.py"))


def is_in(path: Path, *folders: str) -> bool:
    return any(path.is_relative_to(ROOT / "meshd" / folder) for folder in folders)


def annotated_as(tree: ast.AST, kinds: set[str]) -> set[str]:
    """The names of arguments and variables annotated with one of these classes, of variables that
    hold a new object of one, and of attributes that hold any of these."""
    names: set[str] = set()
    for node in ast.walk(tree):
        match node:
            case ast.arg(arg=name, annotation=ast.expr() as kind) if ast.unparse(kind) in kinds:
                names.add(name)
            case ast.AnnAssign(target=target, annotation=kind) if ast.unparse(kind) in kinds:
                names.add(last_name(target))
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            made = isinstance(node.value, ast.Call) and last_name(node.value.func) in kinds
            if made or last_name(node.value) in names:
                names |= {last_name(target) for target in node.targets}
    return names - {""}


def last_name(node: ast.AST) -> str:
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
    return ""


def used(tree: ast.AST, objects: set[str]) -> Iterator[tuple[int, str]]:
    """Line and name of each attribute of these objects that is used."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and last_name(node.value) in objects:
            yield node.lineno, node.attr


def runtime_uses(source: str) -> list[tuple[int, str]]:
    tree = ast.parse(source)
    kinds = {"Runtime", "DockerRuntime", "ProcessRuntime"}
    objects = annotated_as(tree, kinds) | {"runtime", "_runtime"}
    return list(used(tree, objects))


def test_every_method_of_the_runtime_is_classified() -> None:
    methods = {name for name in vars(Runtime) if not name.startswith("_")}
    assert methods == READS | CONNECTION | OWNERSHIP | CHANGES


@pytest.mark.parametrize(
    "path",
    [path for path in MODULES if not is_in(path, "runtime", "reconcile/execute")],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_only_the_executor_changes_anything_on_a_runtime(path: Path) -> None:
    found = runtime_uses(path.read_text())
    assert [use for use in found if use[1] in CHANGES] == []
    if not is_in(path, "reconcile/ownership"):
        assert [use for use in found if use[1] in OWNERSHIP] == []


def test_within_execute_only_the_executor_changes_anything() -> None:
    changing = {
        path.name
        for path in (ROOT / "meshd" / "reconcile" / "execute").glob("*.py")
        if any(name in CHANGES for _, name in runtime_uses(path.read_text()))
    }
    assert changing == {"executor.py"}


@pytest.mark.parametrize(
    "line",
    [
        "await self._runtime.stop(name, 1.0)",
        "def f(engine: Runtime):\n    return engine.remove('x')",
        "class A:\n    def __init__(self, engine: Runtime):\n        self._engine = engine\n"
        "    def g(self):\n        return self._engine.start",
    ],
)
def test_the_check_finds_a_change(line: str) -> None:
    assert [name for _, name in runtime_uses(line) if name in CHANGES]


def test_the_reconciler_has_its_ports_and_no_public_attributes() -> None:
    public = {name for name in vars(Reconciler) if not name.startswith("_")}
    assert public == PORTS | DRIVER
    tree = ast.parse((ROOT / "meshd" / "reconcile" / "loop.py").read_text())
    (reconciler,) = [
        node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "Reconciler"
    ]
    assigned = {
        node.attr
        for node in ast.walk(reconciler)
        if isinstance(node, ast.Attribute)
        and isinstance(node.ctx, ast.Store)
        and last_name(node.value) == "self"
    }
    assert {name for name in assigned if not name.startswith("_")} == set()


def reconciler_uses(source: str) -> list[tuple[int, str]]:
    tree = ast.parse(source)
    objects = annotated_as(tree, {"Reconciler"}) | {"reconciler", "_reconciler"}
    return list(used(tree, objects))


@pytest.mark.parametrize(
    "path",
    [path for path in MODULES if not is_in(path, "reconcile")],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_nothing_outside_reaches_into_the_reconciler(path: Path) -> None:
    allowed = PORTS | ({"run"} if path.name == "wiring.py" else set())
    assert [use for use in reconciler_uses(path.read_text()) if use[1] not in allowed] == []


def test_the_check_finds_a_reach_into_the_reconciler() -> None:
    source = "def f(loop: Reconciler):\n    return loop._memory, loop.view().desired"
    assert [name for _, name in reconciler_uses(source)] == ["_memory", "view"]
