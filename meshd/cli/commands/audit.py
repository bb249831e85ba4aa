"""`meshd audit`: show who changed what."""

from pathlib import Path

import click

from meshd.api.limits import MAX_EVENTS
from meshd.cli import output
from meshd.cli.options import output_option, state_option, tail_option
from meshd.cli.session import connect, run_async
from meshd.model.access import AuditEntry

COLUMNS = ("time", "who", "role", "from", "request", "status", "detail")


@click.command("audit", short_help="Show who changed what.")
@tail_option(50, MAX_EVENTS, "Number of entries to show.")
@output_option
@state_option
@run_async
async def command(tail: int, as_json: bool, state: Path) -> int:
    """Show the requests that changed something or tried to, oldest first.

    The daemon keeps the last 10,000, those of commands on its own machine included.
    """
    async with connect(state) as client:
        found = list(reversed(await client.audit(tail)))
    if as_json:
        output.print_json(found)
    else:
        output.print_table(COLUMNS, [entry_row(entry) for entry in found])
    return output.OK


def entry_row(entry: AuditEntry) -> list[str]:
    """Return an entry as a row of the table."""
    return [
        output.format_time(entry.at),
        entry.who,
        entry.role,
        entry.source,
        f"{entry.method} {entry.path}",
        str(entry.status),
        entry.detail,
    ]
