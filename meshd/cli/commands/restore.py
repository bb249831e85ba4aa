"""`meshd restore`: use a backup as the state. `meshd.store.backup` does the work."""

from pathlib import Path

import click

from meshd.cli import output
from meshd.cli.commands.backup import describe_projects
from meshd.cli.options import output_option, state_option
from meshd.cli.session import require_local


@click.command("restore", short_help="Restore the state from a backup.")
@click.argument(
    "file", type=click.Path(exists=True, dir_okay=False, resolve_path=True, path_type=Path)
)
@click.option("--replace", is_flag=True, help="Move an existing state aside.")
@output_option
@state_option
def command(file: Path, replace: bool, as_json: bool, state: Path) -> None:
    """Restore the state from FILE, which `meshd backup` wrote. No daemon may run.

    The next `meshd up` continues with it: replicas that still run are kept, missing ones are
    started.
    """
    require_local("restore")
    from meshd.store import backup
    from meshd.store.lock import StateLocked

    try:
        manifest = backup.restore(file, state, replace)
    except (backup.BadBackup, backup.BackupError, StateLocked, OSError) as error:
        output.print_error(f"meshd: nothing was restored: {error}")
        raise SystemExit(output.FAILED) from error
    if as_json:
        output.print_json(manifest)
        return
    output.print_line(
        f"{state}: restored {describe_projects(manifest.projects)}; `meshd up` continues with it"
    )
