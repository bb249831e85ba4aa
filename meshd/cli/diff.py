"""`meshd diff`: what deploying would do."""

from pathlib import Path

import click

from meshd.api.client import ApiFailure
from meshd.api.model import NoSuchThing, Refused
from meshd.cli import output, specs
from meshd.cli.planned import planned_json, tell_plan
from meshd.cli.session import connect, state_option, talks


@click.command("diff", short_help="Show what deploying would do.")
@specs.spec_options
@output.output_option
@state_option
@talks
async def command(
    files: tuple[Path, ...],
    project: str | None,
    profiles: tuple[str, ...],
    as_json: bool,
    state: Path,
) -> int:
    """Show what `meshd deploy` would do. Exit code 0: nothing; 1: something; 2: an error."""
    spec = specs.load(files, project, profiles)
    async with connect(state) as client:
        try:
            planned = await client.planned(spec)
        except (Refused, NoSuchThing, ApiFailure) as error:
            output.complain(f"meshd: {error}")
            return output.USAGE
    if as_json:
        output.print_json(planned_json(spec.name, planned))
    else:
        tell_plan(planned)
    return 1 if planned.plan else output.OK
