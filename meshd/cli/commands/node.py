"""`meshd node`: cordon, drain and uncordon a node."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import click

from meshd.api.client import Client
from meshd.api.dto import NodeDrain, NodeStatus
from meshd.cli import output
from meshd.cli.options import POSITIVE_DURATION, detach_option, output_option, state_option
from meshd.cli.session import connect, run_async
from meshd.model.errors import NotFound

POLL_SECONDS: Final = 0.5
"""Seconds between two looks at a drain: the daemon takes a step each second."""


@click.group("node", short_help="Cordon, drain and uncordon a node.")
def command() -> None:
    """Take a node out of use for maintenance, and use it again."""


@command.command("drain", short_help="Move the replicas of a node to other nodes.")
@click.argument("node")
@click.option("--dry-run", is_flag=True, help="Only say what would move and what prevents it.")
@click.option("--force", is_flag=True, help="Leave volumes on the node behind.")
@click.option(
    "--timeout",
    "seconds",
    type=POSITIVE_DURATION,
    default="10m",
    show_default=True,
    help="Time after which the drain gives up; the node then keeps the replicas that are left.",
)
@detach_option("Return when the daemon has accepted it.")
@output_option
@state_option
@run_async
async def drain(
    node: str,
    dry_run: bool,
    force: bool,
    seconds: float,
    detach: bool,
    as_json: bool,
    state: Path,
) -> int:
    """Move everything from NODE to other nodes, without a failed request.

    The node takes no new replicas. Each of its replicas leaves rotation once its successor on
    another node is ready, finishes its requests, and stops. Then the Swarm ends the rest. It is
    refused while replicas have no place elsewhere; the reasons are printed. The daemon continues if
    this command is interrupted; `meshd node uncordon` ends the drain.
    """
    async with connect(state) as client:
        begun = await client.drain_node(node, seconds, force, dry_run)
        if dry_run:
            return _print_dry_run(begun, as_json)
        if not as_json:
            count = len(begun.replicas)
            output.print_line(f"{node}: {count} replica{'' if count == 1 else 's'} to move")
        if detach:
            if as_json:
                output.print_json(begun)
            return output.OK
        found = await _follow(client, node, as_json)
    if as_json:
        output.print_json(found)
    elif found.availability == "drain":
        output.print_line(f"{node} is drained; use it again with `meshd node uncordon {node}`")
    else:
        output.print_error(found.problem or f"{node}: the drain was ended by someone else")
    return output.OK if found.availability == "drain" else output.FAILED


async def _follow(client: Client, node: str, as_json: bool) -> NodeStatus:
    """Print the progress of a drain until it ends; return the node then."""
    printed = ""
    while True:
        found = next((each for each in await client.nodes() if each.name == node), None)
        if found is None:
            raise NotFound(f"node {node} has left the Swarm")
        if not found.drain:
            return found
        progress = found.drain.rpartition(";")[0]
        if progress != printed and not as_json:
            output.print_line(f"{node}: {found.drain}")
        printed = progress
        await asyncio.sleep(POLL_SECONDS)


def _print_dry_run(drain: NodeDrain, as_json: bool) -> int:
    if as_json:
        output.print_json(drain)
    else:
        names = ", ".join(drain.replicas) or "no replicas"
        output.print_line(f"{drain.node}: {names} would move; nothing was changed")
        for obstacle in drain.obstacles:
            output.print_error(obstacle)
    return output.FAILED if drain.obstacles else output.OK


@command.command("cordon", short_help="Place no new replicas on a node.")
@click.argument("node")
@state_option
@run_async
async def cordon(node: str, state: Path) -> int:
    """Place no new replicas on NODE; those that run there stay."""
    await _call(node, state, Client.cordon_node)
    output.print_line(f"{node} takes no new replicas; undo it with `meshd node uncordon {node}`")
    return output.OK


@command.command("uncordon", short_help="Place replicas on a node again.")
@click.argument("node")
@state_option
@run_async
async def uncordon(node: str, state: Path) -> int:
    """Place replicas on NODE again, after a cordon or drain; ends a drain that is under way.

    Replicas that moved stay where they are; `meshd rebalance` moves some back.
    """
    await _call(node, state, Client.uncordon_node)
    output.print_line(f"{node} takes replicas again; `meshd rebalance` moves some there")
    return output.OK


async def _call(node: str, state: Path, change: Callable[[Client, str], Awaitable[None]]) -> None:
    async with connect(state) as client:
        await change(client, node)
