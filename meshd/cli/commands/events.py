"""`meshd events`: show what happened, and why."""

from pathlib import Path

import click

from meshd.cli import follow as following
from meshd.cli import output, tables
from meshd.cli.options import (
    follow_option,
    output_option,
    service_argument,
    state_option,
    tail_option,
)
from meshd.cli.session import connect, find_service, run_async
from meshd.model.event import Event


@click.command("events", short_help="Show what happened, and why.")
@service_argument(required=False)
@follow_option("Show new events until Ctrl-C.")
@tail_option(50, 10_000, "Number of past events to show.", minimum=0)
@click.option(
    "--kind",
    "kinds",
    multiple=True,
    metavar="KIND",
    help="Only events of this kind, e.g. replica.died, or scale for all scale.* events.",
)
@output_option
@state_option
@run_async
async def command(
    service: str | None,
    follow: bool,
    tail: int,
    kinds: tuple[str, ...],
    as_json: bool,
    state: Path,
) -> int:
    """Show events, oldest first: of SERVICE, or of everything."""
    async with connect(state) as client:
        past, last = await client.last_events(tail, lambda event: matches(event, service, kinds))
        if service and not (past or follow or as_json):
            # A removed service still has events. This name has none, so it may be misspelt.
            find_service(await client.status(), service)
        if not follow:
            if as_json:
                output.print_json(past)
            else:
                output.print_table(tables.EVENT_COLUMNS, map(tables.event_row, past))
            return output.OK
        for event in past:
            _print(event, as_json)
        async for event in following.events(client, last):
            if matches(event, service, kinds):
                _print(event, as_json)
    return output.OK


def matches(event: Event, service: str | None, kinds: tuple[str, ...]) -> bool:
    """Whether an event is about the service (`SERVICE` or `PROJECT/SERVICE`; None: any) and of one
    of the kinds (empty: any). `scale` includes all `scale.*`."""
    if service and service not in (event.service, f"{event.project}/{event.service}"):
        return False
    return not kinds or any(event.kind == k or event.kind.startswith(k + ".") for k in kinds)


def _print(event: Event, as_json: bool) -> None:
    if as_json:
        output.print_json_line(event)
    else:
        output.print_line(tables.event_line(event))
