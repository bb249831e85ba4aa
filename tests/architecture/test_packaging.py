"""The project's packaging: packages are listed by name, modules have docstrings, pins have hashes,
the documents name files that exist, and no path of a machine is written down."""

import ast
import json
import re
from pathlib import Path

import pytest

from tests.architecture.source import PACKAGES, ROOT, modules, project, tracked, tree_of

OURS = (*PACKAGES, "demo_services")
LONGEST_CELL = 40
"""Words in one cell of a table."""


def test_every_package_is_in_the_wheel_by_name() -> None:
    listed = set(project()["tool"]["setuptools"]["packages"])
    found = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for path in modules(*OURS)
        if path.name == "__init__.py"
    }
    assert listed == found


@pytest.mark.parametrize("path", modules(*OURS), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_module_has_a_docstring(path: Path) -> None:
    docstring = ast.get_docstring(tree_of(path))
    assert docstring, f"{path} has no docstring"
    if path.name == "__init__.py" and path.parent.parent == ROOT:
        assert "Belongs here" in docstring, f"{path}: a package's docstring says what belongs in it"


def test_the_pins_of_the_page_carry_hashes_and_no_addresses() -> None:
    text = (ROOT / "web" / "package-lock.json").read_text()
    assert "://" not in text
    packages = json.loads(text)["packages"]
    assert all("integrity" in pinned for name, pinned in packages.items() if name)


def test_pinned_dependencies_carry_hashes_and_no_addresses() -> None:
    locks = [path for path in tracked() if path.suffix == ".lock"]
    assert len(locks) >= 3
    for path in locks:
        text = path.read_text()
        assert not re.search(r"https?://|file://|--(find-links|index-url|extra-index-url)", text)
        pins = re.findall(r"^[a-z0-9]\S*==\S+", text, re.MULTILINE)
        assert len(pins) > 1
        assert text.count("--hash=sha256:") >= len(pins)


@pytest.mark.parametrize("page", ["ARCHITECTURE.md", "CONTRIBUTING.md"])
def test_the_documents_name_files_that_exist(page: str) -> None:
    text = (ROOT / "docs" / page).read_text()
    tops = "autoscaler|meshd|proxy|demo_services|deploy|tests|bench|docs"
    named = set(re.findall(rf"`((?:{tops})/[\w/.-]+)`", text))
    missing = sorted(name for name in named if not (ROOT / name).exists())
    assert not missing


def test_the_architecture_page_describes_every_package() -> None:
    text = (ROOT / "docs" / "ARCHITECTURE.md").read_text()
    folders = {str(path.parent.relative_to(ROOT)) for path in modules(*OURS)} - set(OURS)
    missing = sorted(folder for folder in folders if f"`{folder}/" not in text)
    assert not missing


def test_no_table_cell_of_the_architecture_page_is_a_paragraph() -> None:
    lines = (ROOT / "docs" / "ARCHITECTURE.md").read_text().splitlines()
    cells = [cell for line in lines if line.startswith("|") for cell in line.split("|")]
    long = [cell for cell in cells if len(cell.split()) > LONGEST_CELL]
    assert not long, "write a paragraph below the table"


def test_public_names_of_the_seams_have_docstrings() -> None:
    seams = [
        "proxy/wire",
        "meshd/runtime/base.py",
        "meshd/api/dto.py",
        "meshd/api/port.py",
        "autoscaler",
    ]
    for path in modules(*OURS):
        where = str(path.relative_to(ROOT))
        if not any(where.startswith(seam) for seam in seams):
            continue
        for node in tree_of(path).body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
                assert ast.get_docstring(node), f"{where}: {node.name} has no docstring"
