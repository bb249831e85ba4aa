"""Runs the autoscaler's simulator: the thin shell around `autoscaler.simulate`.

Each policy is a job of plain values, so that it can run in a process of its own.
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
    """One run: a policy by name over a trace's rates. `target` is percent of a replica's
    capacity that the published policies aim at."""

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
    """What a job came to, and the processor time it took in seconds."""

    name: str
    result: simulate.SimulationResult
    seconds: float


def read_trace(path: Path, bin_seconds: int | None, peak: float | None) -> list[float]:
    """Requests a second of a CSV file `t_seconds,count`. A row lasts `bin_seconds`, or as long
    as the times say. Raises ValueError, naming file and line, for anything else."""
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
                raise ValueError(f"{path}:{number}: a count below 0")
    if len(counts) < 2:
        raise ValueError(f"{path}: a trace needs two rows of `t_seconds,count` at least")
    steps = {round(after - before) for before, after in pairwise(at)}
    if bin_seconds is None:
        if len(steps) != 1 or min(steps) < 1:
            raise ValueError(f"{path}: rows are not evenly spaced; give --bin SECONDS")
        bin_seconds = steps.pop()
    return trace.rates_of(counts, bin_seconds, peak)


def read_times(path: Path) -> list[float]:
    """Service times in seconds, one a line. Raises ValueError."""
    lines = [
        line.strip() for line in path.read_text(encoding="utf-8", errors="replace").splitlines()
    ]
    try:
        times = [float(line) for line in lines if line]
    except ValueError as error:
        raise ValueError(f"{path}: expected seconds, one number a line ({error})") from error
    if not times or min(times) <= 0.0:
        raise ValueError(f"{path}: expected service times above 0")
    return times


def run_all(jobs: Sequence[SimulationJob], processes: int) -> list[Outcome]:
    """Every job, in at most so many processes at once; the same order comes back."""
    if processes < 2 or len(jobs) < 2:
        return [run(job) for job in jobs]
    with ProcessPoolExecutor(min(processes, len(jobs)), get_context("spawn")) as pool:
        return list(pool.map(run, jobs))


def run(job: SimulationJob) -> Outcome:
    """One run; the same job always comes to the same result."""
    dice = random.Random(job.seed)
    began = monotonic()
    balancer = _balancer(job.balancer, random.Random(job.seed + 1))
    result = simulate.run(job.rates, _policy(job), job.model, dice, balancer, job.times)
    return Outcome(job.name, result, monotonic() - began)


def _policy(job: SimulationJob) -> simulate.Stepper:
    model, share = job.model, job.target / 100.0
    match job.name:
        case "ours":
            return autoscaler.make(job.settings)
        case "hpa-cpu":
            return Hpa("cpu", job.target, model.min_replicas, model.max_replicas)
        case "hpa-rps":
            each = share * model.workers / model.service_mean
            return Hpa("rps", each, model.min_replicas, model.max_replicas)
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
            )
        case "fixed":
            return _Fixed(simulate.initial_count(model, max(job.rates)))
    raise ValueError(f"no policy {job.name!r}; there are {', '.join(POLICIES)}")


@dataclass(frozen=True, slots=True)
class _Fixed:
    """As many replicas as the peak needs, always: what no autoscaler costs."""

    count: int

    def initial(self, _now: float) -> None:
        return None

    def step(
        self, _state: None, _signal: autoscaler.Signal | None, _now: float
    ) -> tuple[None, autoscaler.Decision]:
        return None, autoscaler.Decision(self.count, "hold", "the number for the peak")


def _balancer(name: str, dice: random.Random) -> simulate.Balancer | None:
    """The real balancer of that name. The plain power of two choices over equal replicas
    (`p2c`) is built into the simulator, because that is several times as fast."""
    if name == "p2c":
        return None
    algorithm = next(known for known in BALANCERS if known == name)
    picker = balance.make_picker(Balance(algorithm=algorithm))
    draw = dice.random

    def pick(ready: tuple[simulate.SimulatedReplica, ...], now: float) -> int:
        return picker.pick(ready, None, draw, now)

    return simulate.Balancer(pick, PeakEwma if name == "peak-ewma" else LatencyAtLoad)


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
