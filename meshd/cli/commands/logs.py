"""`meshd logs`: what replicas wrote."""

from itertools import cycle
from pathlib import Path

import click

from meshd.api.dto import LogLine
from meshd.cli import follow as following
from meshd.cli import output
from meshd.cli.session import complete_service, connect, find_service, state_option, talks

_COLOURS = ("cyan", "yellow", "green", "magenta", "blue", "bright_cyan", "bright_yellow")


@click.command("logs", short_help="Show what replicas wrote.")
@click.argument("service", shell_complete=complete_service)
@click.option("-f", "--follow", is_flag=True, help="Go on until Ctrl-C, new replicas included.")
@click.option("-n", "--tail", type=click.IntRange(0, 100_000), default=100, show_default=True,
              help="Lines of each replica to begin with.")  # fmt: skip
@output.output_option
@state_option
@talks
async def command(service: str, follow: bool, tail: int, as_json: bool, state: Path) -> int:
    """Show what the replicas of SERVICE wrote, each line after its replica's name."""
    shown = _Printer(as_json)
    async with connect(state) as client:
        found = find_service(await client.status(), service)
        if not follow:
            for line in await client.logs(found.project, found.name, tail):
                shown.print(line)
            return output.OK
        async for line in following.logs(client, found.project, found.name, tail):
            shown.print(line)
    return output.OK


class _Printer:
    """One colour a replica, where colours can be seen."""

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json
        self._left = cycle(_COLOURS)
        self._colours: dict[str, str] = {}

    def print(self, line: LogLine) -> None:
        if self._as_json:
            output.print_json_line(line)
            return
        if line.replica not in self._colours:
            self._colours[line.replica] = next(self._left)
        name = click.style(f"{line.replica} |", fg=self._colours[line.replica])
        click.echo(f"{name} {line.line}")
