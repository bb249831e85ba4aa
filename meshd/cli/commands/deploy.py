"""`meshd deploy`: give a running daemon a new spec."""

import asyncio
import time
from pathlib import Path

import click
import msgspec

from meshd.api.dto import DeployResult
from meshd.cli import (
    deploy_progress,
    image_progress,
    output,
    release_report,
    spec_options,
    tables,
)
from meshd.cli.options import detach_option, output_option, state_option, timeout_option
from meshd.cli.plan_output import plan_json, print_plan, warn_unsupported, warn_unused_volumes
from meshd.cli.session import connect, run_async
from meshd.model.release import Release


@click.command("deploy", short_help="Deploy a new spec to a running daemon.")
@spec_options.spec_options
@click.option("--dry-run", is_flag=True, help="Only show the plan, like `meshd diff`.")
@timeout_option("10m", "Time for the deployment to finish.")
@detach_option("Return when the daemon has accepted the spec.")
@spec_options.take_over_option
@output_option
@state_option
@run_async
async def command(
    files: tuple[Path, ...],
    project: str | None,
    profiles: tuple[str, ...],
    dry_run: bool,
    seconds: float,
    detach: bool,
    take_over: bool,
    as_json: bool,
    state: Path,
) -> int:
    """Deploy a Compose file to the running daemon, and show the progress.

    Ctrl-C stops the display; the deployment continues.
    """
    spec = spec_options.load_project(files, project, profiles)
    async with connect(state) as client:
        if dry_run:
            preview = await client.plan(spec)
            if as_json:
                output.print_json(plan_json(spec.name, preview))
            else:
                print_plan(preview)
            return output.FAILED if preview.missing else output.OK
        began, releases = time.time(), []
        result = await image_progress.show_while(client, client.deploy(spec, take_over), as_json)
        warn_unsupported(result.unsupported)
        await warn_unused_volumes(client, spec.name)
        if not detach:
            try:
                result = await deploy_progress.follow(
                    client, spec.name, seconds, as_json, deploy_progress.monotonic, result.releases
                )
            except asyncio.CancelledError:
                output.print_error(
                    f"meshd: the deployment of {spec.name} continues; `meshd rollout status` shows "
                    "it, `meshd rollout undo SERVICE` reverts it"
                )
                raise
            releases = await release_report.fetch_complete(client, result, began)
            for line in tables.certificate_lines(await client.certificates()):
                output.print_error(line)
    return print_result(result, releases, as_json)


def print_result(result: DeployResult, releases: list[Release], as_json: bool) -> int:
    """Print the result of a deployment and the report of its releases. Return the exit code."""
    failed = result.done and not result.ok
    if as_json:
        output.print_json(msgspec.structs.replace(result, releases=tuple(releases)))
        return output.FAILED if failed else output.OK
    for release in releases:
        for line in release_report.report_lines(release):
            output.print_line(line)
    if failed:
        output.print_error(f"{result.project} failed: {result.detail}")
    elif result.done:
        output.print_line(f"{result.project} is up")
    else:
        output.print_line(f"{result.project}: deployment started; see `meshd rollout status`")
    return output.FAILED if failed else output.OK
