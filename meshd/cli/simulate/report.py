"""Reports the results of simulated policies: figures for JSON, a table and a chart for people.

Called by `meshd.cli.commands.simulate` with the outcomes of `meshd.cli.simulate.runner`.
"""

from typing import Any, Final

from meshd.cli import output
from meshd.cli.simulate import runner

BLOCKS: Final = " ▁▂▃▄▅▆▇█"
CHART_WIDTH: Final = 72
"""Terminal columns of the chart; with its labels it fits a line of 100."""


def figures(outcome: runner.Outcome) -> dict[str, Any]:
    """Return the figures of one policy, as in the JSON output."""
    result = outcome.result
    return {
        "name": outcome.name,
        "missed_pct": round(result.missed_pct, 4),
        "replica_hours": round(result.replica_hours, 3),
        "actions": result.actions,
        "p50_ms": _milliseconds(result.quantile(0.5)),
        "p95_ms": _milliseconds(result.quantile(0.95)),
        "p99_ms": _milliseconds(result.quantile(0.99)),
        "warm_hours": round(result.warm_hours, 3),
        "requests": result.requests,
    }


def _milliseconds(value: float | None) -> float | None:
    return None if value is None else round(1000.0 * value, 1)


def print_report(outcomes: list[runner.Outcome], job: runner.SimulationJob) -> None:
    """Print a table of the policies, and a chart of the traffic and of each policy's replicas."""
    columns = ("policy", "missed", "replica-hours", "actions", "p50", "p95", "p99", "took")
    rows = []
    for outcome in outcomes:
        result = outcome.result
        rows.append(
            [
                outcome.name,
                f"{result.missed_pct:.3f} %",
                f"{result.replica_hours:.2f}",
                str(result.actions),
                *[output.format_seconds(result.quantile(q)) for q in (0.5, 0.95, 0.99)],
                output.format_seconds(outcome.seconds),
            ]
        )
    output.print_table(columns, rows)
    output.print_line("")
    chart = outcomes[0].result.chart
    arrivals = [float(count) for _, count, _, _ in chart]
    output.print_line(f"{'requests/s':>12} {_bar_line(arrivals)} {max(arrivals):.0f}")
    most = max(ready for outcome in outcomes for _, _, ready, _ in outcome.result.chart)
    for outcome in outcomes:
        ready = [float(count) for _, _, count, _ in outcome.result.chart]
        bars = _bar_line(ready, float(most))
        output.print_line(f"{outcome.name:>12} {bars} {max(ready):.0f} replicas")
    output.print_line(f"{'':>12} {len(job.rates) / 3600.0:.1f} hours, left to right")


def _bar_line(values: list[float], top: float | None = None) -> str:
    """Return a line of blocks; each shows the maximum of its part of the values, relative to
    `top` (None: the largest)."""
    width = min(CHART_WIDTH, len(values))
    maxima = [
        max(values[at * len(values) // width : max(1, (at + 1) * len(values) // width)])
        for at in range(width)
    ]
    highest = top or max(maxima) or 1.0
    return "".join(BLOCKS[round(value / highest * (len(BLOCKS) - 1))] for value in maxima)
