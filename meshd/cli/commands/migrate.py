"""`meshd migrate`: move an application from the engine of one host to a Swarm."""

import asyncio
import sqlite3
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import Final

import click

from meshd.api.client import Client, NoDaemon
from meshd.api.dto import Status
from meshd.cli import daemon_process, output, proxy_options
from meshd.cli.daemon_process import DaemonStartError, TakeoverOptions
from meshd.cli.options import output_option, state_option, timeout_option
from meshd.cli.session import connect, require_local, run_async
from meshd.model.errors import Rejected
from meshd.model.node_proxy import NODE_PORT
from meshd.model.service_key import service_key
from meshd.runtime.base import RuntimeFailure
from meshd.runtime.docker.runtime import DockerRuntime
from meshd.runtime.swarm.runtime import SwarmRuntime
from meshd.runtime.swarm.secrets import refused_files
from meshd.runtime.swarm.setup.migration import MigrationFacts, MigrationPlan, plan_migration
from meshd.store.store import read_stored_projects

SWITCH_SECONDS: Final = 30.0
"""Seconds for the control process to answer with the other runtime: it starts in one or two."""
POLL_SECONDS: Final = 0.3
"""Seconds between two looks at what is left on the engine."""


@click.command("migrate", short_help="Move an application from one host to a Swarm.")
@click.option(
    "--to",
    "target",
    type=click.Choice(["swarm"]),
    required=True,
    help="Where to move it: the Swarm that the engine of this host is a manager of.",
)
@click.option("--dry-run", is_flag=True, help="Only say what would move, and what prevents it.")
@click.option(
    "--data-moved",
    metavar="SERVICE",
    multiple=True,
    help="The data of SERVICE is on the node that it is to run on (`meshd volume copy`).",
)
@click.option(
    "--node-listen",
    metavar="ADDR",
    default=f"0.0.0.0:{NODE_PORT}",
    show_default=True,
    help="Feed the proxies of other nodes (`meshd node join`) at this HOST:PORT.",
)
@proxy_options.peer_listen_option
@click.option(
    "--allow-clear-text",
    is_flag=True,
    help="Also use nodes without a proxy; requests to replicas there are not encrypted.",
)
@timeout_option("10m", "Time for everything to move; the daemon continues afterwards.")
@output_option
@state_option
@run_async
async def command(
    target: str,
    dry_run: bool,
    data_moved: tuple[str, ...],
    node_listen: str,
    peer_listen: str,
    allow_clear_text: bool,
    seconds: float,
    as_json: bool,
    state: Path,
) -> int:
    """Move the application of the daemon on this host from its engine to the Swarm.

    Everything is checked first. Then the daemon changes its runtime without closing a connection,
    and replaces the replicas, one service after another in the order of their dependencies: a
    container leaves rotation once its successor in the Swarm is ready, finishes its requests, and
    stops. Services with data of this host are named and stay on the engine; the mesh still serves
    them. The command can be repeated, also after it was interrupted.
    """
    del target
    require_local("migrate")
    try:
        async with connect(state) as client:
            plan, moving = await _plan(client, state, data_moved)
            _print_plan(plan, as_json)
            if plan.problems:
                return output.FAILED
            if dry_run:
                return output.OK
            if not moving:
                output.print_error("the daemon uses the Swarm already, and nothing is to move")
                return output.OK
            options = TakeoverOptions(plan.staying_keys, node_listen, peer_listen, allow_clear_text)
            before = daemon_process.staying_services(state)
            if before is None:
                daemon_process.check_address("--node-listen", node_listen)
                daemon_process.check_address("--peer-listen", peer_listen)
            if before is None or set(before) != set(plan.staying_keys):
                await _switch(client, state, options)
            if not await _follow(plan, seconds, as_json):
                return output.FAILED
            if not plan.staying:
                await _await_release(plan.projects)
                await _switch(client, state, TakeoverOptions(None))
    except DaemonStartError as error:
        output.print_error(f"meshd: {error}")
        return output.FAILED
    except RuntimeFailure as failure:
        raise Rejected(str(failure)) from failure
    if not as_json:
        _print_end(plan)
    return output.OK


async def _plan(
    client: Client, state: Path, data_moved: Collection[str]
) -> tuple[MigrationPlan, bool]:
    """Return the plan, and whether anything is left to do. Raises Rejected, RuntimeFailure."""
    status = await client.status()
    if status.runtime not in ("docker", "swarm"):
        raise Rejected(
            f"the daemon uses the {status.runtime} runtime, and only containers can move to a Swarm"
        )
    swarm, docker = SwarmRuntime(), DockerRuntime()
    try:
        await swarm.open()
        await docker.open()
        seen = await docker.list()
        anonymous = await docker.anonymous_volumes()
        nodes = tuple(each.name for each in await swarm.nodes())
    finally:
        try:
            await swarm.close()
        finally:
            await docker.close()
    try:
        projects = read_stored_projects(state)
    except sqlite3.Error as error:
        raise Rejected(f"the state in {state} cannot be read: {error}") from error
    mine = {project.name for project in projects}
    facts = MigrationFacts(
        projects=projects,
        can=swarm.capabilities,
        node=swarm.own_node,
        nodes=nodes,
        on_engine=Counter(f"{r.project}/{r.service}" for r in seen if r.managed),
        adopted={f"{r.project}/{r.service}" for r in seen if not r.managed and r.project in mine},
        rolling=_rolling(status),
        anonymous=anonymous,
        files={
            service_key(project.name, service.name): refused_files(service)
            for project in projects
            for service in project.services
        },
        data_moved=data_moved,
    )
    takes_over = daemon_process.staying_services(state) is not None
    return plan_migration(facts), status.runtime == "docker" or takes_over


