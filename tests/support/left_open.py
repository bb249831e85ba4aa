"""Finds what the tests of a file leave open, and names that file.

A connection, a process or a coroutine that was left open warns when the garbage collector finds it.
That may be in any later test, which then fails without a fault. So garbage is collected at the end
of each file whose tests may have opened something; `tests/conftest.py` registers this plugin.
"""

import gc
import inspect
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

REAL_PARTS = ("integration", "conformance", "engine", "e2e")
"""Folders of tests with real processes and sockets. Elsewhere only asynchronous tests open some."""
OPENING: set[Path] = set()
"""The files whose tests may open something."""


def pytest_collection_finish(session: pytest.Session) -> None:
    """Choose the files. Also leave what was imported out of all collections, which are short
    then."""
    OPENING.update(item.path for item in session.items if _may_open(item))
    gc.collect()
    gc.freeze()


def _may_open(item: pytest.Item) -> bool:
    in_folder = not set(REAL_PARTS).isdisjoint(item.path.parts)
    return in_folder or inspect.iscoroutinefunction(getattr(item, "obj", None))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(
    item: pytest.Item, nextitem: pytest.Item | None
) -> Generator[None, Any, Any]:
    """Fail the last test of a file that left something open."""
    result = yield
    if item.path in OPENING and (nextitem is None or nextitem.path != item.path):
        if isinstance(item, pytest.Function):
            item.funcargs.clear()  # they keep fixtures that have ended
        found = collect()
        if found:
            text = "\n".join(found)
            pytest.fail(f"the tests of {item.path.name} left something open:\n{text}", False)
    return result


def collect() -> list[str]:
    """Collect garbage; return the warnings about it."""
    found: list[str] = []

    def note(ignored: "sys.UnraisableHookArgs") -> None:
        found.append(f"{ignored.exc_type.__name__}: {ignored.exc_value}")

    before = sys.unraisablehook
    sys.unraisablehook = note
    try:
        gc.collect()
    finally:
        sys.unraisablehook = before
    return found
