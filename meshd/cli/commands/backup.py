"""`meshd backup`: write the daemon's state to a file. `meshd.store.backup` does the work."""

import sqlite3
import time
from pathlib import Path

import click

from meshd.cli import output
from meshd.cli.options import output_option, state_option
from meshd.cli.session import require_local


@click.command("backup", short_help="Write the state to a file.")
@click.argument("file", type=click.Path(dir_okay=False, resolve_path=True, path_type=Path))
@output_option
@state_option
def command(file: Path, as_json: bool, state: Path) -> None:
    """Write the state to FILE, while the daemon runs or not.

    It includes projects, revisions, overrides, what the autoscaler has learned, decisions and
    events. `meshd restore` reads the file.
    """
    require_local("backup")
    from meshd.store import backup

    try:
        manifest = backup.back_up(state, file, time.time())
    except (backup.BackupError, OSError, sqlite3.DatabaseError) as error:
        output.print_error(f"meshd: no backup was written: {error}")
        raise SystemExit(output.FAILED) from error
    if as_json:
        output.print_json(manifest)
        return
    kib = file.stat().st_size // 1024 + 1
    output.print_line(f"{file}: {describe_projects(manifest.projects)}, {kib} KiB")


def describe_projects(projects: tuple[str, ...]) -> str:
    """Return the projects of a backup for a message."""
    if not projects:
        return "no projects"
    return ("project " if len(projects) == 1 else "projects ") + ", ".join(projects)
