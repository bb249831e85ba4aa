"""`meshd diff`: what deploying would do."""

from pathlib import Path

import click

from meshd.api.client import ApiFailure
from meshd.cli import output, spec_options
from meshd.cli.plan_output import planned_json, tell_plan
from meshd.cli.session import connect, state_option, talks
from meshd.model.errors import NotFound, Rejected


@click.command("diff", short_help="Show what deploying would do.")
@spec_options.spec_options
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
    spec = spec_options.load(files, project, profiles)
    async with connect(state) as client:
        try:
            planned = await client.plan(spec)
        except (Rejected, NotFound, ApiFailure) as error:
            output.complain(f"meshd: {error}")
            return output.USAGE
    if as_json:
        output.print_json(planned_json(spec.name, planned))
    else:
        tell_plan(planned)
    return 1 if planned.plan else output.OK
