"""What the scenario prints: the live display on a terminal, and the report at the end."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

BLOCKS = " ▁▂▃▄▅▆▇█"
LINES_SHOWN = 8
"""Latest lines in the live display; with the table they fit a terminal of 24 lines."""


def format_latency(seconds: float | None) -> str:
    """Return a latency in milliseconds; a dash if none was measured."""
    return "–" if seconds is None else f"{seconds * 1000:.0f} ms"


def services_table(services: Mapping[str, Mapping[str, Any]]) -> Table:
    """Return a table of the services: replicas, traffic, latency, and the last event."""
    table = Table(expand=True, title_justify="left")
    for name in ("service", "replicas", "req/s", "p50", "p95", "p99", "errors", "last event"):
        right = name not in ("service", "last event")
        table.add_column(name, justify="right" if right else "left", no_wrap=name != "last event")
    for name, service in sorted(services.items()):
        ready, wanted = service["ready"], service["wanted"]
        table.add_row(
            name,
            Text(f"{ready}/{wanted}", style="green" if ready >= wanted else "yellow"),
            f"{service['rps']:.0f}",
            format_latency(service["p50"]),
            format_latency(service["p95"]),
            format_latency(service["p99"]),
            Text(str(service["errors_total"]), style="red" if service["errors_total"] else ""),
            service["last"],
        )
    return table


def live_display(
    services: Mapping[str, Mapping[str, Any]],
    phase: str,
    clients: Mapping[str, Any],
    lines: Sequence[str],
) -> Group:
    """Return the live display: the clients' totals, the services, and the latest lines."""
    total = f"{clients.get('served', 0)} served, {clients.get('failed', 0)} failed"
    head = Text.assemble(
        (f" {phase} ", "bold reverse"),
        f"  {clients.get('users', 0)} guests, {clients.get('rps', 0):.0f} requests/s, {total}",
    )
    return Group(
        head, services_table(services), *(Text(f"  {line}") for line in lines[-LINES_SHOWN:])
    )


def chart(samples: Sequence[Sequence[float]], width: int = 72) -> str:
    """Return a line of blocks for `samples` of (seconds, count). Each block shows the largest count
    of its part of the time, relative to the largest of all."""
    if not samples:
        return ""
    last = max(samples[-1][0], 1e-9)
    columns = [0.0] * width
    for at, count in samples:
        index = min(int(at / last * width), width - 1)
        columns[index] = max(columns[index], count)
    for index in range(1, width):
        columns[index] = columns[index] or columns[index - 1]
    top = max(columns)
    return "".join(BLOCKS[round(c / top * (len(BLOCKS) - 1))] if top else " " for c in columns)


def format_report(figures: Mapping[str, Any]) -> str:
    """Return the report at the end."""
    heal = figures["heal_seconds"]
    lines = [
        "",
        f"requests   {figures['served']} served, {figures['failed']} failed, "
        f"{figures['retried']} retried by the mesh",
        f"latency    p50 {figures['p50_ms']} ms, p95 {figures['p95_ms']} ms, "
        f"p99 {figures['p99_ms']} ms, measured by the clients",
        f"healing    {'not observed' if heal is None else f'{heal:.1f} s after the kill'}",
        f"rollout    {figures['rollout']}",
        f"scaling    {', '.join(f'{name} {text}' for name, text in figures['scaled'].items())}",
        "replicas ready over time:",
    ]
    for name, samples in figures["scaling"].items():
        counts = [int(count) for _, count in samples]
        span = f"{min(counts)}–{max(counts)}" if counts else "none"
        lines.append(f"  {name:<12} {chart(samples)} {span}")
    lines += [
        f"  failed: {error['count']} × {error['request']}: {error['error']}"
        for error in figures["errors"]
    ]
    return "\n".join(lines)
