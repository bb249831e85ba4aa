"""`meshd drain`: replace one replica."""

from pathlib import Path

import click

from meshd.cli import output
from meshd.cli.options import output_option, state_option
from meshd.cli.session import complete_replica, connect, run_async


@click.command("drain", short_help="Take one replica out of rotation and replace it.")
@click.argument("replica", shell_complete=complete_replica)
@output_option
@state_option
@run_async
async def command(replica: str, as_json: bool, state: Path) -> int:
    """Take REPLICA out of rotation, let it finish its requests, and replace it.

    `meshd ps -r` lists the names of replicas.
    """
    async with connect(state) as client:
        await client.drain(replica)
    if as_json:
        output.print_json({"replica": replica, "draining": True})
    else:
        output.print_line(f"{replica} is draining; see `meshd ps -r`")
    return output.OK
