"""`meshd top`: watch services live."""

import asyncio
from pathlib import Path

import click
from rich.console import Group
from rich.live import Live
from rich.text import Text

from meshd.api.client import Client
from meshd.api.dto import Status
from meshd.cli import output, tables
from meshd.cli.options import DURATION, TIMESTAMP, output_option, state_option
from meshd.cli.session import connect, run_async
from meshd.model.errors import NotFound

MIN_INTERVAL = 0.1
"""Seconds; a shorter interval would only burn CPU."""


@click.command("top", short_help="Watch services live.")
@click.option(
    "--interval", type=DURATION, default="1s", show_default=True, help="Time between two updates."
)
@click.option(
    "--at",
    type=TIMESTAMP,
    help="Show the services at this time of the last 24 hours instead: 14:30, or 10m (ago).",
)
@output_option
@state_option
@run_async
async def command(interval: float, at: float | None, as_json: bool, state: Path) -> int:
    """Watch services live until Ctrl-C. If the output is not a terminal, print them once.

    With --at show how they were: each second of the last ten minutes is kept, each ten seconds of
    the last two hours, and each minute of the last day.
    """
    async with connect(state) as client:
        if at is not None:
            found = await client.history_at(at)
            if as_json:
                output.print_json(found)
                return output.OK
            if not found.services:
                raise NotFound(f"nothing is known about {output.format_time(at)}")
            output.print_table(tables.THEN_COLUMNS, tables.then_rows(found))
            return output.OK
        status = await client.status()
        if as_json:
            output.print_json(status)
        elif not output.on_terminal():
            output.print_table(tables.SERVICE_COLUMNS, tables.service_rows(status.services))
        else:
            await _watch(client, status, max(interval, MIN_INTERVAL))
    return output.OK


async def _watch(client: Client, status: Status, interval: float) -> None:
    try:
        screen = output.console()
        with Live(_render(status, screen.width), console=screen, screen=True) as live:
            while True:
                await asyncio.sleep(interval)
                live.update(_render(await client.status(), screen.width))
    except asyncio.CancelledError:
        return  # Ctrl-C ends the display; it is not an error.


def _render(status: Status, width: int) -> Group:
    rows = tables.service_rows(status.services)
    return Group(
        Text(tables.daemon_line(status), style="dim"),
        output.live_table(tables.SERVICE_COLUMNS, rows, width),
    )
