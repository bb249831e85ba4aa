"""Put the pages of the site into one folder, as Sphinx reads them.

`docs.site.build` calls `stage`. Pages are copied from `docs/`; the start page, the changelog and
the reference are made here. The text of a page stays as it is on GitHub, except for links to files
that are not pages and for diagrams, which a reader without scripts sees as tables.
"""

import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from docs.site.navigation import Section, arrange
from docs.site.reference import api, cli, labels, x_mesh

ROOT: Final = Path(__file__).resolve().parents[2]
DOCS: Final = ROOT / "docs"
GENERATED: Final[Mapping[str, Callable[[], str]]] = {
    "reference/api": api.render,
    "reference/cli": lambda: cli.render({"": ROOT / "README.md", **written_pages()}),
    "reference/labels": labels.render,
    "reference/x-mesh": x_mesh.render,
}
"""Page → the function that returns its text."""
LINK: Final = re.compile(r"\[([^\]]*)\]\(([^)\s]+)\)")
MERMAID: Final = re.compile(r"```mermaid\n(.*?)```", re.DOTALL)
START: Final = "## Five minutes with your own Compose file"
END: Final = "## Documentation"


def written_pages() -> dict[str, Path]:
    """Return the pages that are written by hand or committed, by their path without `.md`."""
    found = {path.relative_to(DOCS).with_suffix("").as_posix(): path for path in DOCS.rglob("*.md")}
    return dict(sorted(found.items()))


def page_names() -> set[str]:
    """Return the names of all pages of the site."""
    return {*written_pages(), *GENERATED, "getting-started", "changelog"}


def stage(folder: Path) -> None:
    """Write all pages and files of the site into a new folder."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    names = page_names()
    for name, path in written_pages().items():
        write(folder, name, adapt(path.read_text(encoding="utf-8"), path.parent))
    for name, render in GENERATED.items():
        write(folder, name, render())
    write(folder, "getting-started", adapt(getting_started(), ROOT))
    write(folder, "changelog", adapt((ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), ROOT))
    write(folder, "index", index(arrange(names)))
    for name in ("openapi.json", "x-mesh.schema.json", *(each.name for each in DOCS.glob("*.png"))):
        shutil.copy(DOCS / name, folder / name)


def write(folder: Path, name: str, text: str) -> None:
    """Write one page."""
    path = folder / f"{name}.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def adapt(text: str, folder: Path) -> str:
    """Return a page as it is in the site. `folder` is where the page's relative links start."""
    return MERMAID.sub(state_table, LINK.sub(lambda found: site_link(found, folder), text))


def site_link(found: "re.Match[str]", folder: Path) -> str:
    """Return a link in the site: of a page of `docs/` as it is there, of another file its name."""
    text, target = found.groups()
    path, mark, anchor = target.partition("#")
    if not path or "://" in path:
        return found[0]
    place = (folder / path).resolve()
    if place == ROOT / "README.md":
        return f"[{text}](/getting-started.md)"
    if place == ROOT / "CHANGELOG.md":
        return f"[{text}](/changelog.md)"
    if place.is_relative_to(DOCS) and place.suffix in (".md", ".json", ".png"):
        return f"[{text}](/{place.relative_to(DOCS).as_posix()}{mark}{anchor})"
    return text if text.startswith("`") else f"`{text}`"


def state_table(found: "re.Match[str]") -> str:
    """Return a state diagram as a table with the states that can follow each state."""
    following: dict[str, list[str]] = {}
    for before, after in re.findall(r"^ *(\S+) --> (\S+)$", found[1], re.MULTILINE):
        following.setdefault(before, []).append(after)
    start = following.pop("[*]")[0]
    lines = ["| state | can become |", "| --- | --- |"]
    for state, states in following.items():
        after = ", ".join(f"`{each}`" for each in states if each != "[*]") or "– (final)"
        lines.append(f"| `{state}`{' (first)' if state == start else ''} | {after} |")
    return "\n".join(lines)


def getting_started() -> str:
    """Return the part of the README that a first-time user follows."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    steps = text[text.index(START) : text.index(END)]
    install = text[text.index("## Try it") : text.index(START)]
    return f"# Getting started\n\n{steps}\n{install}"


def introduction() -> str:
    """Return the first paragraph of the README."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return text.partition("\n")[2].strip().partition("\n\n")[0]


def index(sections: tuple[Section, ...]) -> str:
    """Return the first page: what meshd is, and the contents."""
    lines = ["# meshd", "", introduction(), ""]
    for section in sections:
        lines += [f"## {section.title}", ""]
        for page, text in section.pages.items():
            lines.append(f"- [](/{page}.md){f': {text[0].lower()}{text[1:]}' if text else ''}")
        lines += ["", "```{toctree}", ":hidden:", f":caption: {section.title}", ""]
        lines += [*section.pages, "```", ""]
    return "\n".join(lines)
