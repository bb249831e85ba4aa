"""`meshd logs`: show the output of a service's replicas."""

from itertools import cycle
from pathlib import Path

import click

from meshd.api.dto import LogLine
from meshd.cli import follow as following
from meshd.cli import output
from meshd.cli.options import (
    follow_option,
    output_option,
    service_argument,
    state_option,
    tail_option,
)
from meshd.cli.session import connect, find_service, run_async

_COLOURS = ("cyan", "yellow", "green", "magenta", "blue", "bright_cyan", "bright_yellow")


@click.command("logs", short_help="Show the output of replicas.")
@service_argument()
@follow_option("Show new lines until Ctrl-C, also of new replicas.")
@tail_option(100, 100_000, "Number of past lines per replica.", minimum=0)
@output_option
@state_option
@run_async
async def command(service: str, follow: bool, tail: int, as_json: bool, state: Path) -> int:
    """Show the output of the replicas of SERVICE, each line with the name of its replica."""
    printer = _Printer(as_json)
    async with connect(state) as client:
        found = find_service(await client.status(), service)
        if not follow:
            for line in await client.logs(found.project, found.name, tail):
                printer.print(line)
            return output.OK
        async for line in following.logs(client, found.project, found.name, tail):
            printer.print(line)
    return output.OK


class _Printer:
    """Prints log lines, with one colour per replica on a terminal."""

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json
        self._next_colour = cycle(_COLOURS)
        self._colours: dict[str, str] = {}

    def print(self, line: LogLine) -> None:
        if self._as_json:
            output.print_json_line(line)
            return
        if line.replica not in self._colours:
            self._colours[line.replica] = next(self._next_colour)
        name = click.style(f"{line.replica} |", fg=self._colours[line.replica])
        click.echo(f"{name} {line.line}")
