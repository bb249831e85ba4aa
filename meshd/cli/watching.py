"""Show a table that changes, until Ctrl-C.

Used by `ps --watch`. On a terminal the table is drawn again in place; elsewhere it is printed when
it has changed, so that a log keeps every state.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from rich.live import Live

from meshd.cli import output

MIN_INTERVAL: Final = 0.1
"""Seconds; a shorter interval would only burn CPU."""
Table = tuple[Sequence[str], list[list[str]]]
"""Columns and rows."""


async def watch(read: Callable[[], Awaitable[Table]], interval: float) -> None:
    """Show the table that `read` returns, every `interval` seconds, until Ctrl-C."""
    pause = max(interval, MIN_INTERVAL)
    try:
        if output.on_terminal():
            screen = output.console()
            with Live(console=screen, screen=True) as live:
                while True:
                    live.update(output.live_table(*await read(), screen.width))
                    await asyncio.sleep(pause)
        last: Table | None = None
        while True:
            table = await read()
            if table != last:
                if last is not None:
                    output.print_line("")
                output.print_table(*table)
                last = table
            await asyncio.sleep(pause)
    except asyncio.CancelledError:
        return  # Ctrl-C ends the display; it is not an error.
