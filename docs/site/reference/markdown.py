"""Pieces of Markdown that the generated pages share. Pure."""

from collections.abc import Iterable, Sequence


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table; a cell may contain any text on one line."""
    lines = [f"| {' | '.join(headings)} |", f"|{' --- |' * len(headings)}"]
    for row in rows:
        cells = (" ".join(cell.split()).replace("|", "\\|") for cell in row)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def code(text: str) -> str:
    """Return text as code; an empty one as a dash."""
    return f"`{text}`" if text else "–"


def sentence(text: str) -> str:
    """Return text with a capital letter at the start and a full stop at the end."""
    line = " ".join(text.split())
    first = line[:1] if line.startswith("`") else line[:1].upper()
    return f"{first}{line[1:]}" + ("" if line.endswith((".", ":")) or not line else ".")
