"""`meshd right-size`: limits and reservations, proposed from what replicas used."""

from pathlib import Path

import click

from meshd.cli import output
from meshd.cli.session import complete_service, connect, find_service, state_option, talks
from meshd.model.errors import NotFound
from meshd.model.scaling import Sizing

COLUMNS = (
    "service", "cpu p50", "cpu p95", "cpu max", "cpu/request", "memory max", "limits now",
    "limits proposed", "reservations proposed",
)  # fmt: skip


@click.command("right-size", short_help="Propose limits from what replicas used.")
@click.argument("service", required=False, shell_complete=complete_service)
@output.output_option
@state_option
@talks
async def command(service: str | None, as_json: bool, state: Path) -> int:
    """Show what the replicas of SERVICE (or of all) used in the last week, and the limits and
    reservations that this proposes, with the reasons. Nothing is changed."""
    async with connect(state) as client:
        sizes = list(await client.sizes())
        if service:
            found = find_service(await client.status(), service)
            sizes = [size for size in sizes if size.service == f"{found.project}/{found.name}"]
            if not sizes:
                raise NotFound(f"nothing is recorded of {service}: it was adopted")
    if as_json:
        output.print_json(sizes)
        return output.OK
    output.print_table(COLUMNS, [row(size) for size in sizes])
    for size in sizes:
        for line in size.why:
            output.say(f"{size.service}: {line}")
    return output.OK


def row(size: Sizing) -> list[str]:
    """One row a service."""
    proposed = both(size.proposed_cpus, size.proposed_memory)
    reserved = both(size.proposed_reserved_cpus, size.proposed_reserved_memory)
    return [
        size.service,
        f"{size.cpu_p50:.2g}",
        f"{size.cpu_p95:.2g}",
        f"{size.cpu_max:.2g}",
        output.seconds(size.cpu_per_request) or "-",
        output.size(size.memory_max) + (f" ({size.ooms} killed)" if size.ooms else ""),
        both(size.limit_cpus, size.limit_memory),
        proposed,
        reserved,
    ]


def both(cpus: float, memory: int) -> str:
    """CPUs and memory in a cell."""
    parts = [f"{cpus:g} CPUs"] if cpus else []
    return ", ".join([*parts, output.size(memory)] if memory else parts) or "-"
