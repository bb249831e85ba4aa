"""`meshd simulate`: what the autoscaler would do with a trace, beside the others."""

import asyncio
import os
from pathlib import Path
from typing import Any, Final

import click

from autoscaler import ScalingSettings, simulate, trace
from meshd.api.client import ApiFailure, NoDaemon
from meshd.cli import output
from meshd.cli.session import state_option
from meshd.cli.simulate import report, runner
from meshd.cli.simulate.options import Duration, Policies, SpanType, Warm
from meshd.cli.simulate.recorded import Recorded, fetch, read
from meshd.cli.simulate.recorded import options as measured
from meshd.cli.simulate.recorded import settings as asked
from meshd.model.errors import NotFound
from meshd.spec import units


@click.command("simulate", short_help="Replay a trace against the autoscaler and others.")
@click.option(
    "--trace",
    "path",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Requests as CSV: t_seconds,count.",
)
@click.option(
    "--service",
    metavar="SERVICE",
    help="Instead of a trace: the recorded traffic of a running service, with its measured "
    "service time and start-up, its bounds and its objective.",
)
@click.option("--last", type=Duration(), default="24h", show_default=True,
              help="How much of the recorded traffic, up to 7 days.")  # fmt: skip
@click.option(
    "--bin",
    "bin_seconds",
    type=click.IntRange(min=1),
    metavar="SECONDS",
    help="How long a row lasts; otherwise what t_seconds says.",
)
@click.option(
    "--peak",
    type=click.FloatRange(min=0, min_open=True),
    metavar="RPS",
    help="Scale the trace so that its 99.9th-percentile minute has this rate.",
)
@click.option(
    "--policy",
    "policies",
    type=Policies(),
    default="ours",
    show_default=True,
    help=f"Any of {','.join(runner.POLICIES)}, side by side.",
)
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    default=4,
    show_default=True,
    help="Requests a replica serves at once.",
)
@click.option(
    "--queue",
    type=click.IntRange(min=0),
    default=50,
    show_default=True,
    help="Requests that may wait in a replica; more are refused.",
)
@click.option("--service-mean", type=Duration(), default="100ms", show_default=True)
@click.option(
    "--service-cv",
    type=click.FloatRange(min=0),
    default=0.5,
    show_default=True,
    help="Standard deviation of the (log-normal) service time over its mean.",
)
@click.option(
    "--service-times",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Measured service times in seconds, one a line, instead.",
)
@click.option(
    "--startup",
    type=SpanType(),
    default="5s-15s",
    show_default=True,
    help="Start-up time of a replica, uniform between the two.",
)
@click.option("--objective", type=Duration(), default="400ms", show_default=True)
@click.option(
    "--share",
    type=click.FloatRange(0, 100, min_open=True, max_open=True),
    default=99.6,
    show_default=True,
    help="Percent of requests within the objective.",
)
@click.option(
    "--balancer",
    type=click.Choice(["p2c", *runner.BALANCERS]),
    default="hot-cold",
    show_default=True,
    help="The mesh's own; p2c is built into the simulator and much faster.",
)
@click.option("--min", "least", type=click.IntRange(min=1), default=1, show_default=True)
@click.option("--max", "most", type=click.IntRange(min=1), default=200, show_default=True)
@click.option(
    "--warm",
    type=Warm(),
    default="0",
    show_default=True,
    help="Replicas held paused, ready in 0.1 s; auto: as many as ours finds worth it.",
)
@click.option(
    "--target",
    type=click.FloatRange(1, 100),
    default=70.0,
    show_default=True,
    help="Percent of capacity that the published policies aim at.",
)
@click.option(
    "--set",
    "changes",
    multiple=True,
    metavar="KEY=VALUE",
    help="Another setting of ours: p95=150ms, concurrency=4, calm=3m, …",
)
@click.option("--seed", type=int, default=1, show_default=True)
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    default=os.cpu_count() or 1,
    show_default="processors",
    help="Policies simulated at once.",
)
@output.output_option
@state_option
@click.pass_context
def command(context: click.Context, /, **options: Any) -> None:
    """Play a trace of requests through a simulated service, scaled by one policy or several.

    Tells the share of requests over the objective, the replica-hours paid for, how often the
    number was changed, and latency. The same seed gives the same figures.
    """  # fmt: skip
    try:
        recorded = _take_recorded(context, options)
        jobs, settings = _jobs(options, recorded)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    outcomes = runner.run_all(jobs, options["jobs"])
    if options["as_json"]:
        output.print_json(
            {
                "trace": str(options["path"] or options["service"]),
                "settings": settings,
                "seed": options["seed"],
                "policies": [report.figures(outcome) for outcome in outcomes],
            }
        )
        return
    report.show(outcomes, jobs[0])


