"""Draw progress bars on a terminal, one line each.

Used by `deploy_progress` and `image_progress`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

BAR_COLUMNS: Final = 20
"""Terminal columns of a bar: the text after it keeps 50 of the usual 80."""


@dataclass(frozen=True, slots=True)
class Bar:
    """One line: a name, a bar that is full at `done` = `total`, and a text. A `total` of 0 is not
    known: the bar only shows that something is under way."""

    name: str
    done: float
    total: float
    text: str
    complete: bool = False


def draw_bars(bars: Sequence[Bar]) -> Table:
    """Return the lines, aligned; a text that does not fit is cut at the edge of the terminal."""
    grid = Table.grid(padding=(0, 1))
    grid.add_column(no_wrap=True)
    grid.add_column(no_wrap=True)
    grid.add_column(width=BAR_COLUMNS)
    grid.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
    for bar in bars:
        mark = Text(" ✓", style="green") if bar.complete else Text(" ·", style="yellow")
        drawn = ProgressBar(
            total=bar.total or None,
            completed=min(bar.done, bar.total or bar.done),
            width=BAR_COLUMNS,
            complete_style="cyan",
            finished_style="green",
        )
        grid.add_row(mark, Text(bar.name), drawn, Text(bar.text))
    return grid
