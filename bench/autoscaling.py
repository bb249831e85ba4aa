"""The autoscaler against the published ones on every trace of a folder.

    MESHD_TRACES=FOLDER python -m bench.autoscaling [--share 99.6] [--policy ours,kpa,...]
    MESHD_TRACES=FOLDER python -m bench.autoscaling --curve      the price of calm
    python -m bench.autoscaling --step                           what a decision costs

A trace is `NAME_BINs.csv` (`t_seconds,count`); hourly ones are played as minutes. Every run is
the model of docs/autoscaler.md, one setting for all traces, and takes one process.
"""

import argparse
import os
import random
import sys
from math import sin
from pathlib import Path
from time import process_time

from autoscaler import Decision, ScalingSettings, Signal, State, make, simulate
from meshd.cli.simulate import runner

CALMS = (
    (5.0, None), (None, None), (150.0, None), (250.0, None), (900.0, 200.0), (2500.0, 400.0),
)  # fmt: skip
"""Points of the curve: `calm`, and `down_window`, each None for the default."""


def main() -> int:
    """Prints one line a policy (or a point of the curve), and what it did on each trace."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--policy", default="ours,kpa,hpa-cpu,hpa-rps,oracle")
    parser.add_argument("--share", type=float, default=99.6)
    parser.add_argument("--balancer", default="p2c")
    parser.add_argument("--startup", type=float, nargs=2, default=(5.0, 15.0))
    parser.add_argument("--warm", default="0", help="a number of paused replicas, or auto")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--only", default="", help="traces whose name contains this")
    parser.add_argument("--curve", action="store_true", help="ours, from lively to calm")
    parser.add_argument("--step", action="store_true", help="CPU time of one step")
    options = parser.parse_args()
    if options.step:
        step()
        return 0
    folder = os.environ.get("MESHD_TRACES")
    if not folder:
        print("MESHD_TRACES names no folder with traces", file=sys.stderr)
        return 2
    paths = [path for path in sorted(Path(folder).glob("*.csv")) if options.only in path.name]
    if options.curve:
        for calm, window in CALMS:
            title = f"ours, calm {calm or 'as usual'}, window {window or 'as usual'}"
            report(title, "ours", paths, options, calm, window)
        return 0
    for policy in options.policy.split(","):
        report(policy, policy, paths, options)
    return 0


def report(
    title: str,
    policy: str,
    paths: list[Path],
    options: argparse.Namespace,
    calm: float | None = None,
    window: float | None = None,
) -> None:
    """Runs one policy over all traces and prints what it came to."""
    model = simulate.ServiceModel(
        startup=tuple(options.startup), warm=None if options.warm == "auto" else int(options.warm)
    )
    settings = ScalingSettings(
        min=1, max=200, latency=model.objective, share=options.share, calm=calm, down_window=window
    )
    jobs = [
        runner.SimulationJob(
            policy, rates(path), model, settings, options.balancer, 70.0, options.seed
        )
        for path in paths
    ]
    results = [outcome.result for outcome in runner.run_all(jobs, options.jobs)]
    missed = [result.missed_pct for result in results]
    hours = sum(result.replica_hours for result in results)
    actions = sum(result.actions for result in results)
    warm = sum(result.warm_hours for result in results)
    print(
        f"{title}: mean {sum(missed) / len(missed):.3f} %, worst {max(missed):.2f} %, "
        f"{hours:.1f} replica-hours, {actions} actions" + (f", {warm:.1f} warm" if warm else "")
    )
    for path, result in zip(paths, results, strict=True):
        print(
            f"    {path.stem:32} {result.missed_pct:7.3f} % {result.replica_hours:8.2f} h "
            f"{result.actions:6}",
            flush=True,
        )


def step() -> None:
    """Prints the best CPU time of one step over an hour of traffic that comes and goes."""
    seen: list[Signal] = []

    class Kept:
        policy = make(ScalingSettings(min=1, max=200, latency=0.4, share=99.6))

        def initial(self, now: float) -> State:
            return self.policy.initial(now)

        def step(self, state: State, signal: Signal, now: float) -> tuple[State, Decision]:
            seen.append(signal)
            return self.policy.step(state, signal, now)

    load = [150.0 + 100.0 * sin(second / 200.0) for second in range(3600)]
    simulate.run(load, Kept(), simulate.ServiceModel(), random.Random(1))
    times = []
    for _ in range(5):
        state, begin = Kept.policy.initial(0.0), process_time()
        for now, signal in enumerate(seen, start=1):
            state, _ = Kept.policy.step(state, signal, float(now))
        times.append(process_time() - begin)
    print(f"{min(times) / len(seen) * 1e6:.1f} µs a step")


def rates(path: Path) -> tuple[float, ...]:
    """The trace at a peak of 600 requests/s."""
    seconds = int(path.stem.rsplit("_", 1)[1].rstrip("s"))
    return tuple(runner.read_trace(path, 60 if seconds == 3600 else seconds, 600.0))


if __name__ == "__main__":
    raise SystemExit(main())
