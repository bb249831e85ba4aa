"""What the scenario shows: a live table, one line an event without a terminal, a report."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

BLOCKS = " ▁▂▃▄▅▆▇█"


def milliseconds(seconds: float | None) -> str:
    """A latency for people; a dash where none was measured."""
    return "–" if seconds is None else f"{seconds * 1000:.0f} ms"


def services_table(services: Mapping[str, Mapping[str, Any]]) -> Table:
    """Each service's replicas, traffic and latency, and what happened last and why."""
    table = Table(expand=True, title_justify="left")
    for name in ("service", "replicas", "req/s", "p50", "p95", "p99", "errors", "what and why"):
        right = name not in ("service", "what and why")
        table.add_column(name, justify="right" if right else "left", no_wrap=name != "what and why")
    for name, service in sorted(services.items()):
        ready, wanted = service["ready"], service["wanted"]
        table.add_row(
            name,
            Text(f"{ready}/{wanted}", style="green" if ready >= wanted else "yellow"),
            f"{service['rps']:.0f}",
            milliseconds(service["p50"]),
            milliseconds(service["p95"]),
            milliseconds(service["p99"]),
            Text(str(service["errors_total"]), style="red" if service["errors_total"] else ""),
            service["last"],
        )
    return table


def screen(
    services: Mapping[str, Mapping[str, Any]],
    act: str,
    clients: Mapping[str, Any],
    happened: Sequence[str],
) -> Group:
    """The whole live picture."""
    total = f"{clients.get('served', 0)} served, {clients.get('failed', 0)} failed"
    head = Text.assemble(
        (f" {act} ", "bold reverse"),
        f"  {clients.get('users', 0)} guests, {clients.get('rps', 0):.0f} requests/s, {total}",
    )
    return Group(head, services_table(services), *(Text(f"  {line}") for line in happened[-8:]))


def chart(samples: Sequence[Sequence[float]], width: int = 72) -> str:
    """A row of blocks for one service: `samples` are (seconds, count), drawn as the largest
    count of each column over the highest of all."""
    if not samples:
        return ""
    last = max(samples[-1][0], 1e-9)
    columns = [0.0] * width
    for at, count in samples:
        place = min(int(at / last * width), width - 1)
        columns[place] = max(columns[place], count)
    for place in range(1, width):
        columns[place] = columns[place] or columns[place - 1]
    top = max(columns)
    return "".join(BLOCKS[round(c / top * (len(BLOCKS) - 1))] if top else " " for c in columns)


def report(figures: Mapping[str, Any]) -> str:
    """The end of the story in words."""
    heal = figures["heal_seconds"]
    lines = [
        "",
        f"requests   {figures['served']} served, {figures['failed']} failed, "
        f"{figures['retried']} retried by the mesh",
        f"latency    p50 {figures['p50_ms']} ms, p95 {figures['p95_ms']} ms, "
        f"p99 {figures['p99_ms']} ms, as the clients saw it",
        f"healing    {'not observed' if heal is None else f'{heal:.1f} s'} from kill to healed",
        f"rollout    {figures['rollout']}",
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
