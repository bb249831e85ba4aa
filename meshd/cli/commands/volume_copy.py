"""`meshd volume copy`: copy the data of a volume to another engine."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, nullcontext
from pathlib import Path
from typing import Final

import click
from rich.live import Live
from rich.table import Table

from meshd.api.client import Client, wait_for_daemon
from meshd.api.dto import VolumeStatus
from meshd.cli import output
from meshd.cli.bars import Bar, draw_bars
from meshd.cli.options import output_option, state_option
from meshd.cli.session import is_remote, run_async
from meshd.model.errors import NotFound, Rejected
from meshd.runtime.base import RuntimeFailure
from meshd.runtime.swarm.setup import hosts as setup
from meshd.runtime.swarm.setup.tar_digest import VolumeDigest
from meshd.runtime.swarm.setup.volumes import (
    CopyRequest,
    check_source,
    check_target,
    copy_volume,
    read_source,
)
from meshd.store import presence

MEBIBYTE: Final = 1_048_576
"""Bytes, for messages."""
SHOWN_DIGITS: Final = 16
"""Digits of a digest in a message; JSON has all of them."""


@click.command("copy", short_help="Copy a volume to another engine.")
@click.argument("volume")
@click.argument("host")
@click.option(
    "--from",
    "source_name",
    metavar="HOST",
    default=setup.THIS_ENGINE,
    show_default=True,
    help="The engine that has the volume.",
)
@click.option(
    "--as", "target", metavar="NAME", help="Name of the volume on HOST. Default: the same name."
)
@click.option("--force", is_flag=True, help="Replace the content of a volume that is not empty.")
@click.option(
    "--live",
    is_flag=True,
    help="Do not stop or quiesce the services. Files may change while they are read.",
)
@output_option
@state_option
@run_async
async def command(
    volume: str,
    host: str,
    source_name: str,
    target: str | None,
    force: bool,
    live: bool,
    as_json: bool,
    state: Path,
) -> int:
    """Copy the data of VOLUME to the engine of HOST: ssh://[USER@]HOST, tcp://HOST:PORT,
    unix:///PATH, or the name of a Docker context.

    Services of the daemon on this host that use the volume are stopped while it is read, or
    quiesced (x-mesh.backups), and start again afterwards. A volume that another container runs with
    is refused. The data passes as a stream, with owners, modes, times and links. Then the number of
    entries and a digest of both volumes are compared. The source stays as it is.
    """
    try:
        async with AsyncExitStack() as stack:
            local = source_name == setup.THIS_ENGINE and not is_remote()
            client = await _find_daemon(state, stack) if local else None
            known = list(await client.volumes()) if client is not None else []
            name = find_volume(volume, known) if known else volume
            engines = await stack.enter_async_context(setup.open_hosts([source_name, host]))
            source, destination = engines
            request = CopyRequest(name, target or name, force, live)
            await check_target(source, destination, request)
            if client is not None and known:
                data = client.read_volume(name, live)
            else:
                await check_source(source, request)
                data = read_source(source, request)
            found = await _copy(source, destination, request, data, as_json)
    except RuntimeFailure as failure:
        raise Rejected(str(failure)) from failure
    if as_json:
        output.print_json_line(
            {
                "volume": request.target,
                "host": host,
                "entries": found.entries,
                "bytes": found.size,
                "digest": found.digest,
            }
        )
    else:
        output.print_line(
            f"{request.target}: {found.entries} entries, {found.size / MEBIBYTE:.1f} MiB copied to "
            f"{host} and compared (digest {found.digest[:SHOWN_DIGITS]})"
        )
    return output.OK


def find_volume(name: str, known: Sequence[VolumeStatus]) -> str:
    """Return the engine's name of a volume: by that name, by the name in the Compose file, or by
    PROJECT/NAME. Raises NotFound."""
    if any(each.name == name for each in known):
        return name
    project, _, key = name.rpartition("/")
    found = [
        each.name
        for each in known
        if each.name == f"{each.project}_{key}" and project in ("", each.project)
    ]
    if len(found) == 1:
        return found[0]
    names = ", ".join(found or (each.name for each in known)) or "none"
    problem = "is ambiguous; use one of" if found else "is not a volume here; known:"
    raise NotFound(f"volume {name!r} {problem} {names}")


async def _find_daemon(state: Path, stack: AsyncExitStack) -> Client | None:
    """Return a client of the daemon whose engine has the volumes; None if there is none."""
    socket = state / presence.API_SOCKET
    status = await wait_for_daemon(socket, 0.0)
    if status is None or status.runtime != "docker":
        return None
    return await stack.enter_async_context(Client(socket))


async def _copy(
    source: setup.Host,
    target: setup.Host,
    request: CopyRequest,
    data: AsyncIterator[bytes],
    as_json: bool,
) -> VolumeDigest:
    """Copy with progress on a terminal."""

    def draw(sent: int) -> Table:
        text = f"{request.volume} ({sent / MEBIBYTE:.1f} MiB)"
        return draw_bars([Bar(target.name, sent, 0, text)])

    shown = output.on_terminal() and not as_json
    live = Live(draw_bars([]), console=output.console(), transient=True) if shown else None
    with live or nullcontext():
        update = live.update if live is not None else None
        return await copy_volume(
            source, target, request, data, lambda sent: update(draw(sent)) if update else None
        )
