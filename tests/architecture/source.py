"""The source tree as the architecture tests read it."""

import ast
import functools
import subprocess
import tomllib
from pathlib import Path
from typing import Any

from tests.support.paths import ROOT

PACKAGES = ("autoscaler", "meshd", "proxy")
"""The packages that the rules about names, purity and constants are for."""


def modules(*packages: str) -> list[Path]:
    """Return the Python files of these packages, sorted; of `PACKAGES` by default."""
    return [path for name in packages or PACKAGES for path in sorted((ROOT / name).rglob("*.py"))]


def name_of(path: Path) -> str:
    """Return the dotted name of a module or package."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@functools.cache
def tree_of(path: Path) -> ast.Module:
    """Return a file's syntax tree."""
    return ast.parse(path.read_text())


def project() -> dict[str, Any]:
    """Return pyproject.toml."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def tracked() -> list[Path]:
    """Return the files under version control that exist."""
    names = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split("\0")
    return [ROOT / name for name in names if name and (ROOT / name).is_file()]
