"""`meshd node`: add, cordon, drain and uncordon nodes; load images onto them; run the proxy of
a node."""

import asyncio
import platform
import sqlite3
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import click

from meshd.api.client import Client
from meshd.api.dto import NodeDrain, NodeStatus
from meshd.cli import daemon_process, output, proxy_options
from meshd.cli.commands import bootstrap, load
from meshd.cli.commands.up import LISTEN, default_workers
from meshd.cli.options import POSITIVE_DURATION, detach_option, output_option, state_option
from meshd.cli.session import connect, require_local, run_async
from meshd.model.errors import BadAuthority, NotFound

POLL_SECONDS: Final = 0.5
"""Seconds between two looks at a drain: the daemon takes a step each second."""
MAX_TOKEN_SECONDS: Final = 86400.0
"""The longest life of a join token: what is not used the same day is forgotten."""


@click.group("node", short_help="Add, cordon, drain and uncordon nodes; run the proxy of one.")
def command() -> None:
    """Add a node, cordon, drain and use it again. Run the proxy of a node."""


command.add_command(bootstrap.add)
command.add_command(load.command)


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


@command.command("token", short_help="Make a token with which one node may join.")
@click.option(
    "--expires",
    type=POSITIVE_DURATION,
    default="1h",
    show_default=True,
    help="Valid for this time, at most 1d.",
)
@output_option
@state_option
@run_async
async def token(expires: float, as_json: bool, state: Path) -> int:
    """Print a token with which the proxy of one node may join, once.

    The daemon needs a port for nodes (`meshd up --node-listen`). Store the token in a file that
    only root may read, and delete it afterwards:

    \b
      meshd node token > join-token
      meshd node join MANAGER --token-file join-token        # on the node
    """
    if expires > MAX_TOKEN_SECONDS:
        raise click.UsageError("--expires is longer than 1d")
    async with connect(state) as client:
        made = await client.make_join_token(max(1.0, expires))
    if as_json:
        output.print_json(made)
    else:
        output.print_line(made.secret)
        output.print_error(
            f"valid until {output.format_time(made.expires)}, for one node: meshd node join "
            f"ADDRESS:{made.port} --token-file FILE"
        )
    return output.OK


@command.command("authority", short_help="Print the certificate authority of the mesh.")
@state_option
def authority(state: Path) -> None:
    """Print the key and the certificate of the mesh's authority, or of a new one if the mesh has
    none yet, to keep them in a secret of the Swarm instead of the state:

    \b
      meshd node authority | docker secret create meshd-authority -

    Who has it can join the mesh as any node, and read what nodes send each other.
    """
    # Imported here: these modules and their libraries take 10 MiB.
    from meshd.node_proxy.authority import make_authority
    from meshd.node_proxy.table import read_stored_authority

    require_local("node authority")
    try:
        keys = read_stored_authority(state) or make_authority(time.time())
    except (BadAuthority, sqlite3.Error) as error:
        output.print_error(f"meshd: {error}")
        raise SystemExit(output.FAILED) from error
    output.print_line("".join(keys).rstrip())


@command.command("remove", short_help="Refuse the proxy of a node from now on.")
@click.argument("node")
@state_option
@run_async
async def remove(node: str, state: Path) -> int:
    """Disconnect the proxy of NODE, and refuse it from now on; a new token lets it join again.

    It serves its last snapshot until it is stopped. The replicas on the node are not affected.
    """
    await _call(node, state, Client.remove_node_proxy)
    output.print_line(f"{node}: its proxy was removed")
    return output.OK


@command.command("join", short_help="Run the proxy of this node.")
@click.argument("addresses", metavar="ADDRESS...", nargs=-1, required=True)
@click.option(
    "--token-file",
    default="",
    metavar="FILE",
    help="File with a token from `meshd node token`; - reads standard input. Needed the first "
    "time; later the node has a certificate.",
)
@click.option(
    "--name",
    default=lambda: platform.node().lower(),
    show_default="host name",
    help="Name of this node, the first time.",
)
@proxy_options.listen_option(LISTEN)
@proxy_options.peer_listen_option
@proxy_options.workers_option(default_workers, "one per CPU, at most 4")
@state_option
def join(
    addresses: tuple[str, ...],
    token_file: str,
    name: str,
    listen: tuple[str, ...],
    peer_listen: str,
    workers: int,
    state: Path,
) -> None:
    """Join the mesh, then run its proxy on this node until Ctrl-C, which lets open requests finish.

    ADDRESS is where a daemon was started with --node-listen: HOST or HOST:PORT. Of several daemons
    with the same --lease give all; the one that leads is used. The connection is encrypted; each
    side proves that it belongs to the mesh. The proxy has the routes and replicas of the mesh, and
    keeps the last ones on disk: while no daemon can be reached, it serves on with them.
    """
    # Imported here: these modules and their libraries take 10 MiB.
    from meshd.cli import node_join
    from meshd.node_proxy.enrollment import JoinFailed

    try:
        managers = [node_join.complete_address(each) for each in addresses]
        lock = node_join.hold_state(state)
        if joined := node_join.ensure_joined(state, managers, token_file, name):
            output.print_error(f"joined as node {joined}")
        config = node_join.supervisor_config(
            state, managers, listen or (LISTEN,), workers, peer_listen
        )
    except (node_join.NodeStartError, JoinFailed, daemon_process.DaemonStartError) as error:
        output.print_error(f"meshd: {error}")
        raise SystemExit(output.USAGE) from error
    node_join.become_supervisor(config, lock)


async def _call(node: str, state: Path, change: Callable[[Client, str], Awaitable[None]]) -> None:
    async with connect(state) as client:
        await change(client, node)
