"""`meshd scale`: a number of replicas by hand."""

from pathlib import Path

import click

from meshd.cli import output
from meshd.cli.session import (
    complete_service,
    connect,
    duration,
    find_service,
    state_option,
    talks,
)


def number(text: str) -> str:
    """A number of replicas, or `auto`. Raises click.BadParameter."""
    if text != "auto" and not text.isdecimal():
        raise click.BadParameter(f"{text!r} is neither a number of replicas nor auto")
    return text


@click.command("scale", short_help="Set the number of replicas by hand.")
@click.argument("service", shell_complete=complete_service)
@click.argument("replicas", type=number, metavar="N|auto")
@click.option("--for", "span", type=duration, default="0", metavar="TIME",
              help="Take it back after 10m, 1h30m, …; otherwise it stays.")  # fmt: skip
@output.output_option
@state_option
@talks
async def command(service: str, replicas: str, span: float, as_json: bool, state: Path) -> int:
    """Run N replicas of SERVICE whatever the load, or let the autoscaler decide again."""
    count = None if replicas == "auto" else int(replicas)
    async with connect(state) as client:
        found = find_service(await client.status(), service)
        await client.scale(found.project, found.name, count, span)
        now = find_service(await client.status(), f"{found.project}/{found.name}")
    if as_json:
        output.print_json(now)
    elif count is None:
        output.say(f"{found.name}: the autoscaler decides again")
    else:
        until = f" for {output.seconds(span)}" if span else f", until `meshd scale {service} auto`"
        output.say(f"{found.name}: {count} by hand{until}")
    return output.OK
