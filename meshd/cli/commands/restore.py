"""`meshd restore`: a backup becomes the state."""

from pathlib import Path

import click

from meshd.cli import output
from meshd.cli.commands.backup import names
from meshd.cli.session import state_option


@click.command("restore", short_help="Make a backup the state.")
@click.argument(
    "file", type=click.Path(exists=True, dir_okay=False, resolve_path=True, path_type=Path)
)
@click.option("--replace", is_flag=True, help="Set a state that is there aside.")
@output.output_option
@state_option
def command(file: Path, replace: bool, as_json: bool, state: Path) -> None:
    """Make what `meshd backup` wrote to FILE the state, where no daemon runs. The next
    `meshd up` goes on with it: replicas that still run are kept, others are started."""
    from meshd.store import backup
    from meshd.store.lock import StateLocked

    try:
        manifest = backup.restore(file, state, replace)
    except (backup.BadBackup, backup.BackupError, StateLocked, OSError) as error:
        output.complain(f"meshd: nothing was restored: {error}")
        raise SystemExit(output.FAILED) from error
    if as_json:
        output.print_json(manifest)
        return
    output.say(f"{state}: {names(manifest.projects)}; `meshd up` goes on with it")
