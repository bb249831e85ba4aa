"""The pages as the site has them: links, diagrams, the first page, nothing from outside."""

import re
from pathlib import Path

import pytest

from docs.site import stage
from docs.site.outside import find_outside_resources

DOCS = stage.DOCS


@pytest.mark.parametrize(
    ("link", "folder", "expected"),
    [
        ("[a](docs/proxy.md#https-tls)", stage.ROOT, "[a](/proxy.md#https-tls)"),
        ("[a](proxy.md)", DOCS, "[a](/proxy.md)"),
        ("[a](../proxy.md)", DOCS / "coming-from", "[a](/proxy.md)"),
        ("[a](../README.md)", DOCS, "[a](/getting-started.md)"),
        ("[a](../CHANGELOG.md)", DOCS, "[a](/changelog.md)"),
        ("[a](openapi.json)", DOCS, "[a](/openapi.json)"),
        ("[deploy/](../deploy)", DOCS, "`deploy/`"),
        ("[a](#b)", DOCS, "[a](#b)"),
        ("[a](https://example.com/)", DOCS, "[a](https://example.com/)"),
    ],
)
def test_links(link: str, folder: Path, expected: str) -> None:
    assert stage.adapt(link, folder) == expected


def test_a_state_diagram_becomes_a_table() -> None:
    diagram = "```mermaid\nstateDiagram-v2\n    [*] --> a\n    a --> b\n    b --> [*]\n```"
    assert stage.adapt(diagram, DOCS).splitlines()[2:] == [
        "| `a` (first) | `b` |",
        "| `b` | – (final) |",
    ]


def test_the_staged_pages(tmp_path: Path) -> None:
    folder = tmp_path / "pages"
    stage.stage(folder)
    written = {path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.md")}
    assert written == stage.page_names() | {"index"}
    first = (folder / "index.md").read_text()
    assert first.startswith("# meshd\n\nmeshd runs a Compose application")
    assert "](/compose.md)" in first
    start = (folder / "getting-started.md").read_text()
    assert "meshd deploy" in start
    assert "## Documentation" not in start
    for path in folder.rglob("*.md"):
        assert "```mermaid" not in path.read_text(), path
        for link in re.findall(r"\]\((/[^)#]+)", path.read_text()):
            assert (folder / link[1:]).is_file(), (path, link)


def test_resources_from_outside_are_found(tmp_path: Path) -> None:
    (tmp_path / "a.css").write_text("@import url(//fonts.example.com/a.css); a {color: red}")
    (tmp_path / "a.html").write_text(
        '<a href="https://example.com/">fine</a><script src="_static/a.js"></script>'
        '<script src="https://cdn.example.com/a.js"></script><link href="//b.example.com/b.css">'
    )
    assert find_outside_resources(tmp_path) == [
        "a.css: //fonts.example.com/a.css",
        "a.html: //b.example.com/b.css",
        "a.html: https://cdn.example.com/a.js",
    ]
