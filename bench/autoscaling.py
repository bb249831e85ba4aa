"""Benchmark of the autoscaler against published policies, on every trace of a folder.

    MESHD_TRACES=FOLDER python -m bench.autoscaling [--share 99.6] [--policy ours,kpa,...]
    MESHD_TRACES=FOLDER python -m bench.autoscaling --curve      cost of fewer changes
    python -m bench.autoscaling --step                           CPU time of one decision
    python -m bench.autoscaling --regimes [--quick] [--vary SEED] [--rows TEXT] [--jobs 2]
        the rows of bench/regimes.py, without a folder; --vary draws other rows of the same kinds

A trace is `NAME_BINs.csv` (`t_seconds,count`); an hourly bin is played as a minute. Every run uses
the model of docs/autoscaler.md, with the same settings for all traces.
"""

import argparse
import os
import random
import sys
from math import sin
from pathlib import Path
from time import process_time

from autoscaler import Decision, ScalingSettings, Signal, State, make, simulate
from bench import regimes
from meshd.cli.simulate import runner

CURVE = (
    (5.0, None), (None, None), (150.0, None), (250.0, None), (900.0, 200.0), (2500.0, 400.0),
)  # fmt: skip
"""Points of the curve: (`calm` in replica-seconds, `down_window` in seconds); None: the default."""


def main() -> int:
    """Print one line for each policy (or point of the curve), and one for each trace."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--policy", default="ours,kpa,hpa-cpu,hpa-rps,oracle")
    parser.add_argument("--share", type=float, default=99.6)
    parser.add_argument("--balancer", default="p2c")
    parser.add_argument("--startup", type=float, nargs=2, default=(5.0, 15.0))
    parser.add_argument("--warm", default="0", help="number of paused replicas, or auto")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--only", default="", help="run only traces whose name contains this")
    parser.add_argument("--curve", action="store_true", help="ours, from many changes to few")
    parser.add_argument("--step", action="store_true", help="measure the CPU time of one step")
    parser.add_argument("--regimes", action="store_true", help="the table of many regimes")
    parser.add_argument("--quick", action="store_true", help="a few rows, shortened, one seed")
    parser.add_argument("--vary", type=int, help="other rows of the same kinds, by this seed")
    parser.add_argument("--rows", default="", help="only rows whose name contains this")
    options = parser.parse_args()
    if options.regimes:
        return report_regimes(options)
    if options.step:
        step()
        return 0
    folder = os.environ.get("MESHD_TRACES")
    if not folder:
        print("MESHD_TRACES is not set; expected a folder with traces", file=sys.stderr)
        return 2
    paths = [path for path in sorted(Path(folder).glob("*.csv")) if options.only in path.name]
    if options.curve:
        for calm, window in CURVE:
            title = f"ours, calm {calm or 'default'}, window {window or 'default'}"
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
    """Run one policy over all traces and print its scores."""
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


def report_regimes(options: argparse.Namespace) -> int:
    """Print the table of regimes: misses in percent / replica-hours for each policy. Return 1 if a
    row shows a fault."""
    rows = [row for row in regimes.REGIMES if row.quick or not options.quick]
    rows = [row for row in rows if options.rows in row.name]
    if options.vary is not None:
        rows = regimes.vary(rows, options.vary)
    seeds, cut = (regimes.SEEDS, 0) if not options.quick else ((1,), regimes.QUICK_SECONDS)
    print(f"| regime | {' | '.join(regimes.POLICIES)} | changes | faults |")
    print("| --- " * (len(regimes.POLICIES) + 3) + "|")
    bad = 0
    for row in rows:
        (scores,) = regimes.run_rows([row], seeds=seeds, processes=options.jobs, cut=cut)
        cells = [
            f"{scores[policy].missed:.3g} / {scores[policy].hours:.1f}"
            for policy in regimes.POLICIES
        ]
        faults = regimes.faults(row, scores)
        bad += bool(faults)
        print(
            f"| {row.name} | {' | '.join(cells)} | {scores['ours'].actions:.0f} | "
            f"{', '.join(faults)} |",
            flush=True,
        )
    print(f"{bad} of {len(rows)} rows show a fault")
    return 1 if bad else 0


def step() -> None:
    """Print the best CPU time of one step, over an hour of traffic that rises and falls."""
    seen: list[Signal] = []

    class RecordingPolicy:
        policy = make(ScalingSettings(min=1, max=200, latency=0.4, share=99.6))

        def initial(self, now: float) -> State:
            return self.policy.initial(now)

        def step(self, state: State, signal: Signal, now: float) -> tuple[State, Decision]:
            seen.append(signal)
            return self.policy.step(state, signal, now)

    load = [150.0 + 100.0 * sin(second / 200.0) for second in range(3600)]
    simulate.run(load, RecordingPolicy(), simulate.ServiceModel(), random.Random(1))
    times = []
    for _ in range(5):
        state, begin = RecordingPolicy.policy.initial(0.0), process_time()
        for now, signal in enumerate(seen, start=1):
            state, _ = RecordingPolicy.policy.step(state, signal, float(now))
        times.append(process_time() - begin)
    print(f"{min(times) / len(seen) * 1e6:.1f} µs per step")


def rates(path: Path) -> tuple[float, ...]:
    """Return the rates of a trace, scaled to a peak of 600 requests/s."""
    seconds = int(path.stem.rsplit("_", 1)[1].rstrip("s"))
    return tuple(runner.read_trace(path, 60 if seconds == 3600 else seconds, 600.0))


if __name__ == "__main__":
    raise SystemExit(main())
