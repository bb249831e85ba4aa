"""`meshd backup`: the daemon's state in one file."""

import sqlite3
import time
from pathlib import Path

import click

from meshd.cli import output
from meshd.cli.session import state_option


@click.command("backup", short_help="Write the state to a file.")
@click.argument("file", type=click.Path(dir_okay=False, resolve_path=True, path_type=Path))
@output.output_option
@state_option
def command(file: Path, as_json: bool, state: Path) -> None:
    """Write everything that the daemon knows to FILE: projects, revisions, overrides, what was
    learned, decisions and events. It may run meanwhile. `meshd restore` reads it."""
    from meshd.store import backup

    try:
        manifest = backup.back_up(state, file, time.time())
    except (backup.BackupError, OSError, sqlite3.DatabaseError) as error:
        output.complain(f"meshd: no backup was written: {error}")
        raise SystemExit(output.FAILED) from error
    if as_json:
        output.print_json(manifest)
        return
    output.say(f"{file}: {names(manifest.projects)}, {file.stat().st_size // 1024 + 1} KiB")


def names(projects: tuple[str, ...]) -> str:
    """The projects of a backup, in words."""
    if not projects:
        return "no projects"
    return ("project " if len(projects) == 1 else "projects ") + ", ".join(projects)
