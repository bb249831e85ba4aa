"""`meshd restart`: replace the replicas of a service by others of the same revision."""

import asyncio
import time
from pathlib import Path
from typing import Final

import click

from meshd.api.client import Client
from meshd.api.dto import RestartOrder, ServiceStatus
from meshd.cli import output
from meshd.cli.options import (
    detach_option,
    output_option,
    service_argument,
    state_option,
    timeout_option,
)
from meshd.cli.session import connect, find_service, run_async

POLL_SECONDS: Final = 0.3
"""Seconds between two requests for the progress."""


@click.command("restart", short_help="Replace the replicas of a service one after the other.")
@service_argument()
@detach_option("Return once it has begun.")
@timeout_option("10m", "Give up waiting after this time; the daemon continues.")
@output_option
@state_option
@run_async
async def command(service: str, detach: bool, seconds: float, as_json: bool, state: Path) -> int:
    """Replace the replicas of SERVICE by others of the same revision.

    They are replaced in the steps of a deployment, by `deploy.update_config`: each replica finishes
    its requests, and with `start-first` its successor is ready before. Waits until all successors
    are ready. Exit code 1 if they are not within the timeout.
    """
    async with connect(state) as client:
        found = find_service(await client.status(), service)
        order = await client.restart(found.project, found.name)
        quiet = as_json or detach
        if not as_json:
            output.print_line(_describe(found, order))
        done = detach or not order.replicas or await _wait(client, found, order, seconds, quiet)
    if as_json:
        output.print_json({"replicas": order.replicas, "order": order.order, "done": done})
    if not done:
        output.print_error(
            f"meshd: {found.name} is not restarted after {output.format_seconds(seconds)}; "
            f"`meshd ps -r` and `meshd events` show why"
        )
    return output.OK if done else output.FAILED


def _describe(service: ServiceStatus, order: RestartOrder) -> str:
    if not order.replicas:
        return f"{service.name}: no replica runs; nothing to restart"
    noun = "replica" if len(order.replicas) == 1 else "replicas"
    return f"{service.name}: replacing {len(order.replicas)} {noun}, {order.order}"


async def _wait(
    client: Client, service: ServiceStatus, order: RestartOrder, seconds: float, quiet: bool
) -> bool:
    """Print the progress until all replicas are replaced, for at most `seconds`. Return whether
    they are."""
    end, before = time.monotonic() + seconds, frozenset[str]()
    while True:
        now = find_service(await client.status(), f"{service.project}/{service.name}")
        lines = frozenset(progress_lines(now, order))
        if not quiet:
            for line in sorted(lines - before):
                output.print_line(f"{now.name}: {line}")
        before = lines
        if is_restarted(now, order):
            return True
        if time.monotonic() >= end:
            return False
        await asyncio.sleep(POLL_SECONDS)


def progress_lines(service: ServiceStatus, order: RestartOrder) -> list[str]:
    """Return a line for each replica that is not ready or is a successor, and one for each that
    has left."""
    present = {replica.name for replica in service.replicas}
    lines = [f"{name} has left" for name in order.replicas if name not in present]
    for replica in service.replicas:
        if replica.name not in order.replicas or replica.phase != "ready":
            reason = f" ({replica.reason})" if replica.reason else ""
            lines.append(f"{replica.name} is {replica.phase}{reason}")
    return lines + ([service.waiting] if service.waiting else [])


def is_restarted(service: ServiceStatus, order: RestartOrder) -> bool:
    """Return whether all replicas have left and their successors are ready."""
    present = {replica.name for replica in service.replicas}
    return present.isdisjoint(order.replicas) and service.ready >= service.desired
