"""The Compose files of the pages are valid: meshd reads them without an error."""

import re
from pathlib import Path

import pytest

from docs.site.commands import BLOCK
from docs.site.stage import ROOT, written_pages
from meshd.spec.compose import load

PAGES = {"README": ROOT / "README.md", **written_pages()}
FILE = re.compile(r"^(?:\w[\w-]*:.*\n(?: .*\n)*)*?services:\n(?:  \w+:\n)", re.MULTILINE)


def files() -> list[tuple[str, int, str]]:
    """Return page, number and text of each whole Compose file in the pages."""
    return [
        (page, number, body)
        for page, path in PAGES.items()
        for number, (_, language, body) in enumerate(BLOCK.findall(path.read_text()))
        if language == "yaml" and re.search(r"^ +image:", body, re.MULTILINE) and FILE.match(body)
    ]


@pytest.mark.parametrize(("page", "number", "text"), files(), ids=lambda each: str(each)[:20])
def test_every_compose_file_of_the_pages_loads(
    page: str, number: int, text: str, tmp_path: Path
) -> None:
    (tmp_path / "compose.yml").write_text(text)
    for name in re.findall(r"file: (?:\./)?([\w.]+)", text):
        (tmp_path / name).touch()
    loaded = load([tmp_path / "compose.yml"], environment={})
    assert loaded.project.services
    assert "x-mesh" not in text or not loaded.warnings, page


def test_every_page_about_another_system_has_a_file_of_meshd() -> None:
    pages = {page for page, *_ in files() if page.startswith("coming-from/")}
    assert pages == {page for page in PAGES if page.startswith("coming-from/")}
