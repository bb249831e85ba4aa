"""Every process that handles signals in its event loop holds those that arrive at its end."""

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.architecture.source import modules, tree_of
from tests.support.paths import ROOT

COMMANDS = "meshd/cli"
"""Commands end at once when a signal arrives late, as a user expects of Ctrl-C."""


def unheld_runs(path: Path) -> Iterator[int]:
    """Yield the lines that run an event loop without `hold_late_signals`."""
    for node in ast.walk(tree_of(path)):
        match node:
            case ast.Call(
                func=ast.Attribute(value=ast.Name(id="asyncio" | "uvloop"), attr="run"),
                args=[ast.Call(func=ast.Name(id="hold_late_signals"))],
            ):
                continue
            case ast.Call(func=ast.Attribute(value=ast.Name(id="asyncio" | "uvloop"), attr="run")):
                yield node.lineno


def test_processes_hold_late_signals() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in modules("meshd", "proxy")
        if not path.is_relative_to(ROOT / COMMANDS)
        for line in unheld_runs(path)
    ]
    assert not found, "see proxy.ipc.signals"
