"""`meshd exec`: run a command in a running replica."""

from pathlib import Path

import click

from meshd.api.dto import ReplicaStatus, Status
from meshd.cli import output, terminal
from meshd.cli.commands.run import NOT_RUN, parse_variable
from meshd.cli.options import state_option
from meshd.cli.session import complete_service, connect, find_service, require_local, run_async
from meshd.model.errors import NotFound
from meshd.runtime.base import RuntimeFailure
from meshd.runtime.docker.engine import Engine
from meshd.runtime.docker.exec_session import run_in_container

_RUNS = ("ready", "probing", "starting", "draining")
"""The phases in which a command can run, the best first."""


@click.command(
    "exec",
    short_help="Run a command in a running replica.",
    context_settings={"allow_interspersed_args": False},
)
@click.argument("name", metavar="SERVICE|REPLICA", shell_complete=complete_service)
@click.argument("argv", metavar="[--] COMMAND...", nargs=-1, type=click.UNPROCESSED)
@click.option("-u", "--user", default="", help="Run as this user. Default: the replica's.")
@click.option("-w", "--workdir", default="", metavar="DIR", help="Run in this directory.")
@click.option(
    "-e",
    "--env",
    "variables",
    type=parse_variable,
    multiple=True,
    metavar="NAME=VALUE",
    help="Set an environment variable in addition to the replica's own.",
)
@state_option
@run_async
async def command(
    name: str,
    argv: tuple[str, ...],
    user: str,
    workdir: str,
    variables: tuple[tuple[str, str], ...],
    state: Path,
) -> int:
    """Run COMMAND in a replica: REPLICA, or the first ready one of SERVICE.

    With a terminal the command has one too; otherwise its input and output can be redirected. The
    exit code is the command's (125 if it could not be run). The container engine must be reachable
    from here; local processes are not supported. Options must precede SERVICE|REPLICA.
    """
    require_local("exec")
    words = argv[1:] if argv[:1] == ("--",) else argv
    if not words:
        raise click.UsageError("a command is missing, e.g. meshd exec web -- sh")
    if words[0].startswith("-"):
        raise click.UsageError(
            f"{words[0]} is not a command; options of meshd exec come before SERVICE|REPLICA"
        )
    async with connect(state) as client:
        status = await client.status()
    replica = find_running_replica(status, name)
    if status.runtime != "docker":
        reason = (
            f"it runs on node {replica.node}, and exec reaches no tasks of a Swarm; use `docker "
            "exec` there"
            if status.runtime == "swarm"
            else "exec runs commands in containers only, and this is a local process"
        )
        output.print_error(f"meshd: replica {replica.name}: {reason}")
        return NOT_RUN
    engine, interactive = Engine(), terminal.is_interactive()
    try:
        await engine.open()
        async with run_in_container(
            engine,
            replica.name,
            words,
            terminal=interactive,
            user=user,
            directory=workdir,
            environment=dict(variables),
        ) as session:
            return await terminal.connect_streams(session, interactive)
    except RuntimeFailure as error:
        output.print_error(f"meshd: {error}")
        return NOT_RUN
    finally:
        await engine.close()


def find_running_replica(status: Status, name: str) -> ReplicaStatus:
    """Return the replica of that name, or the best one of the service of that name.

    Raises NotFound if there is none, or none that runs.
    """
    replicas = [replica for service in status.services for replica in service.replicas]
    named = [replica for replica in replicas if replica.name == name]
    candidates = named or find_service(status, name).replicas
    running = [replica for replica in candidates if replica.phase in _RUNS]
    if running:
        return min(running, key=lambda replica: _RUNS.index(replica.phase))
    if named:
        raise NotFound(f"replica {name} does not run: it is {named[0].phase}")
    raise NotFound(f"no replica of {name} runs; `meshd ps -r` lists them")
