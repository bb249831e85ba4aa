"""`meshd scale`: a number of replicas by hand."""

from pathlib import Path

import click

from meshd.cli import output
from meshd.cli.session import (
    complete_service,
    connect,
    find_service,
    span,
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
@click.option("--for", "seconds", type=span, default=None, metavar="TIME",
              help="Take it back after 10m, 1h30m, …; otherwise it stays.")  # fmt: skip
@output.output_option
@state_option
@talks
async def command(
    service: str, replicas: str, seconds: float | None, as_json: bool, state: Path
) -> int:
    """Run N replicas of SERVICE whatever the load, or let the autoscaler decide again."""
    count = None if replicas == "auto" else int(replicas)
    if count is None and seconds is not None:
        raise click.UsageError("--for goes with a number of replicas, not with auto")
    async with connect(state) as client:
        found = find_service(await client.status(), service)
        await client.scale(found.project, found.name, count, seconds or 0.0)
        now = find_service(await client.status(), f"{found.project}/{found.name}")
    if as_json:
        output.print_json(now)
    elif count is None:
        output.say(f"{found.name}: the autoscaler decides again")
    else:
        lasts = f" for {output.seconds(seconds)}" if seconds else ""
        until = lasts or f", until `meshd scale {service} auto`"
        output.say(f"{found.name}: {count} by hand{until}")
    return output.OK
