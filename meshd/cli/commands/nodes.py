"""`meshd nodes`: list the nodes of the runtime."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import click

from meshd.api.dto import NodeStatus
from meshd.cli import output
from meshd.cli.options import state_option, wide_output_option
from meshd.cli.session import connect, run_async
from meshd.model.node_proxy import NodeLoad

COLUMNS: Final = (
    "node", "state", "availability", "role", "address", "engine", "replicas", "cpus free",
    "memory free", "used", "proxy",
)  # fmt: skip
WIDE_COLUMNS: Final = (*COLUMNS, "cpus reserved", "memory reserved", "labels")


@click.command("nodes", short_help="List the nodes of the runtime.")
@wide_output_option
@state_option
@run_async
async def command(as_json: bool, state: Path) -> int:
    """List the nodes of the runtime: whether they answer and take replicas, and what is free.

    Free is what neither a replica nor anything else in the Swarm reserves
    (deploy.resources.reservations). USED is how much of the processors and of the memory is in
    use, whether reserved or not, over the last half minute. PROXY is the node's own proxy
    (`meshd node join`): whether it is connected, and the generation of its routes. `meshd node`
    changes nodes.
    """
    async with connect(state) as client:
        found = await client.nodes()
    if as_json:
        output.print_json(found)
        return output.OK
    rows = [node_row(each, wide=output.is_wide()) for each in found]
    output.print_table(WIDE_COLUMNS if output.is_wide() else COLUMNS, rows)
    for node in found:
        if node.drain:
            output.print_line(f"{node.name} is being drained: {node.drain}")
        if node.problem:
            output.print_error(node.problem)
    missing = [node.name for node in found if not node.has_proxy]
    if missing:
        allowed = all(not node.needs_proxy for node in found)
        output.print_error(
            f"no proxy on {', '.join(missing)}: run `meshd node join` there; "
            + (
                "calls to and from there are in clear text (--allow-clear-text)"
                if allowed
                else "mesh-managed services are not placed there"
            )
        )
    return output.OK


def format_load(load: NodeLoad | None) -> str:
    """Return the shares of the processors and of the memory that are in use."""
    return f"{load.cpu:.0%} cpu, {load.memory:.0%} mem" if load is not None else "-"


def format_proxy(node: NodeStatus) -> str:
    """Return the state of a node's own proxy, with its generation while it is connected."""
    proxy = node.proxy
    if proxy is None:
        if node.has_proxy:
            return "-"
        return "none" if node.needs_proxy else "none, clear text"
    if proxy.state == "lost":
        return f"lost since {output.format_time(proxy.since)}" if proxy.since else "lost"
    epoch, number = proxy.generation
    return f"{proxy.state} {epoch}.{number}"


def node_row(node: NodeStatus, *, wide: bool) -> Sequence[str]:
    """Return the row of one node."""
    row = [
        node.name,
        node.state,
        "draining" if node.drain else node.availability,
        node.role,
        node.address,
        node.engine,
        str(node.replicas),
        f"{max(0.0, node.cpus - node.reserved_cpus):g} of {node.cpus:g}",
        f"{output.format_bytes(max(0, node.memory - node.reserved_memory))} of "
        f"{output.format_bytes(node.memory)}",
        format_load(node.load),
        format_proxy(node),
    ]
    if wide:
        labels = " ".join(f"{name}={value}" for name, value in sorted(node.labels.items()))
        row += [f"{node.reserved_cpus:g}", output.format_bytes(node.reserved_memory), labels]
    return row
