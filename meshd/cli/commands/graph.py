"""`meshd graph`: who calls whom, with rates."""

import asyncio
import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click
from prometheus_client.parser import text_string_to_metric_families

from meshd.cli import output
from meshd.cli.options import POSITIVE_DURATION, project_option, state_option
from meshd.cli.session import connect, run_async

OUTSIDE: Final = "outside"
"""The caller of requests that come through routes and published ports."""
COLUMNS: Final = ("caller", "service", "rps", "calls")


@dataclass(frozen=True, slots=True)
class Edge:
    """Calls from one service to another: `rate` a second, `total` since the workers started."""

    caller: str
    service: str
    rate: float
    total: float


@click.command("graph", short_help="Show who calls whom.")
@project_option("Only calls to services of this project.")
@click.option(
    "--over",
    "seconds",
    type=POSITIVE_DURATION,
    default="3s",
    show_default=True,
    help="Time over which rates are measured.",
)
@click.option("--all", "everything", is_flag=True, help="Also callers without a call in that time.")
@click.option(
    "-o",
    "--output",
    "form",
    type=click.Choice(["text", "dot", "json", "yaml"]),
    default="text",
    show_default=True,
    help="Print a tree, a graph for Graphviz (`meshd graph -o dot | dot -Tsvg`), JSON or YAML.",
)
@state_option
@run_async
async def command(
    project: str | None, seconds: float, everything: bool, form: str, state: Path
) -> int:
    """Show which services call which, with requests per second; `outside` means routes and
    published ports."""
    async with connect(state) as client:
        before = parse_calls(await client.metrics())
        await asyncio.sleep(seconds)
        after = parse_calls(await client.metrics())
        several = len({each.project for each in (await client.status()).services}) > 1
    edges = make_edges(before, after, seconds)
    if project is not None:
        edges = [each for each in edges if each.service.partition("/")[0] == project]
    if not everything:
        edges = [each for each in edges if each.rate > 0.0]
    if form in ("json", "yaml"):
        output.choose_format(form)
        output.print_json(
            [
                {"caller": e.caller, "service": e.service, "rps": e.rate, "calls": round(e.total)}
                for e in edges
            ]
        )
    elif form == "dot":
        output.print_line(format_dot(edges, several=several))
    elif not edges:
        output.print_line(
            f"no calls in {output.format_seconds(seconds)}; --all shows earlier callers too"
        )
    else:
        for line in format_tree(edges, several=several):
            output.print_line(line)
    return output.OK


def parse_calls(metrics: str) -> Mapping[tuple[str, str], float]:
    """Return the number of calls by (caller, service) from metrics in the Prometheus text format.
    Requests that are no calls of a service come from outside."""
    calls: defaultdict[tuple[str, str], float] = defaultdict(float)
    requests: defaultdict[str, float] = defaultdict(float)
    for family in text_string_to_metric_families(metrics):
        for sample in family.samples:
            service = sample.labels.get("service", "")
            if sample.name == "meshd_calls_total":
                calls[(sample.labels["caller"], service)] += sample.value
            elif sample.name == "meshd_requests_total":
                requests[service] += sample.value
    for service, total in requests.items():
        inside = sum(number for (_, called), number in calls.items() if called == service)
        if total > inside:
            key = (OUTSIDE, service)
            calls[key] += total - inside
    return calls


def make_edges(
    before: Mapping[tuple[str, str], float], after: Mapping[tuple[str, str], float], seconds: float
) -> list[Edge]:
    """Return the edges by two counts that are `seconds` apart, the busiest first."""
    edges = [
        Edge(caller, service, max(0.0, total - before.get((caller, service), 0.0)) / seconds, total)
        for (caller, service), total in after.items()
    ]
    return sorted(edges, key=lambda each: (-each.rate, each.caller, each.service))


def format_tree(edges: list[Edge], *, several: bool) -> list[str]:
    """Return the graph as a tree from its callers; a service is expanded once."""
    called = {each.service for each in edges if each.caller != each.service}
    roots = [name for name in dict.fromkeys(e.caller for e in edges) if name not in called]
    roots.sort(key=lambda name: name != OUTSIDE)
    lines: list[str] = []
    expanded: set[str] = set()

    def add(name: str, depth: int) -> None:
        expanded.add(name)
        for edge in (each for each in edges if each.caller == name):
            seen = edge.service in expanded
            has_more = seen and any(each.caller == edge.service for each in edges)
            shown = _short(edge.service, several=several)
            lines.append(
                f"{'  ' * depth}→ {shown}  {edge.rate:.1f}/s{'  (above)' if has_more else ''}"
            )
            if not seen:
                add(edge.service, depth + 1)

    # Services that only call each other in a circle have no root.
    for name in [*roots, *(each.caller for each in edges)]:
        if name not in expanded:
            lines.append(_short(name, several=several))
            add(name, 1)
    return lines


def format_dot(edges: list[Edge], *, several: bool) -> str:
    """Return the graph in the language of Graphviz."""
    lines = ["digraph mesh {", "  rankdir=LR;", "  node [shape=box];"]
    for edge in edges:
        caller, service = (
            json.dumps(_short(name, several=several)) for name in (edge.caller, edge.service)
        )
        lines.append(f'  {caller} -> {service} [label="{edge.rate:.1f}/s"];')
    return "\n".join([*lines, "}"])


def _short(key: str, *, several: bool) -> str:
    return key if several else key.rpartition("/")[2]
