"""`meshd rollout`: how a new revision replaces the old one, and what can be done about it."""

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
from meshd.cli import deploy_progress, output, release_report
from meshd.cli.commands import deploy
from meshd.cli.session import (
    complete_service,
    connect,
    duration,
    find_service,
    state_option,
    talks,
)

INTERVAL: Final = 1.0
COLUMNS: Final = ("service", "state", "revision", "new", "old", "step")


@click.group("rollout")
def command() -> None:
    """See how new revisions replace old ones; pause, resume and undo that."""


@command.command("status")
@click.argument("service", required=False, shell_complete=complete_service)
@click.option("-w", "--watch", is_flag=True, help="Look again each second, until it is done.")
@output.output_option
@state_option
@talks
async def status(service: str | None, watch: bool, as_json: bool, state: Path) -> int:
    """Show which revisions run, at which step rollouts are, and what they served. Exit code 1
    while a deployment has failed."""
    drawn = watch and not as_json and output.on_terminal()
    live = Live(console=output.console(), auto_refresh=False) if drawn else None
    shown: object = None
    async with connect(state) as client:
        with live or contextlib.nullcontext():
            while True:
                services, results = await _patiently(client, service, watch)
                over = not watch or all(result.done for result in results)
                if live:
                    live.update(_picture(services, results, service), refresh=True)
                elif as_json or over or shown != (shown := _rows(services, whole=False)):
                    _show(services, results, service, as_json)
                if over:
                    break
                await asyncio.sleep(INTERVAL)
    return output.FAILED if any(r.done and not r.ok for r in results) else output.OK


async def _patiently(
    client: Client, service: str | None, watch: bool
) -> tuple[list[ServiceStatus], list[DeployResult]]:
    """How it stands; who watches waits a while for the successor of a control process that
    ended. Raises NoDaemon when none comes."""
    end = deploy_progress.monotonic() + deploy_progress.SILENCE
    while True:
        try:
            return await _standing(client, service)
        except NoDaemon:
            if not watch or deploy_progress.monotonic() >= end:
                raise
            await asyncio.sleep(deploy_progress.INTERVAL)


async def _standing(
    client: Client, service: str | None
) -> tuple[list[ServiceStatus], list[DeployResult]]:
    whole = await client.status()
    services = [find_service(whole, service)] if service else list(whole.services)
    return services, [await client.progress(p) for p in sorted({s.project for s in services})]


def _show(
    services: list[ServiceStatus], results: list[DeployResult], only: str | None, as_json: bool
) -> None:
    if as_json:
        output.print_json({"deployments": results, "services": services})
        return
    output.print_table(COLUMNS, _rows(services))
    for line in _lines(services, results, only):
        output.say(line)


def _picture(services: list[ServiceStatus], results: list[DeployResult], only: str | None) -> Group:
    lines = _lines(services, results, only)
    return Group(
        output.live_table(COLUMNS, _rows(services), output.console().width), *map(Text, lines)
    )


def _rows(services: list[ServiceStatus], whole: bool = True) -> list[list[str]]:
    """One row a service; `whole` with what changes from second to second."""
    rows = []
    for each in services:
        coming = each.coming or each.revision
        new = sum(replica.revision == coming for replica in each.replicas)
        step = f"{each.stage} ({each.trial})" if whole and each.trial else each.stage
        old = len(each.replicas) - new
        rows.append([each.name, each.state, coming[:12], str(new), str(old), step])
    return rows


def _lines(
    services: list[ServiceStatus], results: list[DeployResult], only: str | None
) -> list[str]:
    """How each deployment stands, and what the newest releases served."""
    lines, names = [], {each.name for each in services}
    for result in results:
        word = ("done" if result.ok else "failed") if result.done else "under way"
        lines += f"{result.project} {word}: {result.detail}".rstrip(": ").splitlines()
        for release in result.releases:
            if not only or release.service in names:
                lines += release_report.lines(release)
    return lines


@command.command("history")
@click.argument("service", required=False, shell_complete=complete_service)
@click.option("-n", "--tail", type=click.IntRange(1, 100), default=20, show_default=True)
@output.output_option
@state_option
@talks
async def history(service: str | None, tail: int, as_json: bool, state: Path) -> int:
    """Show who brought in which revision, what it changed and what came of it, oldest first."""
    async with connect(state) as client:
        services, _ = await _standing(client, service)
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


@command.command("pause")
@click.argument("service", shell_complete=complete_service)
@state_option
@talks
async def pause(service: str, state: Path) -> int:
    """Leave a rollout as it is: replicas, and shares of the traffic."""
    name = await _order(service, state, Client.pause)
    output.say(f"{name}: paused; go on with `meshd rollout resume {name}`")
    return output.OK


@command.command("resume")
@click.argument("service", shell_complete=complete_service)
@state_option
@talks
async def resume(service: str, state: Path) -> int:
    """Go on with a paused rollout, in the stage where it was."""
    name = await _order(service, state, Client.resume)
    output.say(f"{name}: goes on")
    return output.OK


async def _order(
    service: str, state: Path, order: Callable[[Client, str, str], Awaitable[None]]
) -> str:
    """Gives an order about one service; its name in its project comes back."""
    async with connect(state) as client:
        found = find_service(await client.status(), service)
        await order(client, found.project, found.name)
    return found.name


@command.command("undo")
@click.argument("service", shell_complete=complete_service)
@click.option("--to", type=click.IntRange(1), default=None, help="The release to go back to.")
@click.option("-d", "--detach", is_flag=True, help="Return once it is accepted.")
@click.option(
    "--timeout", "seconds", type=duration, default="10m", metavar="TIME", show_default=True,
    help="How long it may take.",
)  # fmt: skip
@output.output_option
@state_option
@talks
async def undo(
    service: str, to: int | None, detach: bool, seconds: float, as_json: bool, state: Path
) -> int:
    """Go back to the last good revision, or to the release that --to names."""
    async with connect(state) as client:
        found = find_service(await client.status(), service)
        begun = await client.undo(found.project, found.name, to or 0)
        if not as_json:
            output.say(f"{found.name}: back to revision {begun.revision[:12]} ({begun.changed})")
        if detach:
            return output.OK
        result = await deploy_progress.follow(
            client, found.project, seconds, as_json, deploy_progress.monotonic, (begun,)
        )
        releases = await release_report.whole(client, result, begun.at)
    return deploy.shown(result, releases, as_json)
