"""`meshd drain`: take one replica out."""

from pathlib import Path

import click

from meshd.cli import output
from meshd.cli.session import complete_replica, connect, state_option, talks


@click.command("drain", short_help="Take one replica out of rotation.")
@click.argument("replica", shell_complete=complete_replica)
@output.output_option
@state_option
@talks
async def command(replica: str, as_json: bool, state: Path) -> int:
    """Take REPLICA out of rotation, let it finish what it has, and replace it."""
    async with connect(state) as client:
        await client.drain(replica)
    if as_json:
        output.print_json({"replica": replica, "draining": True})
    else:
        output.say(f"{replica} is draining; see `meshd ps -r`")
    return output.OK
