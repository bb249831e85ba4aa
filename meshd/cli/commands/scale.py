"""`meshd scale`: set the number of replicas by hand."""

from pathlib import Path

import click

from meshd.cli import output
from meshd.cli.options import (
    POSITIVE_DURATION,
    output_option,
    service_argument,
    state_option,
)
from meshd.cli.session import connect, find_service, run_async

AUTO = "auto"


def parse_count(text: str) -> str:
    """Return a number of replicas, or `auto`, unchanged. Raises click.BadParameter."""
    if text != AUTO and not text.isdecimal():
        raise click.BadParameter(f"{text!r} is not valid; expected a number of replicas, or auto")
    return text


@click.command("scale", short_help="Set the number of replicas by hand.")
@service_argument()
@click.argument("replicas", type=parse_count, metavar="N|auto")
@click.option(
    "--for",
    "seconds",
    type=POSITIVE_DURATION,
    help="Go back to the autoscaler after this time, e.g. 10m or 1h30m. Default: never.",
)
@output_option
@state_option
@run_async
async def command(
    service: str, replicas: str, seconds: float | None, as_json: bool, state: Path
) -> int:
    """Run N replicas of SERVICE whatever the load; auto goes back to the autoscaler."""
    count = None if replicas == AUTO else int(replicas)
    if count is None and seconds is not None:
        raise click.UsageError("--for needs a number of replicas, not auto")
    async with connect(state) as client:
        found = find_service(await client.status(), service)
        result = await client.scale(found.project, found.name, count, seconds or 0.0)
        now = find_service(await client.status(), f"{found.project}/{found.name}")
    if as_json:
        output.print_json(now)
    elif count is None:
        output.print_line(f"{found.name}: controlled by the autoscaler again")
    else:
        duration = f" for {output.format_seconds(seconds)}" if seconds else ""
        until = duration or f", until `meshd scale {service} auto`"
        output.print_line(f"{found.name}: set to {count} by hand{until}")
        if count > found.maximum:
            output.print_error(
                f"warning: {count} is above the maximum of {found.maximum}, which holds for the "
                "autoscaler only"
            )
        elif count < found.minimum:
            output.print_error(
                f"warning: {count} is below the minimum of {found.minimum}, which holds for the "
                "autoscaler only"
            )
        if result.shortage:
            output.print_error(
                f"warning: {result.shortage}; a number set by hand is started nevertheless"
            )
    return output.OK
