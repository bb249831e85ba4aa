"""Every link of the documents leads to a file that exists, and to a heading that it has."""

import re
from pathlib import Path

import pytest

from tests.architecture.source import ROOT, tracked

PAGES = [path for path in tracked() if path.suffix == ".md"]
CODE = re.compile(r"^(```|~~~).*?^\1|^(?: {4}|\t).*?$|`[^`\n]*`", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#{1,6} +(.*?) *$", re.MULTILINE)
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def anchors(text: str) -> set[str]:
    """Return the anchors of a page's headings, as GitHub and the site make them."""
    found: set[str] = set()
    for heading in HEADING.findall(FENCE.sub("", text)):
        plain = LINK.sub("]", heading).replace("[", "").replace("]", "")
        slug = re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
        number = next(n for n in range(1000) if (f"{slug}-{n}" if n else slug) not in found)
        found.add(f"{slug}-{number}" if number else slug)
    return found


def broken(page: Path, text: str) -> list[str]:
    """Return the links of a page that lead nowhere."""
    found = []
    for target in LINK.findall(CODE.sub("", text)):
        name, _, anchor = target.partition("#")
        if "://" in name or name.startswith("mailto:"):
            continue
        place = page.parent / name
        if name and not place.exists():
            found.append(f"{target}: no such file")
        elif anchor and anchor not in anchors(place.read_text() if name else text):
            found.append(f"{target}: no such heading")
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_to_a_heading_that_exists(page: Path) -> None:
    assert not broken(page, page.read_text())


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("# A b: `c`\n[x](#a-b-c)", 0),
        ("# A\n# A\n[x](#a-1) [y](#a-2)", 1),
        ("[x](no-such-file.md)", 1),
        ("[x](README.md#no-such-heading)", 1),
        ("[x](https://example.com/#y) `[x](no)`\n```\n[x](no)\n# y\n```\n", 0),
    ],
)
def test_broken_links_are_found(text: str, count: int) -> None:
    assert len(broken(ROOT / "a-page.md", text)) == count
