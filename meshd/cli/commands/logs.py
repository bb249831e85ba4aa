"""`meshd logs`: show the output of a service's replicas."""

import re
import zlib
from datetime import datetime
from pathlib import Path

import click

from meshd.api.dto import LogLine
from meshd.cli import follow as following
from meshd.cli import output
from meshd.cli.options import (
    TIMESTAMP,
    follow_option,
    output_option,
    service_argument,
    state_option,
    tail_option,
)
from meshd.cli.session import complete_replica, connect, find_service, run_async
from meshd.model.output import OutputQuery

_COLOURS = ("cyan", "yellow", "green", "magenta", "blue", "bright_cyan", "bright_yellow")


def parse_pattern(text: str) -> re.Pattern[str]:
    """Return a regular expression, which ignores the case unless it has a capital letter. Raises
    click.BadParameter."""
    try:
        return re.compile(text, 0 if text != text.lower() else re.IGNORECASE)
    except re.error as error:
        raise click.BadParameter(f"{text!r} is not a valid regular expression: {error}") from error


@click.command("logs", short_help="Show the output of replicas.")
@service_argument()
@follow_option("Show new lines until Ctrl-C, also of new replicas.")
@tail_option(100, 100_000, "Number of past lines per replica.", minimum=0)
@click.option("--previous", is_flag=True, help="Replicas that have ended and were removed.")
@click.option(
    "--replica",
    metavar="NAME",
    default="",
    shell_complete=complete_replica,
    help="Only this replica.",
)
@click.option("--since", type=TIMESTAMP, metavar="TIME", help="Lines written after that time.")
@click.option("--until", type=TIMESTAMP, metavar="TIME", help="Lines written before that time.")
@click.option(
    "--grep",
    "pattern",
    type=parse_pattern,
    metavar="REGEX",
    help="Of the lines that are asked for, only those that match. Without a capital letter in it "
    "the case does not matter.",
)
@click.option("-t", "--timestamps", is_flag=True, help="Show when each line was written.")
@output_option
@state_option
@run_async
async def command(
    service: str,
    follow: bool,
    tail: int,
    previous: bool,
    replica: str,
    since: float | None,
    until: float | None,
    pattern: re.Pattern[str] | None,
    timestamps: bool,
    as_json: bool,
    state: Path,
) -> int:
    """Show the output of the replicas of SERVICE, each line with the name of its replica.

    TIME is e.g. 10m (ago), 14:30 or 2026-05-01T14:30. The output of the last 20 replicas of each
    service that ended is kept for --previous, up to 5,000 lines and 1 MiB of each. Each replica has
    a colour, the same in every terminal.
    """
    if follow and (previous or until):
        raise click.UsageError("--follow goes with neither --previous nor --until")
    query = OutputQuery(tail, since or 0.0, until or 0.0, replica, previous)
    printer = _Printer(as_json, timestamps, pattern)
    async with connect(state) as client:
        found = find_service(await client.status(), service)
        if not follow:
            for line in await client.logs(found.project, found.name, query):
                printer.print(line)
            return output.OK
        async for line in following.logs(client, found.project, found.name, query):
            printer.print(line)
    return output.OK


class _Printer:
    """Prints log lines, with one colour per replica on a terminal. `timestamps`: with the local
    time of each. `pattern`: only matching ones."""

    def __init__(
        self, as_json: bool, timestamps: bool, pattern: re.Pattern[str] | None = None
    ) -> None:
        self._as_json = as_json
        self._timestamps = timestamps
        self._pattern = pattern

    def print(self, line: LogLine) -> None:
        if self._pattern is not None and not self._pattern.search(line.line):
            return
        if self._as_json:
            output.print_json_line(line)
            return
        name = click.style(f"{line.replica} |", fg=colour_of(line.replica))
        at = f"{_format_time(line.at)} " if self._timestamps else ""
        click.echo(f"{name} {at}{self._mark(line.line)}")

    def _mark(self, text: str) -> str:
        """Return a line with its matches in bold, for a terminal."""
        if self._pattern is None:
            return text
        return self._pattern.sub(
            lambda found: click.style(found[0], bold=True) if found[0] else "", text
        )


def colour_of(replica: str) -> str:
    """Return the colour of a replica: always the same one, also in another terminal."""
    return _COLOURS[zlib.crc32(replica.encode()) % len(_COLOURS)]


def _format_time(at: float) -> str:
    """Return a local time with milliseconds, as wide as an unknown one."""
    if not at:
        return "-" * 23
    return datetime.fromtimestamp(at).astimezone().strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
