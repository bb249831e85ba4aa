"""`meshd volume`: list, back up, restore, copy and delete volumes."""

import asyncio
import bz2
import contextlib
import functools
import gzip
import io
import lzma
import os
import sys
import threading
import zlib
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path
from typing import IO, Final, TypeVar, cast

import click

from meshd.api.client import ApiFailure, NoDaemon
from meshd.api.dto import VolumeStatus
from meshd.cli import output
from meshd.cli.commands import volume_copy
from meshd.cli.options import output_option, state_option
from meshd.cli.session import connect, run_async
from meshd.model.errors import Rejected

CHUNK_BYTES: Final = 262_144
"""Bytes read at once from the archive to restore."""
GZIP, BZIP2, XZ = b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00"
"""First bytes of compressed streams."""
MEBIBYTE: Final = 1_048_576
"""Bytes, for messages."""
T = TypeVar("T")
STANDARD_STREAM: Final = Path("-")


@click.group("volume", short_help="Back up, restore and copy volumes.")
def command() -> None:
    """List, back up, restore, copy and delete volumes.

    VOLUME is a name that `meshd volume ls` shows, or the name in the Compose file (PROJECT/NAME if
    several projects have one).
    """


command.add_command(volume_copy.command)


@command.command("ls", short_help="List volumes.")
@output_option
@state_option
@run_async
async def list_volumes(as_json: bool, state: Path) -> None:
    """List the named volumes with the services that use them.

    unused: no service mounts it any more. incomplete: a restore was interrupted; it is completed
    before a container with the volume starts. not resumed: the resume command failed after a
    backup, and is repeated.
    """
    async with connect(state) as client:
        volumes = list(await client.volumes())
    if as_json:
        output.print_json(volumes)
    elif not volumes:
        output.print_line("no volumes")
    else:
        output.print_table(("VOLUME", "PROJECT", "STATE", "SERVICES"), map(_row, volumes))
        _print_resume_problems(volumes)


def _row(volume: VolumeStatus) -> tuple[str, ...]:
    services = ", ".join(key.rpartition("/")[2] for key in volume.services)
    return volume.name, volume.project, volume.state, services


@command.command("backup", short_help="Write a volume to a tar file.")
@click.argument("volume")
@click.option(
    "-o",
    "--output",
    "target",
    type=click.Path(dir_okay=False, path_type=Path),
    default="-",
    metavar="FILE",
    help="File to write; it appears once it is complete. Default: standard output.",
)
@click.option(
    "--live",
    is_flag=True,
    help="Do not stop or quiesce the services. Files may change while they are read.",
)
@state_option
@run_async
async def backup(volume: str, target: Path, live: bool, state: Path) -> int:
    """Write the content of VOLUME as a tar.

    The services that use it are stopped meanwhile, and requests to them wait. They start again in
    any case, also after Ctrl-C. Services with x-mesh.backups in the Compose file keep running:
    their quiesce command runs before, and their resume command after the copy.
    """
    if target == STANDARD_STREAM and sys.stdout.isatty():
        raise click.UsageError("a tar is not for a terminal; use -o FILE, or redirect the output")
    async with connect(state) as client:
        try:
            size = await _write(client.read_volume(volume, live), target)
        except (ApiFailure, Rejected):
            _print_resume_problems(await client.volumes())
            raise
        output.print_error(f"{volume}: {size / MEBIBYTE:.1f} MiB written")
        resumed = _print_resume_problems(await client.volumes())
    return output.OK if resumed else output.FAILED


async def _write(chunks: AsyncIterator[bytes], target: Path) -> int:
    """Write an archive to a file, or to standard output; return its size in bytes."""
    size = 0
    if target == STANDARD_STREAM:
        async for chunk in chunks:
            size += await in_thread(write_all, sys.stdout.fileno(), chunk)
        return size
    part = target.with_name(f".{target.name}.part")
    try:
        with part.open("wb") as file:
            part.chmod(0o600)
            async for chunk in chunks:
                size += await in_thread(file.write, chunk)
            await in_thread(_sync, file)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
    return size


def _print_resume_problems(volumes: Iterable[VolumeStatus]) -> bool:
    """Print the containers that stay quiesced after a backup; return whether there are none."""
    problems = [(each.name, text) for each in volumes for text in each.resume_problems]
    for name, text in problems:
        output.print_error(f"meshd: volume {name}: NOT RESUMED: {text}; it is tried again")
    return not problems


