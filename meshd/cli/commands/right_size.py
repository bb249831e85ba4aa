"""`meshd right-size`: propose limits and reservations from what replicas used."""

from pathlib import Path

import click

from meshd.cli import output
from meshd.cli.options import output_option, service_argument, state_option
from meshd.cli.session import connect, find_service, run_async
from meshd.model.errors import NotFound
from meshd.model.scaling import Sizing

COLUMNS = (
    "service", "cpu p50", "cpu p95", "cpu max", "cpu/request", "memory max", "limits now",
    "limits proposed", "reservations proposed",
)  # fmt: skip


@click.command("right-size", short_help="Propose limits from what replicas used.")
@service_argument(required=False)
@output_option
@state_option
@run_async
async def command(service: str | None, as_json: bool, state: Path) -> int:
    """Show what the replicas of SERVICE, or of all services, used in the last week, and propose
    limits and reservations with the reasons. Changes nothing.

    CPU columns are cores of one replica; MEMORY_MAX is the largest use of one replica.
    """
    async with connect(state) as client:
        sizes = list(await client.sizes())
        if service:
            found = find_service(await client.status(), service)
            sizes = [size for size in sizes if size.service == f"{found.project}/{found.name}"]
            if not sizes:
                raise NotFound(f"meshd records no usage of {service}, because it was adopted")
    if as_json:
        output.print_json(sizes)
        return output.OK
    output.print_table(COLUMNS, [sizing_row(size) for size in sizes])
    for size in sizes:
        for line in size.why:
            output.print_line(f"{size.service}: {line}")
    return output.OK


def sizing_row(size: Sizing) -> list[str]:
    """Return the row of a service; the columns are `COLUMNS`."""
    return [
        size.service,
        f"{size.cpu_p50:.2g}",
        f"{size.cpu_p95:.2g}",
        f"{size.cpu_max:.2g}",
        output.format_seconds(size.cpu_per_request) or "-",
        output.format_bytes(size.memory_max) + (f" ({size.ooms} killed)" if size.ooms else ""),
        format_resources(size.limit_cpus, size.limit_memory),
        format_resources(size.proposed_cpus, size.proposed_memory),
        format_resources(size.proposed_reserved_cpus, size.proposed_reserved_memory),
    ]


def format_resources(cpus: float, memory: int) -> str:
    """Return CPUs and memory as one cell; 0 is left out."""
    parts = [f"{cpus:g} CPU" if cpus == 1 else f"{cpus:g} CPUs"] if cpus else []
    return ", ".join([*parts, output.format_bytes(memory)] if memory else parts) or "-"