def _rolling(status: Status) -> set[str]:
    return {f"{each.project}/{each.name}" for each in status.services if each.new_revision}


def _print_plan(plan: MigrationPlan, as_json: bool) -> None:
    if as_json:
        output.print_json_line(
            {
                "moving": [
                    {"service": each.key, "replicas": each.replicas, "notes": list(each.notes)}
                    for each in plan.moving
                ],
                "staying": [{"service": each.key, "reason": each.reason} for each in plan.staying],
                "problems": list(plan.problems),
            }
        )
        return
    for service in plan.moving:
        if not service.replicas:
            output.print_line(f"{service.key}: has nothing on the engine")
            continue
        count = f"{service.replicas} replica{'' if service.replicas == 1 else 's'}"
        output.print_line(f"{service.key}: moves, {count} on the engine")
        for note in service.notes:
            output.print_line(f"  {note}")
    for staying in plan.staying:
        output.print_line(f"{staying.key}: stays: {staying.reason}")
    for problem in plan.problems:
        output.print_error(f"meshd: {problem}")
    if plan.problems:
        output.print_error("nothing was changed")


async def _switch(client: Client, state: Path, options: TakeoverOptions) -> None:
    """Give the daemon its configuration, and wait until it answers with it. If it does not, give it
    the one before. Raises DaemonStartError."""
    epoch = (await client.status()).generation[0]
    before = daemon_process.replace_config(state, daemon_process.swarm_config(state, options))
    end = asyncio.get_running_loop().time() + SWITCH_SECONDS
    while asyncio.get_running_loop().time() < end:
        await asyncio.sleep(POLL_SECONDS)
        try:
            status = await client.status()
        except (NoDaemon, Rejected):
            continue
        if status.runtime == "swarm" and status.generation[0] > epoch:
            return
    daemon_process.restore_config(state, before)
    raise DaemonStartError(
        "the control process did not start with the Swarm, so that the daemon continues as before; "
        f"see {state / 'daemon.log'}"
    )


async def _await_release(projects: Collection[str]) -> None:
    """Wait until the daemon has removed the networks of the projects from the engine and released
    them there. Raises DaemonStartError."""
    end = asyncio.get_running_loop().time() + SWITCH_SECONDS
    docker = DockerRuntime()
    try:
        await docker.open()
        while left := sorted(set(projects).intersection(await docker.held_projects())):
            if asyncio.get_running_loop().time() >= end:
                raise DaemonStartError(
                    f"everything has moved, but networks or jobs of {', '.join(left)} are left on "
                    "the engine; see daemon.log, and repeat the command"
                )
            await asyncio.sleep(POLL_SECONDS)
    finally:
        await docker.close()


async def _follow(plan: MigrationPlan, seconds: float, as_json: bool) -> bool:
    """Print each service that has left the engine; return whether all have."""
    end = asyncio.get_running_loop().time() + seconds
    docker = DockerRuntime()
    left: dict[str, int] | None = None
    try:
        await docker.open()
        while True:
            seen = [r for r in await docker.list() if r.managed and r.project in plan.projects]
            now = Counter(f"{r.project}/{r.service}" for r in seen)
            for key in plan.staying_keys:
                now.pop(key, None)
            for key in sorted((left or {}).keys() - now.keys()):
                _print_moved(key, as_json)
            left = dict(now)
            if not left:
                return True
            if asyncio.get_running_loop().time() >= end:
                break
            await asyncio.sleep(POLL_SECONDS)
    finally:
        await docker.close()
    first = min(left)
    output.print_error(
        f"not moved within {output.format_seconds(seconds)}: {', '.join(sorted(left))}; they are "
        f"served from the engine, and the daemon continues: see `meshd explain "
        f"{first.rpartition('/')[2]}`, and repeat the command"
    )
    return False


def _print_moved(key: str, as_json: bool) -> None:
    if as_json:
        output.print_json_line({"service": key, "moved": True})
    else:
        output.print_line(f"{key}: moved")


def _print_end(plan: MigrationPlan) -> None:
    if plan.staying:
        keys = ", ".join(plan.staying_keys)
        output.print_line(f"\n{keys} stays on the engine; repeat the command once its data moved")
    else:
        output.print_line(
            "\nthe application runs in the Swarm; start it again with --runtime swarm"
        )
    output.print_line(
        "let the other nodes join with `meshd node join`, then spread it with `meshd rebalance`"
    )
