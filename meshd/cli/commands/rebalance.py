"""`meshd rebalance`: spread replicas evenly over the nodes."""

from pathlib import Path

import click

from meshd.cli import output
from meshd.cli.options import output_option, state_option
from meshd.cli.session import connect, run_async


@click.command("rebalance", short_help="Spread replicas evenly over the nodes.")
@click.option("--dry-run", is_flag=True, help="Only say how many replicas would move.")
@output_option
@state_option
@run_async
async def command(dry_run: bool, as_json: bool, state: Path) -> int:
    """Move replicas to the nodes that have the fewest of their service, as after a node joined.

    One replica moves at a time, and only after its successor is ready. Services with volumes and
    those that stop a replica before its successor starts stay where they are, and so do those with
    a rollout under way. `meshd events -f` shows the moves.
    """
    async with connect(state) as client:
        found = await client.rebalance(dry_run)
    if as_json:
        output.print_json(found)
    elif not found.moves:
        output.print_line("all services are spread evenly over the nodes")
    else:
        verb = "would move" if dry_run else "move, one at a time; `meshd events -f` shows them"
        output.print_line(f"{found.moves} replica{'s' if found.moves > 1 else ''} {verb}")
    return output.OK
