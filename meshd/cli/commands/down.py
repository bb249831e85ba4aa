"""`meshd down`: take an application away, and the daemon with the last one."""

import contextlib
import time
from pathlib import Path
from typing import Final

import click

from meshd.api.client import Client, NoDaemon, wait_for_daemon
from meshd.cli import daemon_process, output, spec_options
from meshd.cli.session import connect, state_option, talks
from meshd.model.errors import NotFound
from meshd.store import presence

ASKED: Final = 3
"""How often a daemon whose control process keeps ending is asked to go."""


@click.command("down", short_help="Take an application away.")
@click.argument("project", required=False)
@click.option("-f", "--file", "files", multiple=True, metavar="FILE",
              type=click.Path(dir_okay=False, path_type=Path),
              help="The project of this Compose file.")  # fmt: skip
@click.option("--all", "everything", is_flag=True, help="Every project, and the daemon.")
@output.output_option
@state_option
@talks
async def command(
    project: str | None, files: tuple[Path, ...], everything: bool, as_json: bool, state: Path
) -> int:
    """Drain and stop every replica of PROJECT (without one: of the only one there is). The
    daemon ends with its last project. Volumes are kept."""
    if sum((project is not None, bool(files), everything)) > 1:
        raise click.UsageError("PROJECT, -f and --all exclude each other")
    name = spec_options.load(files).name if files else project
    pid = daemon_process.running(state)
    await _back(state)
    async with connect(state) as client:
        projects = await _projects(client, state)
        names = projects if everything else [name or only(projects)]
        if not as_json:
            output.say(f"taking {', '.join(names) or 'the daemon'} down")
        left = []
        if not everything:
            await _take_down(client, names[0], state)
            left = await _projects(client, state)
        ending = not left
        ended = ending and await _end(client, state, pid)
    if as_json:
        output.print_json({"down": names, "left": left, "daemon_ended": ended})
    elif ended:
        output.say("the daemon has ended")
    elif ending:
        output.complain(f"meshd: the daemon (process {pid}) has not ended yet; see its log")
        return output.FAILED
    return output.OK


def only(projects: list[str]) -> str:
    """The one project there is. Raises NoSuchThing when that is not clear."""
    if len(projects) == 1:
        return projects[0]
    if not projects:
        raise NotFound("no project is up; `meshd down --all` ends the daemon")
    raise NotFound(f"several projects are up ({', '.join(projects)}); name one, or use --all")


async def _projects(client: Client, state: Path) -> list[str]:
    """The projects there are; asked again where the control process was lost just then."""
    try:
        status = await client.status()
    except NoDaemon:
        if not await _back(state):
            raise
        status = await client.status()
    return sorted({service.project for service in status.services})


async def _take_down(client: Client, project: str, state: Path) -> None:
    """Over the end of a control process too: its successor goes on, and is waited for."""
    try:
        await client.down(project)
    except NoDaemon:
        if not await _back(state):
            raise
        with contextlib.suppress(NotFound):
            await client.down(project)


async def _end(client: Client, state: Path, pid: int | None) -> bool:
    """Whether the daemon has ended. The successor of a control process that was lost meanwhile
    knows nothing of its end, and is asked again."""
    for _ in range(ASKED):
        epoch = 0
        with contextlib.suppress(NoDaemon):  # it may have ended before it could answer
            epoch, _ = (await client.status()).generation
            await client.shutdown(stop_replicas=True)
        if pid is None or await _ended(pid, state, epoch):
            presence.remove_stale_socket(state)
            return True
    return False


async def _ended(pid: int, state: Path, epoch: int) -> bool:
    """Whether the daemon has ended, as soon as it has; no, once a later control process answers."""
    end = time.monotonic() + daemon_process.END_SECONDS
    while time.monotonic() < end:
        if await daemon_process.gone(pid, 0.2):
            return True
        status = await wait_for_daemon(state / presence.API_SOCKET, 0.0)
        if status is not None and status.generation[0] != epoch:
            return False
    return False


async def _back(state: Path) -> bool:
    """Whether the control process answers again; not once the whole daemon has ended."""
    end = time.monotonic() + daemon_process.START_SECONDS
    while daemon_process.running(state) and time.monotonic() < end:
        if await wait_for_daemon(state / presence.API_SOCKET, 0.2) is not None:
            return True
    return False
