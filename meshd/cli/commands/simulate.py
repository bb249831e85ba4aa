"""`meshd simulate`: replay traffic against simulated replicas that a scaling policy controls.

`meshd.cli.simulate` holds the option types, the recorded traffic, the runs and the report; the
simulator is `autoscaler.simulate`.
"""

import asyncio
import os
from pathlib import Path
from typing import Any, Final

import click

from autoscaler import ScalingSettings, simulate, trace
from meshd.api.client import ApiFailure, NoDaemon
from meshd.cli import output
from meshd.cli.options import DURATION, output_option, state_option
from meshd.cli.simulate import recorded, report, runner
from meshd.cli.simulate.options import DurationRange, PolicyNames, WarmReplicas
from meshd.model.errors import NotFound
from meshd.spec import units


@click.command("simulate", short_help="Replay traffic against the autoscaler and other policies.")
@click.option(
    "--trace",
    "path",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="CSV file of requests: t_seconds,count.",
)
@click.option(
    "--service",
    metavar="SERVICE",
    help="Use the recorded traffic of a running service instead of a trace, with its measured "
    "service and start-up times, its limits and its objective.",
)
@click.option(
    "--last",
    type=DURATION,
    default="24h",
    show_default=True,
    help="How much of the recorded traffic to use, at most 7d.",
)
@click.option(
    "--bin",
    "bin_seconds",
    type=click.IntRange(min=1),
    metavar="SECONDS",
    help="Duration of each row of the trace. Default: the time between two rows.",
)
@click.option(
    "--peak",
    type=click.FloatRange(min=0, min_open=True),
    metavar="RPS",
    help="Scale the traffic so that its 99.9th-percentile minute has this rate.",
)
@click.option(
    "--policy",
    "policies",
    type=PolicyNames(),
    default="ours",
    show_default=True,
    help=f"Policies to compare, separated by commas: {', '.join(runner.POLICIES)}.",
)
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    metavar="N",
    default=4,
    show_default=True,
    help="Requests that a replica serves at once.",
)
@click.option(
    "--queue",
    type=click.IntRange(min=0),
    metavar="N",
    default=50,
    show_default=True,
    help="Requests that may wait in a replica; further ones are refused.",
)
@click.option(
    "--service-mean",
    type=DURATION,
    default="100ms",
    show_default=True,
    help="Mean service time of a request.",
)
@click.option(
    "--service-cv",
    type=click.FloatRange(min=0),
    metavar="CV",
    default=0.5,
    show_default=True,
    help="Coefficient of variation of the (log-normal) service time.",
)
@click.option(
    "--service-times",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="File of measured service times to use instead: seconds, one per line.",
)
@click.option(
    "--startup",
    type=DurationRange(),
    default="5s-15s",
    show_default=True,
    help="Start-up time of a replica, uniformly distributed between the two.",
)
@click.option(
    "--objective",
    type=DURATION,
    default="400ms",
    show_default=True,
    help="Latency that requests should stay below.",
)
@click.option(
    "--share",
    type=click.FloatRange(0, 100, min_open=True, max_open=True),
    metavar="PERCENT",
    default=99.6,
    show_default=True,
    help="Percentage of requests that should meet the objective.",
)
@click.option(
    "--balancer",
    type=click.Choice(["p2c", *runner.BALANCERS]),
    default="hot-cold",
    show_default=True,
    help="Load balancing algorithm of the proxy; p2c is the simulator's own and much faster.",
)
@click.option(
    "--min",
    "least",
    type=click.IntRange(min=1),
    metavar="N",
    default=1,
    show_default=True,
    help="Smallest number of replicas.",
)
@click.option(
    "--max",
    "most",
    type=click.IntRange(min=1),
    metavar="N",
    default=200,
    show_default=True,
    help="Largest number of replicas.",
)
@click.option(
    "--warm",
    type=WarmReplicas(),
    metavar="N|auto",
    default="0",
    show_default=True,
    help="Paused replicas, which are ready in 0.1 s; auto: the policy `ours` decides.",
)
@click.option(
    "--target",
    type=click.FloatRange(1, 100),
    metavar="PERCENT",
    default=70.0,
    show_default=True,
    help="Percentage of a replica's capacity that the published policies aim at.",
)
@click.option(
    "--set",
    "changes",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change a setting of the policy `ours`, e.g. p95=150ms, concurrency=4 or calm=3m.",
)
@click.option(
    "--seed",
    type=int,
    metavar="N",
    default=1,
    show_default=True,
    help="Seed of the random numbers.",
)
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    metavar="N",
    default=os.cpu_count() or 1,
    show_default="number of CPUs",
    help="Policies to simulate at once.",
)
@output_option
@state_option
@click.pass_context
def command(context: click.Context, /, **options: Any) -> None:
    """Replay traffic against a simulated service, scaled by one or more policies.

    Prints for each policy the share of requests that missed the objective, the replica-hours, the
    number of changes, and latencies. The same seed gives the same results.
    """
    try:
        load = _fetch_recorded(context, options)
        jobs, settings = _make_jobs(options, load)
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
    report.print_report(outcomes, jobs[0])


def _fetch_recorded(
    context: click.Context, options: dict[str, Any]
) -> recorded.RecordedLoad | None:
    """Return the recorded load of --service, after setting the options that were not given from
    its measurements; None with --trace. Raises ValueError."""
    if bool(options["service"]) == bool(options["path"]):
        raise ValueError("use either --trace FILE or --service SERVICE")
    if not options["service"]:
        return None
    try:
        recording = asyncio.run(
            recorded.fetch(options["state"], options["service"], options["last"])
        )
    except (NoDaemon, NotFound, ApiFailure) as error:
        raise click.ClickException(str(error)) from error
    load = recorded.parse(recording)
    default = click.core.ParameterSource.DEFAULT
    options |= {
        name: value
        for name, value in recorded.measured_options(load).items()
        if context.get_parameter_source(name) is default
    }
    return load


def _make_jobs(
    options: dict[str, Any], load: recorded.RecordedLoad | None
) -> tuple[list[runner.SimulationJob], dict[str, Any]]:
    """Return one job per policy, and the settings as the JSON output shows them."""
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
    if load is not None:
        rates = trace.rates_of(list(load.rates), 1, options["peak"])
    else:
        rates = runner.read_trace(options["path"], options["bin_seconds"], options["peak"])
    times = runner.read_times(options["service_times"]) if options["service_times"] else []
    settings = _scaling_settings(options, recorded.spec_settings(load) if load else {})
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
    shown = {key: value for key, value in options.items() if key not in _NOT_SETTINGS}
    shown["startup"] = list(options["startup"])
    shown["min"], shown["max"] = options["least"], options["most"]
    return jobs, shown


_NOT_SETTINGS: Final = frozenset(
    {"path", "as_json", "jobs", "seed", "policies", "least", "most", "service_times", "state"}
)
"""Options that the JSON output does not list under `settings`."""


def _scaling_settings(options: dict[str, Any], spec: dict[str, Any]) -> ScalingSettings:
    """Return the settings of the policy `ours`: those of the options, then those of the spec, then
    each `--set`. Raises ValueError."""
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
