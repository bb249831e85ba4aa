"""`meshd events`: what happened, and why."""

from pathlib import Path

import click

from meshd.cli import follow as following
from meshd.cli import output, tables
from meshd.cli.session import complete_service, connect, find_service, state_option, talks
from meshd.model.event import Event


@click.command("events", short_help="Show what happened, and why.")
@click.argument("service", required=False, shell_complete=complete_service)
@click.option("-f", "--follow", is_flag=True, help="Go on until Ctrl-C.")
@click.option("-n", "--tail", type=click.IntRange(0, 10_000), default=50, show_default=True,
              help="How many of the past to begin with.")  # fmt: skip
@click.option("--kind", multiple=True, help="Only these, such as scale or replica.died.")
@output.output_option
@state_option
@talks
async def command(
    service: str | None, follow: bool, tail: int, kind: tuple[str, ...], as_json: bool, state: Path
) -> int:
    """Show what happened (of SERVICE alone, when given), oldest first."""
    async with connect(state) as client:
        shown, last = await client.last_events(tail, lambda event: wanted(event, service, kind))
        if service and not (shown or follow or as_json):
            # One that has gone is known by its events; of this one there are none: a slip?
            find_service(await client.status(), service)
        if not follow:
            if as_json:
                output.print_json(shown)
            else:
                output.print_table(tables.EVENT_COLUMNS, map(tables.event_row, shown))
            return output.OK
        for event in shown:
            _print(event, as_json)
        async for event in following.events(client, last):
            if wanted(event, service, kind):
                _print(event, as_json)
    return output.OK


def wanted(event: Event, service: str | None, kinds: tuple[str, ...]) -> bool:
    """Whether an event is about a service (`SERVICE` or `PROJECT/SERVICE`) and of one of the
    kinds; `scale` stands for every `scale.…`."""
    if service and service not in (event.service, f"{event.project}/{event.service}"):
        return False
    return not kinds or any(event.kind == k or event.kind.startswith(k + ".") for k in kinds)


def _print(event: Event, as_json: bool) -> None:
    if as_json:
        output.print_json_line(event)
    else:
        output.say(tables.event_line(event))
