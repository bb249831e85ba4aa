"""Every module gets its logger the same way, named after the module."""

import re
from pathlib import Path

import pytest

from tests.support.paths import ROOT

LOGGERS = {
    "meshd": "_log = structlog.stdlib.get_logger(__name__)",
    "proxy": "_log = logging.getLogger(__name__)",
}
"""The proxy needs only the standard library, to keep its processes small. Both write the same
fields."""
EXCEPTIONS = {
    "meshd/logging_setup.py": "configures the root logger",
    "proxy/worker/span_exporter.py": "silences the logger of a library",
}


@pytest.mark.parametrize("package", LOGGERS)
def test_loggers_are_made_one_way(package: str) -> None:
    others = {
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for path in sorted((ROOT / package).rglob("*.py"))
        if str(path.relative_to(ROOT)) not in EXCEPTIONS
        for line in path.read_text().splitlines()
        if re.search(r"\bget_?[lL]ogger\(", line)
        and line.replace(": Final", "") != LOGGERS[package]
    }
    assert others == set()


def test_exceptions_exist() -> None:
    assert all(Path(ROOT / name).is_file() for name in EXCEPTIONS)
