"""What commands print: tables for people, plain columns for pipes, JSON for programs."""

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any, Final, TypeVar

import click
import msgspec
from rich import box
from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

OK: Final = 0
FAILED: Final = 1
USAGE: Final = 2
NO_DAEMON: Final = 3
LEAST_LAST: Final = 24
BETWEEN: Final = 3
"""Columns of a terminal: what the last column needs at least, and what a drawn one adds."""
C = TypeVar("C", bound=Callable[..., Any])

GOOD_WORDS: Final = frozenset({"ok", "ready", "running", "done"})
BAD_WORDS: Final = frozenset({"failed", "unhealthy", "crash-loop", "lost", "degraded"})


def output_option(command: C) -> C:
    """`-o json`, as `as_json`."""
    return click.option(
        "-o",
        "--output",
        "as_json",
        type=click.Choice(["table", "json"]),
        default="table",
        callback=lambda _context, _option, value: value == "json",
        help="Print a table (default), or JSON for programs.",
    )(command)


def on_terminal() -> bool:
    """Whether standard output is read by a person."""
    return sys.stdout.isatty()


def console() -> Console:
    """Where tables and live displays are drawn."""
    return Console(highlight=False, soft_wrap=False)


def say(line: str) -> None:
    """One line on standard output, at once."""
    click.echo(line)


def complain(text: str) -> None:
    """An error or a warning, on standard error."""
    click.echo(text, err=True)


def print_json(value: object) -> None:
    """One JSON document, indented."""
    plain = msgspec.to_builtins(value)
    click.echo(json.dumps(plain, indent=2, ensure_ascii=False))


def print_json_line(value: object) -> None:
    """One JSON document on one line, for streams."""
    click.echo(msgspec.json.encode(value).decode())


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A drawn table on a terminal that is wide enough; elsewhere columns two blanks apart,
    nothing cut off."""
    listed = [list(row) for row in rows]
    if on_terminal():
        screen = console()
        if fits(columns, listed, screen.width):
            screen.print(drawn_table(columns, listed))
            return
    for line in plain_table(columns, listed):
        click.echo(line)


def plain_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Aligned lines, the header first; an empty cell shows as `-`, so that fields count."""
    lines = [[column.upper().replace(" ", "_") for column in columns]]
    lines += [[cell or "-" for cell in row] for row in rows]
    widths = [max(len(line[place]) for line in lines) for place in range(len(columns))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]


def fits(columns: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> bool:
    """Whether a terminal that wide has room for every column but the last as it is, and for
    enough of the last one to read on in further lines."""
    lines = [columns, *rows]
    widest = [max(cell_len(line[place]) for line in lines) for place in range(len(columns))]
    last = min(widest.pop(), LEAST_LAST)
    return sum(widest) + last + BETWEEN * len(columns) <= width


def live_table(columns: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> RenderableType:
    """What is drawn again and again: on a narrow terminal its lines are cut at the edge."""
    if fits(columns, rows, width):
        return drawn_table(columns, rows)
    return Text("\n".join(plain_table(columns, rows)), no_wrap=True, overflow="ellipsis")


def drawn_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """The same for a terminal, with colour for good and bad words. Only the last column is
    folded: it is the one of many words."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for place, column in enumerate(columns, 1):
        table.add_column(column, overflow="fold", no_wrap=place < len(columns))
    for row in rows:
        table.add_row(*(Text(cell, style=_style(cell)) for cell in row))
    return table


def _style(cell: str) -> str:
    word = cell.partition(" ")[0].rstrip(":,")
    if word in GOOD_WORDS:
        return "green"
    return "red" if word in BAD_WORDS else ""


def seconds(value: float | None) -> str:
    """A latency or a span as people read it: `4.2 ms`, `1.50 s`, `3 m 20 s`."""
    if value is None:
        return ""
    if value < 1.0:
        return f"{value * 1000:.3g} ms"
    if value < 60.0:
        return f"{value:.3g} s"
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} m" if hours else f"{minutes} m {rest} s"


def size(value: int | None) -> str:
    """Bytes as people read them."""
    if value is None:
        return ""
    amount = float(value)
    for unit in ("B", "KiB", "MiB"):
        if amount < 1024:
            return f"{amount:.3g} {unit}"
        amount /= 1024
    return f"{amount:.3g} GiB"


def clock(at: float) -> str:
    """Local time of day; with the date when it was not today."""
    when = datetime.fromtimestamp(at).astimezone()
    today = datetime.now().astimezone().date() == when.date()
    return when.strftime("%H:%M:%S" if today else "%Y-%m-%d %H:%M:%S")
