"""`meshd rollout`: show rollouts and their history; pause, resume and undo them."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import click
from rich.console import Group
from rich.live import Live
from rich.text import Text

from meshd.api.client import Client, NoDaemon
from meshd.api.dto import DeployResult, ServiceStatus
from meshd.cli import deploy_progress, image_progress, output, release_report
from meshd.cli.commands import deploy
from meshd.cli.follow import RECONNECT_SECONDS
from meshd.cli.options import (
    detach_option,
    output_option,
    service_argument,
    state_option,
    tail_option,
    timeout_option,
)
from meshd.cli.session import connect, find_service, run_async

WATCH_SECONDS: Final = 1.0
"""Seconds between two requests of `rollout status --watch`."""
COLUMNS: Final = ("service", "state", "revision", "new", "old", "step")


@click.group("rollout", short_help="Show, pause, resume and undo rollouts.")
def command() -> None:
    """Show how new revisions replace old ones; pause, resume and undo rollouts."""


@command.command("status", short_help="Show running rollouts.")
@service_argument(required=False)
@click.option("-w", "--watch", is_flag=True, help="Refresh every second until it is done.")
@output_option
@state_option
@run_async
async def status(service: str | None, watch: bool, as_json: bool, state: Path) -> int:
    """Show the revisions that run, the step of each rollout, and the requests it served.

    NEW and OLD are numbers of replicas. Exit code 1 if a deployment has failed.
    """
    drawn = watch and not as_json and output.on_terminal()
    live = Live(console=output.console(), auto_refresh=False) if drawn else None
    printed: object = None
    async with connect(state) as client:
        with live or contextlib.nullcontext():
            while True:
                services, results = await _fetch_patiently(client, service, watch)
                finished = not watch or all(result.done for result in results)
                if live:
                    live.update(_render(services, results, service), refresh=True)
                elif (
                    as_json
                    or finished
                    or printed != (printed := _status_rows(services, detailed=False))
                ):
                    _print_status(services, results, service, as_json)
                if finished:
                    break
                await asyncio.sleep(WATCH_SECONDS)
    return output.FAILED if any(r.done and not r.ok for r in results) else output.OK


async def _fetch_patiently(
    client: Client, service: str | None, watch: bool
) -> tuple[list[ServiceStatus], list[DeployResult]]:
    """Like `_fetch`; with `watch`, wait for the successor of a control process that ended.

    Raises NoDaemon if none answers.
    """
    end = deploy_progress.monotonic() + RECONNECT_SECONDS
    while True:
        try:
            return await _fetch(client, service)
        except NoDaemon:
            if not watch or deploy_progress.monotonic() >= end:
                raise
            await asyncio.sleep(deploy_progress.POLL_SECONDS)


async def _fetch(
    client: Client, service: str | None
) -> tuple[list[ServiceStatus], list[DeployResult]]:
    """Return the service, or all of them, and the latest deployment of each of their projects."""
    status = await client.status()
    services = [find_service(status, service)] if service else list(status.services)
    projects = sorted({each.project for each in services})
    return services, [await client.progress(project) for project in projects]


def _print_status(
    services: list[ServiceStatus], results: list[DeployResult], service: str | None, as_json: bool
) -> None:
    if as_json:
        output.print_json({"deployments": results, "services": services})
        return
    output.print_table(COLUMNS, _status_rows(services))
    for line in _result_lines(services, results, service):
        output.print_line(line)


def _render(
    services: list[ServiceStatus], results: list[DeployResult], service: str | None
) -> Group:
    lines = _result_lines(services, results, service)
    table = output.live_table(COLUMNS, _status_rows(services), output.console().width)
    return Group(table, *map(Text, lines))


def _status_rows(services: list[ServiceStatus], detailed: bool = True) -> list[list[str]]:
    """Return one row per service. `detailed` includes figures that change every second."""
    rows = []
    for each in services:
        revision = each.new_revision or each.revision
        new = sum(replica.revision == revision for replica in each.replicas)
        old = len(each.replicas) - new
        step = f"{each.stage} ({each.analysis})" if detailed and each.analysis else each.stage
        rows.append([each.name, each.state, revision[:12], str(new), str(old), step])
    return rows


def _result_lines(
    services: list[ServiceStatus], results: list[DeployResult], service: str | None
) -> list[str]:
    """Return the result of each deployment, and the reports of its newest releases: of all
    services, or of the given one."""
    lines, names = [], {each.name for each in services}
    for result in results:
        word = ("done" if result.ok else "failed") if result.done else "in progress"
        lines += f"{result.project} {word}: {result.detail}".rstrip(": ").splitlines()
        for release in result.releases:
            if not service or release.service in names:
                lines += release_report.report_lines(release)
    return lines


@command.command("history", short_help="List past releases.")
@service_argument(required=False)
@tail_option(20, 100, "Number of releases per service to show.")
@output_option
@state_option
@run_async
async def history(service: str | None, tail: int, as_json: bool, state: Path) -> int:
    """List releases, oldest first: who deployed which revision, what changed, and the outcome."""
    async with connect(state) as client:
        services, _ = await _fetch(client, service)
        releases = [
            release
            for each in services
            for release in reversed(await client.releases(each.project, each.name, tail))
        ]
    if as_json:
        output.print_json(releases)
    else:
        output.print_table(
            release_report.HISTORY_COLUMNS, map(release_report.history_row, releases)
        )
    return output.OK


@command.command("pause", short_help="Pause a rollout.")
@service_argument()
@state_option
@run_async
async def pause(service: str, state: Path) -> int:
    """Pause the rollout of SERVICE: replicas and shares of the traffic stay as they are."""
    name = await _call(service, state, Client.pause)
    output.print_line(f"{name}: rollout paused; resume it with `meshd rollout resume {name}`")
    return output.OK


@command.command("resume", short_help="Resume a paused rollout.")
@service_argument()
@state_option
@run_async
async def resume(service: str, state: Path) -> int:
    """Resume a paused rollout in the stage that it has reached."""
    name = await _call(service, state, Client.resume)
    output.print_line(f"{name}: rollout resumed")
    return output.OK


async def _call(
    service: str, state: Path, operation: Callable[[Client, str, str], Awaitable[None]]
) -> str:
    """Call an operation on one service; return its name within the project."""
    async with connect(state) as client:
        found = find_service(await client.status(), service)
        await operation(client, found.project, found.name)
    return found.name


@command.command("undo", short_help="Go back to an earlier release.")
@service_argument()
@click.option(
    "--to",
    type=click.IntRange(1),
    metavar="RELEASE",
    help="Number of the release, see `meshd rollout history`. Default: the last good one.",
)
@detach_option("Return when the daemon has accepted it.")
@timeout_option("10m", "Time for the rollout to finish.")
@output_option
@state_option
@run_async
async def undo(
    service: str, to: int | None, detach: bool, seconds: float, as_json: bool, state: Path
) -> int:
    """Go back to the last good revision of SERVICE, or to the release that --to names."""
    async with connect(state) as client:
        found = find_service(await client.status(), service)
        undo = client.undo(found.project, found.name, to or 0)
        begun = await image_progress.show_while(client, undo, as_json)
        if not as_json:
            revision = begun.revision[:12]
            output.print_line(
                f"{found.name}: going back to revision {revision} (changes: {begun.changed})"
            )
        if detach:
            return output.OK
        result = await deploy_progress.follow(
            client, found.project, seconds, as_json, deploy_progress.monotonic, (begun,)
        )
        releases = await release_report.fetch_complete(client, result, begun.at)
    return deploy.print_result(result, releases, as_json)
