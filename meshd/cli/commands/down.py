"""`meshd down`: stop an application, and the daemon after its last project."""

import contextlib
import time
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Final

import click

from meshd.api.client import Client, NoDaemon, wait_for_daemon
from meshd.api.dto import VolumeStatus
from meshd.cli import daemon_process, output, spec_options
from meshd.cli.options import output_option, state_option
from meshd.cli.session import connect, is_remote, run_async
from meshd.model.errors import NotFound
from meshd.store import presence

SHUTDOWN_ATTEMPTS: Final = 3
"""Requests to shut down that are sent to a daemon whose control process keeps being replaced."""
POLL_SECONDS: Final = 0.2
"""Seconds between two checks whether the daemon has ended or answers."""


@click.command("down", short_help="Stop an application.")
@click.argument("project", required=False)
@spec_options.file_option("Stop the project of this Compose file.")
@click.option("--all", "everything", is_flag=True, help="Stop every project and the daemon.")
@click.option(
    "--volumes",
    "with_volumes",
    is_flag=True,
    help="Also delete the project's named volumes, after showing them and asking. External volumes "
    "are kept.",
)
@click.option("-y", "--yes", is_flag=True, help="With --volumes: do not ask.")
@output_option
@state_option
@run_async
async def command(
    project: str | None,
    files: tuple[Path, ...],
    everything: bool,
    with_volumes: bool,
    yes: bool,
    as_json: bool,
    state: Path,
) -> int:
    """Drain and stop every replica of PROJECT.

    PROJECT can be left out if there is only one. The daemon ends with its last project. Named
    volumes are kept without --volumes.
    """
    if sum((project is not None, bool(files), everything)) > 1:
        raise click.UsageError("PROJECT, -f and --all exclude each other")
    name = spec_options.load_project(files).name if files else project
    pid = None if is_remote() else daemon_process.running_pid(state)
    await _wait_until_answering(state)
    async with connect(state) as client:
        projects = await _project_names(client, state)
        names = projects if everything else [name or only_project(projects)]
        volumes = await _confirm_volumes(client, names, yes, as_json) if with_volumes else []
        if not as_json:
            output.print_line(f"stopping {', '.join(names) or 'the daemon'}")
        remaining = []
        if not everything or volumes:
            for each in names:
                await _take_down(client, each, state)
            remaining = await _project_names(client, state)
        for volume in volumes:
            await client.remove_volume(volume)
            if not as_json:
                output.print_line(f"{volume}: deleted")
        is_last = not remaining
        ended = is_last and await _end_daemon(client, state, pid)
    if as_json:
        result = {"down": names, "left": remaining, "daemon_ended": ended}
        output.print_json(result | ({"volumes": volumes} if with_volumes else {}))
    elif ended:
        output.print_line("the daemon has ended")
    elif is_last:
        output.print_error(
            f"meshd: the daemon (process {pid}) has not ended yet; see {state / 'daemon.log'}"
        )
        return output.FAILED
    return output.OK


async def _confirm_volumes(
    client: Client, projects: list[str], yes: bool, quiet: bool
) -> list[str]:
    """Return the volumes to delete, after showing them and asking. Aborts without a yes."""
    volumes = deletable(await client.volumes(), projects)
    if not volumes:
        return []
    if not quiet or not yes:
        output.print_error("these volumes will be deleted with all their data:")
        for volume in volumes:
            services = ", ".join(key.rpartition("/")[2] for key in volume.services)
            output.print_error(f"  {volume.name} ({services or 'used by no service'})")
    if not yes:
        click.confirm("Delete them?", abort=True, err=True)
    return [volume.name for volume in volumes]


def deletable(volumes: Iterable[VolumeStatus], projects: Collection[str]) -> list[VolumeStatus]:
    """Return the volumes of these projects that are neither external nor used by another one."""
    return [
        volume
        for volume in volumes
        if volume.project in projects
        and not volume.external
        and {key.partition("/")[0] for key in volume.services} <= set(projects)
    ]


def only_project(projects: list[str]) -> str:
    """Return the only project. Raises NotFound if there is none, or more than one."""
    if len(projects) == 1:
        return projects[0]
    if not projects:
        raise NotFound("no project is up; `meshd down --all` stops the daemon")
    raise NotFound(f"several projects are up ({', '.join(projects)}); name one, or use --all")


async def _project_names(client: Client, state: Path) -> list[str]:
    """Return the projects; retry if the control process is being replaced."""
    try:
        status = await client.status()
    except NoDaemon:
        if not await _wait_until_answering(state):
            raise
        status = await client.status()
    return sorted({service.project for service in status.services})


async def _take_down(client: Client, project: str, state: Path) -> None:
    """Take the project down. If the control process ends meanwhile, ask its successor."""
    try:
        await client.down(project)
    except NoDaemon:
        if not await _wait_until_answering(state):
            raise
        with contextlib.suppress(NotFound):
            await client.down(project)


async def _end_daemon(client: Client, state: Path, pid: int | None) -> bool:
    """Shut the daemon down; return whether it has ended. If the control process is replaced
    meanwhile, its successor does not know about the shutdown, so it is asked again."""
    for _ in range(SHUTDOWN_ATTEMPTS):
        epoch = 0
        with contextlib.suppress(NoDaemon):  # it may have ended before it could answer
            epoch, _ = (await client.status()).generation
            await client.shutdown(stop_replicas=True)
        if pid is None or await _has_ended(pid, state, epoch):
            if not is_remote():
                presence.remove_stale_socket(state)
            return True
    return False


async def _has_ended(pid: int, state: Path, epoch: int) -> bool:
    """Wait for the end of the daemon. False after the time limit, or when a control process with
    another epoch answers."""
    end = time.monotonic() + daemon_process.END_SECONDS
    while time.monotonic() < end:
        if await daemon_process.wait_gone(pid, POLL_SECONDS):
            return True
        status = await wait_for_daemon(state / presence.API_SOCKET, 0.0)
        if status is not None and status.generation[0] != epoch:
            return False
    return False


async def _wait_until_answering(state: Path) -> bool:
    """Whether the control process answers, after waiting for it while the daemon runs."""
    end = time.monotonic() + daemon_process.START_SECONDS
    while not is_remote() and daemon_process.running_pid(state) and time.monotonic() < end:
        if await wait_for_daemon(state / presence.API_SOCKET, POLL_SECONDS) is not None:
            return True
    return False
