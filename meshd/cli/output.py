"""Print results: tables on a terminal, plain columns in a pipe, JSON for programs.

Used by all commands. `tables` builds the rows of services, replicas and events.
"""

import io
import json
import os
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final

import click
import msgspec
from rich import box
from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

# Exit codes, see the epilog of `meshd --help`. 2 is the code of click for invalid usage.
OK: Final = 0
FAILED: Final = 1
USAGE: Final = 2
NO_DAEMON: Final = 3
MIN_LAST_COLUMN: Final = 24
"""Terminal columns below which the folded last column of a table becomes unreadable."""
COLUMN_GAP: Final = 3
"""Terminal columns that rich adds per table column: padding and separator."""

_FORMAT: Final = "meshd.cli.output.format"
"""Key of the output format in the meta data of a click context."""
_YAML_WIDTH: Final = 1 << 16
"""Columns after which a text is folded: never, because tools read it by lines."""
GOOD_WORDS: Final = frozenset({"ok", "ready", "running", "done"})
BAD_WORDS: Final = frozenset({"failed", "unhealthy", "crash-loop", "lost", "degraded"})


def on_terminal() -> bool:
    """Whether standard output is a terminal."""
    return sys.stdout.isatty()


def console() -> Console:
    """Return a console for tables and live displays."""
    return Console(highlight=False, soft_wrap=False)


def print_line(line: str) -> None:
    """Print one line to standard output, unbuffered."""
    click.echo(line)


def print_error(text: str) -> None:
    """Print an error or a warning to standard error."""
    click.echo(text, err=True)


def choose_format(name: str) -> None:
    """Choose the format of the output for the command that runs: `table`, `wide`, `json` or
    `yaml`. The last two are those of `print_json` and `print_json_line`."""
    context = click.get_current_context(silent=True)
    if context is not None:
        context.meta[_FORMAT] = name


def is_wide() -> bool:
    """Whether a table with more columns is asked for."""
    return _format() == "wide"


def _prints_yaml() -> bool:
    return _format() == "yaml"


def _format() -> object:
    context = click.get_current_context(silent=True)
    return None if context is None else context.meta.get(_FORMAT)


def print_json(value: object) -> None:
    """Print one JSON document, indented; or one YAML document, if `choose_format` says so."""
    plain = msgspec.to_builtins(value)
    if _prints_yaml():
        click.echo(_format_yaml(plain), nl=False)
    else:
        click.echo(json.dumps(plain, indent=2, ensure_ascii=False))


def print_json_line(value: object) -> None:
    """Print one JSON document on one line, for streams; or one YAML document and its end."""
    if _prints_yaml():
        click.echo("---\n" + _format_yaml(msgspec.to_builtins(value)), nl=False)
    else:
        click.echo(msgspec.json.encode(value).decode())


def _format_yaml(plain: object) -> str:
    from ruamel.yaml import YAML

    text = io.StringIO()
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.allow_unicode = True
    yaml.width = _YAML_WIDTH
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.dump(plain, text)
    return text.getvalue()


def disable_colours() -> None:
    """Print no colours, as NO_COLOR asks for (https://no-color.org); rich follows it by itself."""
    context = click.get_current_context(silent=True)
    if context is not None and os.environ.get("NO_COLOR"):
        context.color = False


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a drawn table if standard output is a terminal that is wide enough, otherwise columns
    separated by two spaces, with nothing cut off."""
    listed = [list(row) for row in rows]
    if on_terminal():
        screen = console()
        if fits(columns, listed, screen.width):
            screen.print(drawn_table(columns, listed))
            return
    for line in plain_table(columns, listed):
        click.echo(line)


def plain_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return aligned lines, the header first. An empty cell becomes `-`, so that tools such as awk
    can count fields."""
    lines = [[column.upper().replace(" ", "_") for column in columns]]
    lines += [[cell or "-" for cell in row] for row in rows]
    widths = [max(len(line[index]) for line in lines) for index in range(len(columns))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]


def fits(columns: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> bool:
    """Whether a drawn table fits `width` terminal columns: all columns but the last unfolded, and
    enough space for the last one to be folded."""
    lines = [columns, *rows]
    widths = [max(cell_len(line[index]) for line in lines) for index in range(len(columns))]
    last = min(widths.pop(), MIN_LAST_COLUMN)
    return sum(widths) + last + COLUMN_GAP * len(columns) <= width


def live_table(columns: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> RenderableType:
    """Return a table for a live display; on a narrow terminal its lines are cut at the edge."""
    if fits(columns, rows, width):
        return drawn_table(columns, rows)
    return Text("\n".join(plain_table(columns, rows)), no_wrap=True, overflow="ellipsis")


def drawn_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """Return a table for a terminal, with colours for good and bad states. Only the last column,
    which holds text, is folded."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for number, column in enumerate(columns, 1):
        table.add_column(column, overflow="fold", no_wrap=number < len(columns))
    for row in rows:
        table.add_row(*(Text(cell, style=_style(cell)) for cell in row))
    return table


def _style(cell: str) -> str:
    word = cell.partition(" ")[0].rstrip(":,")
    if word in GOOD_WORDS:
        return "green"
    return "red" if word in BAD_WORDS else ""


def format_seconds(value: float | None) -> str:
    """Return a latency or duration for people: `4.2 ms`, `1.5 s`, `3 m 20 s`; empty for None."""
    if value is None:
        return ""
    if value < 1.0:
        return f"{value * 1000:.3g} ms"
    if value < 60.0:
        return f"{value:.3g} s"
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} m" if hours else f"{minutes} m {rest} s"


def format_bytes(value: int | None) -> str:
    """Return a size for people: `512 B`, `50 MiB`; empty for None."""
    if value is None:
        return ""
    amount = float(value)
    for unit in ("B", "KiB", "MiB"):
        if amount < 1024:
            return f"{amount:.3g} {unit}"
        amount /= 1024
    return f"{amount:.3g} GiB"


def format_time(at: float) -> str:
    """Return the local time of day of a Unix time, with the date unless it is today."""
    when = datetime.fromtimestamp(at).astimezone()
    today = datetime.now().astimezone().date() == when.date()
    return when.strftime("%H:%M:%S" if today else "%Y-%m-%d %H:%M:%S")
