"""Run the autoscaler's simulator (`autoscaler.simulate`) on a trace, for one or more policies.

Used by `meshd simulate` and the benchmarks. Each run is described by plain values, so that it can
be sent to a separate process.
"""

import csv
import math
import random
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from time import monotonic
from typing import Final

import autoscaler
from autoscaler import ScalingSettings, simulate, trace
from autoscaler.baselines.hpa import Hpa
from autoscaler.baselines.kpa import Kpa
from autoscaler.baselines.oracle import Oracle
from proxy.policy import balance
from proxy.policy.latency import LatencyAtLoad, PeakEwma
from proxy.wire.snapshot import Algorithm, Balance

POLICIES: Final = ("ours", "hpa-cpu", "hpa-rps", "kpa", "oracle", "fixed")
BALANCERS: Final[tuple[Algorithm, ...]] = (
    "hot-cold",
    "round-robin",
    "weighted",
    "least-request",
    "peak-ewma",
    "random",
)


@dataclass(frozen=True, slots=True)
class SimulationJob:
    """One run of one policy.

    - `name`: one of `POLICIES`; `balancer`: one of `BALANCERS`, or `p2c`.
    - `rates`: requests per second, one value per second.
    - `settings`: those of the policy `ours`.
    - `target`: percent of a replica's capacity that the published policies aim at.
    - `times`: measured service times in seconds; empty: a log-normal distribution.
    """

    name: str
    rates: tuple[float, ...]
    model: simulate.ServiceModel
    settings: ScalingSettings
    balancer: str
    target: float
    seed: int
    times: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Outcome:
    """Result of one run; `seconds`: how long it took."""

    name: str
    result: simulate.SimulationResult
    seconds: float


def read_trace(path: Path, bin_seconds: int | None, peak: float | None) -> list[float]:
    """Return the requests per second of a CSV file with rows `t_seconds,count`. A row covers
    `bin_seconds`, or the distance of the times if None. `peak`: see `autoscaler.trace.rates_of`.

    Raises ValueError, naming file and line.
    """
    at: list[float] = []
    counts: list[float] = []
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        for number, row in enumerate(csv.reader(file), start=1):
            if not row or (number == 1 and not _is_number(row[0])):
                continue
            if len(row) < 2 or not _is_number(row[0]) or not _is_number(row[1]):
                raise ValueError(f"{path}:{number}: expected `t_seconds,count`, got {row}")
            at.append(float(row[0]))
            counts.append(float(row[1]))
            if counts[-1] < 0.0:
                raise ValueError(f"{path}:{number}: the count is below 0")
    if len(counts) < 2:
        raise ValueError(f"{path}: a trace needs at least two rows of `t_seconds,count`")
    steps = {round(after - before) for before, after in pairwise(at)}
    if bin_seconds is None:
        if len(steps) != 1 or min(steps) < 1:
            raise ValueError(f"{path}: the rows are not evenly spaced; use --bin SECONDS")
        bin_seconds = steps.pop()
    return trace.rates_of(counts, bin_seconds, peak)


def read_times(path: Path) -> list[float]:
    """Return the service times in a file, in seconds, one per line. Raises ValueError."""
    lines = [
        line.strip() for line in path.read_text(encoding="utf-8", errors="replace").splitlines()
    ]
    try:
        times = [float(line) for line in lines if line]
    except ValueError as error:
        raise ValueError(f"{path}: expected seconds, one number per line ({error})") from error
    if not times or min(times) <= 0.0:
        raise ValueError(f"{path}: expected service times above 0")
    return times


def run_all(jobs: Sequence[SimulationJob], processes: int) -> list[Outcome]:
    """Run all jobs, in up to `processes` processes. The outcomes have the order of the jobs."""
    if processes < 2 or len(jobs) < 2:
        return [run(job) for job in jobs]
    with ProcessPoolExecutor(min(processes, len(jobs)), get_context("spawn")) as pool:
        return list(pool.map(run, jobs))


def run(job: SimulationJob) -> Outcome:
    """Run one job. The same job always has the same result."""
    random_source = random.Random(job.seed)
    began = monotonic()
    balancer = _balancer(job.balancer, random.Random(job.seed + 1))
    result = simulate.run(job.rates, _policy(job), job.model, random_source, balancer, job.times)
    return Outcome(job.name, result, monotonic() - began)


def _policy(job: SimulationJob) -> simulate.Stepper:
    model, share = job.model, job.target / 100.0
    match job.name:
        case "ours":
            return autoscaler.make(job.settings)
        case "hpa-cpu":
            return Hpa("cpu", job.target, model.min_replicas, model.max_replicas)
        case "hpa-rps":
            per_replica = share * model.workers / model.service_mean
            return Hpa("rps", per_replica, model.min_replicas, model.max_replicas)
        case "kpa":
            return Kpa(share * model.workers, model.min_replicas, model.max_replicas)
        case "oracle":
            ahead = int(model.startup[1]) + 2
            return Oracle(
                job.rates,
                model.service_mean,
                model.workers,
                ahead,
                min_replicas=model.min_replicas,
                max_replicas=model.max_replicas,
                factors=model.service_factors,
                dependency=model.dependency,
            )
        case "fixed":
            return _Fixed(simulate.initial_count(model, max(job.rates)))
    raise ValueError(f"no policy {job.name!r}; known policies: {', '.join(POLICIES)}")


@dataclass(frozen=True, slots=True)
class _Fixed:
    """Always as many replicas as the peak needs: the cost without an autoscaler."""

    count: int

    def initial(self, _now: float) -> None:
        return None

    def step(
        self, _state: None, _signal: autoscaler.Signal | None, _now: float
    ) -> tuple[None, autoscaler.Decision]:
        return None, autoscaler.Decision(self.count, "hold", "enough for the peak")


def _balancer(name: str, random_source: random.Random) -> simulate.Balancer | None:
    """Return the proxy's balancer of that name. None for `p2c`, the plain power of two choices:
    it is built into the simulator, which is several times faster."""
    if name == "p2c":
        return None
    algorithm = next(known for known in BALANCERS if known == name)
    picker = balance.make_picker(Balance(algorithm=algorithm))
    draw = random_source.random

    def pick(ready: tuple[simulate.SimulatedReplica, ...], now: float) -> int:
        return picker.pick(ready, None, draw, now)

    return simulate.Balancer(pick, PeakEwma if name == "peak-ewma" else LatencyAtLoad)


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
