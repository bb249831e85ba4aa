"""`meshd top`: what runs, as it changes."""

import asyncio
from pathlib import Path

import click
from rich.console import Group
from rich.live import Live
from rich.text import Text

from meshd.api.client import Client
from meshd.api.dto import Status
from meshd.cli import output, tables
from meshd.cli.session import connect, duration, state_option, talks


@click.command("top", short_help="Watch services live.")
@click.option(
    "--interval", type=duration, default="1s", metavar="TIME", help="Between two looks; default 1s."
)
@output.output_option
@state_option
@talks
async def command(interval: float, as_json: bool, state: Path) -> int:
    """Watch services live until Ctrl-C. Without a terminal: one look, as `ps`."""
    async with connect(state) as client:
        status = await client.status()
        if as_json:
            output.print_json(status)
        elif not output.on_terminal():
            output.print_table(tables.SERVICE_COLUMNS, tables.service_rows(status.services))
        else:
            await _watch(client, status, max(interval, 0.1))
    return output.OK


async def _watch(client: Client, status: Status, interval: float) -> None:
    try:
        screen = output.console()
        with Live(_picture(status, screen.width), console=screen, screen=True) as live:
            while True:
                await asyncio.sleep(interval)
                live.update(_picture(await client.status(), screen.width))
    except asyncio.CancelledError:
        return  # Ctrl-C is how one leaves, not an error


def _picture(status: Status, width: int) -> Group:
    rows = tables.service_rows(status.services)
    return Group(
        Text(tables.headline(status), style="dim"),
        output.live_table(tables.SERVICE_COLUMNS, rows, width),
    )