def _take_recorded(context: click.Context, options: dict[str, Any]) -> Recorded | None:
    """With --service: what was recorded of it, after putting it into the options that were not
    given. Raises ValueError."""
    if bool(options["service"]) == bool(options["path"]):
        raise ValueError("give either --trace FILE or --service SERVICE")
    if not options["service"]:
        return None
    try:
        told = asyncio.run(fetch(options["state"], options["service"], options["last"]))
    except (NoDaemon, NotFound, ApiFailure) as error:
        raise click.ClickException(str(error)) from error
    recorded = read(told)
    default = click.core.ParameterSource.DEFAULT
    options |= {
        name: value
        for name, value in measured(recorded).items()
        if context.get_parameter_source(name) is default
    }
    return recorded


def _jobs(
    options: dict[str, Any], recorded: Recorded | None
) -> tuple[list[runner.SimulationJob], dict[str, Any]]:
    model = simulate.ServiceModel(
        workers=options["workers"],
        queue=options["queue"],
        service_mean=options["service_mean"],
        service_cv=options["service_cv"],
        startup=options["startup"],
        objective=options["objective"],
        min_replicas=options["least"],
        max_replicas=options["most"],
        warm=None if options["warm"] == "auto" else options["warm"],
    )
    if recorded is not None:
        rates = trace.rates_of(list(recorded.rates), 1, options["peak"])
    else:
        rates = runner.read_trace(options["path"], options["bin_seconds"], options["peak"])
    times = runner.read_times(options["service_times"]) if options["service_times"] else []
    settings = _settings(options, asked(recorded) if recorded else {})
    jobs = [
        runner.SimulationJob(
            name,
            tuple(rates),
            model,
            settings,
            options["balancer"],
            options["target"],
            options["seed"],
            tuple(times),
        )
        for name in options["policies"]
    ]
    told = {key: value for key, value in options.items() if key not in _NOT_SETTINGS}
    told["startup"] = list(options["startup"])
    told["min"], told["max"] = options["least"], options["most"]
    return jobs, told


_NOT_SETTINGS: Final = frozenset(
    {"path", "as_json", "jobs", "seed", "policies", "least", "most", "service_times", "state"}
)


def _settings(options: dict[str, Any], spec: dict[str, Any]) -> ScalingSettings:
    """What ours is set to: the objective of the model, or what the spec asks for, and every
    `--set` on top."""
    values: dict[str, Any] = {
        "min": options["least"],
        "max": options["most"],
        "latency": options["objective"],
        "share": options["share"],
        **spec,
    }
    for change in options["changes"]:
        key, _, value = change.partition("=")
        if not value:
            raise ValueError(f"--set {change}: expected KEY=VALUE")
        if key.startswith("p") and _is_percentile(key[1:]):
            values["latency"], values["share"] = units.parse_duration(value), float(key[1:])
        elif key in ("latency", "queue", "down_window", "calm", "idle"):
            values[key] = units.parse_duration(value)
        elif key in ("min", "max", "step_up_least"):
            values[key] = int(value)
        elif key in ("share", "concurrency", "rps", "cpu", "step_up", "step_down"):
            values[key] = float(value)
        else:
            raise ValueError(f"--set {change}: no setting {key!r}")
    return ScalingSettings(**values)


def _is_percentile(text: str) -> bool:
    return text.replace(".", "", 1).isdigit() and 0.0 < float(text) < 100.0
