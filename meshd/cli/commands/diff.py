"""`meshd diff`: show what a deployment would do."""

from pathlib import Path

import click

from meshd.api.client import ApiFailure
from meshd.cli import output, spec_options
from meshd.cli.options import output_option, state_option
from meshd.cli.plan_output import plan_json, print_plan
from meshd.cli.session import connect, run_async
from meshd.model.errors import NotFound, Rejected

CHANGES = 1
"""Exit code if a deployment would do something, as with diff(1)."""


@click.command("diff", short_help="Show what a deployment would do.")
@spec_options.spec_options
@output_option
@state_option
@run_async
async def command(
    files: tuple[Path, ...],
    project: str | None,
    profiles: tuple[str, ...],
    as_json: bool,
    state: Path,
) -> int:
    """Show the operations that `meshd deploy` would carry out, and their impact.

    Exit codes: 0 nothing to do, 1 something to do, 2 error, or a deployment would be rejected.
    """
    spec = spec_options.load_project(files, project, profiles)
    async with connect(state) as client:
        try:
            preview = await client.plan(spec)
        except (Rejected, NotFound, ApiFailure) as error:
            output.print_error(f"meshd: {error}")
            return output.USAGE
    if as_json:
        output.print_json(plan_json(spec.name, preview))
    else:
        print_plan(preview)
    if preview.missing:
        return output.USAGE
    return CHANGES if preview.plan else output.OK
