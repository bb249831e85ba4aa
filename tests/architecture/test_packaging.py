"""The project's shape: packages are listed by name, charters and public words are there, and
nothing of a machine or a registry is written down."""

import ast
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from tests.support.paths import ROOT

OURS = ("autoscaler", "demo_services", "meshd", "proxy")


def sources() -> list[Path]:
    return [path for name in OURS for path in sorted((ROOT / name).rglob("*.py"))]


def test_every_package_is_in_the_wheel_by_name() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    listed = set(project["tool"]["setuptools"]["packages"])
    there = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for path in sources()
        if path.name == "__init__.py"
    }
    assert listed == there


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_module_says_what_it_is(path: Path) -> None:
    tree = ast.parse(path.read_text())
    told = ast.get_docstring(tree)
    assert told, f"{path} has no docstring"
    if path.name == "__init__.py" and path.parent.parent == ROOT:
        assert "Belongs here" in told, f"{path}: a package's docstring says what belongs in it"


def tracked() -> list[Path]:
    names = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split("\0")
    return [ROOT / name for name in names if name and (ROOT / name).is_file()]


def test_pinned_dependencies_carry_hashes_and_no_addresses() -> None:
    locks = [path for path in tracked() if path.suffix == ".lock"]
    assert len(locks) >= 3
    for path in locks:
        text = path.read_text()
        assert not re.search(r"https?://|file://|--(find-links|index-url|extra-index-url)", text)
        pins = re.findall(r"^[a-z0-9]\S*==\S+", text, re.MULTILINE)
        assert len(pins) > 1
        assert text.count("--hash=sha256:") >= len(pins)


def test_the_documents_name_files_that_exist() -> None:
    """Every path in backticks in ARCHITECTURE.md is there."""
    text = (ROOT / "docs" / "ARCHITECTURE.md").read_text()
    tops = "autoscaler|meshd|proxy|demo_services|deploy|tests"
    named = set(re.findall(rf"`((?:{tops})/[\w/.-]+)`", text))
    missing = sorted(name for name in named if not (ROOT / name).exists())
    assert not missing
    modules = {str(path.relative_to(ROOT)) for path in sources()}
    packages = {f"{name}/" for name in OURS}
    for package in sorted({str(Path(module).parent) for module in modules}):
        assert f"`{package}/" in text or f"{package}/" in packages, f"{package} is not described"


def test_names_and_docstrings_are_public() -> None:
    """Public functions and classes of the seams are documented."""
    seams = [
        "proxy/wire",
        "meshd/runtime/base.py",
        "meshd/api/dto.py",
        "meshd/api/port.py",
        "autoscaler",
    ]
    for path in sources():
        where = str(path.relative_to(ROOT))
        if not any(where.startswith(seam) for seam in seams):
            continue
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
                assert ast.get_docstring(node), f"{where}: {node.name} has no docstring"
