"""`meshd deploy`: a new spec for a daemon that runs."""

import asyncio
import time
from pathlib import Path

import click
import msgspec

from meshd.api.dto import DeployResult
from meshd.cli import deploy_progress, output, release_report, spec_options
from meshd.cli.plan_output import planned_json, tell_lacks, tell_plan
from meshd.cli.session import connect, duration, state_option, talks
from meshd.model.release import Release


@click.command("deploy", short_help="Give a running daemon a new spec.")
@spec_options.spec_options
@click.option("--dry-run", is_flag=True, help="Only show what would be done, as `meshd diff`.")
@click.option(
    "--timeout",
    "seconds",
    type=duration,
    default="10m",
    metavar="TIME",
    show_default=True,
    help="How long it may take.",
)
@click.option("-d", "--detach", is_flag=True, help="Return once it is accepted.")
@spec_options.take_over_option
@output.output_option
@state_option
@talks
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
    """Make the Compose file the desired state of the daemon, and show how that goes. Ctrl-C ends
    the showing, not the deployment."""
    spec = spec_options.load(files, project, profiles)
    async with connect(state) as client:
        if dry_run:
            planned = await client.plan(spec)
            if as_json:
                output.print_json(planned_json(spec.name, planned))
            else:
                tell_plan(planned)
            return output.OK
        began, releases = time.time(), []
        result = await client.deploy(spec, take_over)
        tell_lacks(result.lacks)
        if not detach:
            try:
                result = await deploy_progress.follow(
                    client, spec.name, seconds, as_json, deploy_progress.monotonic, result.releases
                )
            except asyncio.CancelledError:
                output.complain(
                    f"meshd: the deployment of {spec.name} goes on; `meshd rollout status` shows "
                    "how, `meshd rollout undo SERVICE` takes it back"
                )
                raise
            releases = await release_report.whole(client, result, began)
    return shown(result, releases, as_json)


def shown(result: DeployResult, releases: list[Release], as_json: bool) -> int:
    """Tells the result, and what was served on the way; the exit code."""
    failed = result.done and not result.ok
    if as_json:
        output.print_json(msgspec.structs.replace(result, releases=tuple(releases)))
        return output.FAILED if failed else output.OK
    for release in releases:
        for line in release_report.lines(release):
            output.say(line)
    if failed:
        output.complain(f"{result.project} failed: {result.detail}")
    else:
        output.say(f"{result.project} is {'up' if result.done else 'on its way'}")
    return output.FAILED if failed else output.OK