def _sync(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())


@command.command("restore", short_help="Replace a volume by the content of a tar file.")
@click.argument("volume")
@click.argument(
    "file", type=click.Path(exists=True, dir_okay=False, path_type=Path, allow_dash=True),
    default="-",
)  # fmt: skip
@click.option("--force", is_flag=True, help="Replace the content of a volume that is not empty.")
@state_option
@run_async
async def restore(volume: str, file: Path, force: bool, state: Path) -> int:
    """Replace the content of VOLUME by that of FILE: a tar, also compressed with gzip, bzip2 or xz.

    Without FILE, standard input is read. All data is received first, which needs room for a second
    copy on the engine. Then the services that use the volume are stopped, and start again with the
    new content. Until then, Ctrl-C or an incomplete archive changes nothing.
    """
    if file == STANDARD_STREAM and sys.stdin.isatty():
        raise click.UsageError("name a FILE, or redirect the input")
    async with connect(state) as client:
        name = await client.check_restore(volume, force)
        chunks = _Archive(open_archive(file))
        try:
            await client.restore_volume(volume, chunks.read(), force)
        except (NoDaemon, Rejected):
            if chunks.error is None:
                raise
        if chunks.error is not None:
            output.print_error(f"meshd: {file} cannot be read: {chunks.error}")
            return output.FAILED
    output.print_error(f"{name}: restored")
    return output.OK


@command.command("rm", short_help="Delete volumes that no service uses.")
@click.argument("volumes", nargs=-1, required=True, metavar="VOLUME...")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@state_option
@run_async
async def remove(volumes: tuple[str, ...], yes: bool, state: Path) -> int:
    """Delete volumes with their content. A volume that a service mounts is refused."""
    if not yes:
        click.confirm(f"Delete {', '.join(volumes)} with all data?", abort=True, err=True)
    async with connect(state) as client:
        for volume in volumes:
            await client.remove_volume(volume)
            output.print_line(f"{volume}: deleted")
    return output.OK


def open_archive(file: Path) -> io.BufferedReader:
    """Open the archive; not to be closed, because a thread may be reading it. Standard input gets
    a separate object: a thread that is stuck in `sys.stdin` would keep the interpreter from
    ending."""
    return open(os.dup(sys.stdin.fileno()) if file == STANDARD_STREAM else file, "rb")


def write_all(descriptor: int, chunk: bytes) -> int:
    """Write a chunk to a descriptor and return its size. Blocks."""
    rest = memoryview(chunk)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
    return len(chunk)


async def in_thread(call: Callable[..., T], *arguments: object) -> T:
    """Return the result of a call that blocks. Unlike `asyncio.to_thread`, a call that never
    returns does not keep the process alive, so that Ctrl-C ends it."""
    loop = asyncio.get_running_loop()
    result: asyncio.Future[T] = loop.create_future()

    def run() -> None:
        try:
            found = call(*arguments)
        except Exception as error:  # noqa: BLE001 (raised by the caller)
            finish(functools.partial(result.set_exception, error))
        else:
            finish(functools.partial(result.set_result, found))

    def finish(settle: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(lambda: None if result.done() else settle())

    threading.Thread(target=run, daemon=True).start()
    return await result


class _Archive:
    """An archive that is sent to the daemon, decompressed; `error` is why it could not be read."""

    def __init__(self, source: io.BufferedReader) -> None:
        self._source = source
        self.error: Exception | None = None

    async def read(self) -> AsyncIterator[bytes]:
        try:
            plain = await in_thread(decompress, self._source)
            while chunk := await in_thread(plain.read, CHUNK_BYTES):
                yield chunk
        except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
            self.error = error
            raise


def decompress(source: io.BufferedReader) -> IO[bytes]:
    """Return the stream without its compression: gzip, bzip2, xz or none. Blocks."""
    first = source.peek(len(XZ))
    if first.startswith(GZIP):
        return cast("IO[bytes]", gzip.GzipFile(fileobj=source))
    if first.startswith(BZIP2):
        return cast("IO[bytes]", bz2.BZ2File(source))
    return cast("IO[bytes]", lzma.LZMAFile(source)) if first.startswith(XZ) else source
