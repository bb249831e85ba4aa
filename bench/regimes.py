"""The autoscaler in many regimes, against published policies.

`bench.autoscaling --regimes` prints the table; tests/sim/test_autoscaler_regimes.py holds the
quick rows. The simulator is `autoscaler.simulate`, called by `meshd.cli.simulate.runner`.

A row is a kind of load and a kind of service that other benchmarks leave out: replicas that are
slow at first, service times that drift, start-up times, long requests, waves, gaps, dependencies.
`vary` draws other rows of the same kinds, so that no constant can be fitted to a row.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import cos, pi, sqrt
from typing import Final

from autoscaler import ScalingSettings, simulate
from meshd.cli.simulate import runner

POLICIES: Final = ("ours", "kpa", "hpa-rps", "oracle")
RIVALS: Final = ("kpa", "hpa-rps")
SEEDS: Final = (1, 2, 3)
QUICK_SECONDS: Final = 900
"""Seconds of a row that continuous integration plays."""
TARGET: Final = 70.0
"""Percent of a replica's capacity that the published policies aim at."""
EQUAL_POINTS, EQUAL_HOURS = 0.02, 0.02
"""Difference in misses (percentage points), and relative difference in replica-hours, up to which
two policies count as equal: seeds differ by as much."""
ORACLE_SHARE: Final = 0.5
"""Part of the allowed misses that the oracle may use in a row where ours must keep the objective
or miss little more than the others."""
MAX_STARTUP: Final = 40.0
"""Seconds of start-up up to which this is expected."""
MISS_RATIO: Final = 1.5
"""Ratio to the misses of the better published policy that counts as little more."""


@dataclass(frozen=True, slots=True)
class Regime:
    """One row. Times are seconds, rates requests per second.

    - `load`: one of `LOADS`; `peak`: its highest rate; `period`: of a wave; `noise`: standard
      deviation of a factor on the rate, with a memory of `memory`.
    - `workers`, `service`, `cv`, `startup`, `startup_sigma`, `start_slots`, `warm_up`, `sharing`,
      `gaps`: see `simulate.ServiceModel`.
    - `drift`: the service time swings between these factors, once in the run.
    - `revision`: from the middle on, requests take longer by this factor.
    - `dependency`: seconds of waiting for another service, normally and in the middle of the run;
      `known`: whether the proxy sees it.
    - `objective`, `share`: this share (percent) of the requests is answered within the objective.
    - `quick`: whether continuous integration runs the row (shortened).
    """

    name: str
    load: str = "bursty"
    peak: float = 600.0
    period: float = 240.0
    noise: float = 0.0
    memory: float = 60.0
    workers: int = 4
    service: float = 0.1
    cv: float = 0.5
    startup: tuple[float, float] = (5.0, 15.0)
    startup_sigma: float = 0.0
    start_slots: int | None = None
    warm_up: tuple[float, float] = (0.0, 1.0)
    sharing: bool = False
    gaps: float = 0.0
    drift: tuple[float, float] = (1.0, 1.0)
    revision: float = 1.0
    dependency: tuple[float, float] = (0.0, 0.0)
    known: bool = False
    objective: float = 0.4
    share: float = 99.6
    quick: bool = False


_SLOW: Final = (20.0, 40.0)
_VERY_SLOW: Final = (80.0, 80.0)
REGIMES: Final = (
    Regime("bursty"),
    Regime("smooth", "smooth", 300.0),
    Regime("bursty, 4 x slower for 30 s", warm_up=(30.0, 4.0), quick=True),
    Regime("bursty, 4 x slower for 120 s", warm_up=(120.0, 4.0)),
    Regime("smooth, 4 x slower for 30 s", "smooth", 300.0, warm_up=(30.0, 4.0)),
    Regime("service time drifts 60 to 180 ms", "smooth", 300.0, drift=(0.6, 1.8), quick=True),
    Regime("bursty, service time drifts 60 to 180 ms", drift=(0.6, 1.8)),
    Regime("bursty, start-up 20 to 40 s", startup=_SLOW),
    Regime("smooth, start-up 20 to 40 s", "smooth", 300.0, startup=_SLOW),
    Regime("smooth, start-up 150 s", "smooth", 300.0, startup=(150.0, 150.0)),
    Regime("bursty, start-up with a long tail", startup_sigma=0.8),
    Regime("bursty, two start at once", start_slots=2),
    Regime("smooth, requests of 1 s", "smooth", peak=30.0, service=1.0, objective=4.0, quick=True),
    Regime("bursty, requests of 1 s", peak=60.0, service=1.0, objective=4.0),
    Regime("bursty, one worker", workers=1),
    Regime("smooth, one worker", "smooth", 300.0, workers=1),
    Regime("bursty, shared processor", sharing=True),
    Regime("smooth, shared processor", "smooth", 300.0, sharing=True),
    Regime("smooth, one shared processor", "smooth", workers=1, peak=150.0, sharing=True),
    Regime("bursty, share 99.85", share=99.85),
    Regime("bursty, 250 ms, share 98", objective=0.25, share=98.0),
    Regime("smooth, 250 ms, share 98", "smooth", 300.0, objective=0.25, share=98.0),
    Regime("noise of 30 %", "constant", 300.0, noise=0.3),
    Regime("square wave, 120 s each", "square", 400.0, 240.0),
    Regime("square wave, 60 s each", "square", 400.0, 120.0),
    Regime("square wave, 20 s each", "square", 400.0, 40.0),
    Regime("revision 5 x slower, 2 s", "constant", 300.0, revision=5.0, objective=2.0),
    Regime("slow dependency", "constant", 300.0, dependency=(0.05, 3.0), quick=True),
    Regime("slow dependency, known", "constant", 300.0, dependency=(0.05, 3.0), known=True),
    Regime("calm, then a ramp", "ramp", 300.0),
    Regime("bursty, 20 % without data", gaps=0.2),
    Regime("smooth, start-up 80 s", "smooth", 300.0, startup=_VERY_SLOW),
    Regime("square wave, 120 s each, start-up 80 s", "square", 400.0, 240.0, startup=_VERY_SLOW),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Score:
    """Means over the seeds: misses in percent, replica-hours, changes of the number."""

    missed: float
    hours: float
    actions: float


def bursty(regime: Regime, dice: random.Random) -> list[float]:
    """Return a slow swing with bursts of 15 to 90 s, up to 1.8 times as high, about one every two
    minutes."""
    seconds = 2400
    factors = [1.0] * seconds
    at = dice.expovariate(1.0 / 60.0)
    while at < seconds:
        height, rise = dice.uniform(1.1, 1.8), dice.uniform(5.0, 30.0)
        length = dice.uniform(15.0, 90.0)
        for second in range(int(at), min(seconds, int(at + length))):
            edge = min(1.0, (second + 1 - at) / rise, (at + length - second) / rise)
            factors[second] = max(factors[second], 1.0 + (height - 1.0) * max(0.0, edge))
        at += length + dice.expovariate(1.0 / 90.0)
    swing = [0.75 - 0.25 * cos(2.0 * pi * second / seconds) for second in range(seconds)]
    return _scale([a * b for a, b in zip(factors, swing, strict=True)], regime.peak)


def smooth(regime: Regime, _dice: random.Random) -> list[float]:
    """Return two days, each played in half an hour, whose nights have a third of the load."""
    turns = [2.0 * pi * second / 1800.0 for second in range(3600)]
    return [regime.peak * (0.65 - 0.3 * cos(turn) - 0.05 * cos(2.0 * turn)) for turn in turns]


def constant(regime: Regime, _dice: random.Random) -> list[float]:
    """Return the same rate for 40 minutes."""
    return [0.7 * regime.peak] * 2400


def square(regime: Regime, _dice: random.Random) -> list[float]:
    """Return a wave between the peak and a tenth of it."""
    half = regime.period / 2.0
    return [regime.peak * (1.0 if int(second / half) % 2 else 0.1) for second in range(2400)]


def ramp(regime: Regime, _dice: random.Random) -> list[float]:
    """Return three hours of little load, then two hours in which it rises to the peak."""
    rise = regime.peak / 7200.0
    return [max(8.0, rise * (second - 10800)) for second in range(18000)]


LOADS: Final[Mapping[str, Callable[[Regime, random.Random], list[float]]]] = {
    "bursty": bursty,
    "smooth": smooth,
    "constant": constant,
    "square": square,
    "ramp": ramp,
}


def rates_of(regime: Regime, seed: int) -> tuple[float, ...]:
    """Return requests per second, for each second of the row."""
    dice = random.Random(seed)
    rates = LOADS[regime.load](regime, dice)
    if not regime.noise:
        return tuple(rates)
    keep, value, noisy = 1.0 - 1.0 / regime.memory, 0.0, []
    for rate in rates:
        value = keep * value + sqrt(1.0 - keep * keep) * dice.gauss(0.0, regime.noise)
        noisy.append(rate * max(0.05, 1.0 + value))
    return tuple(noisy)


def jobs_of(
    regime: Regime, policies: Sequence[str], seed: int, cut: int = 0
) -> list[runner.SimulationJob]:
    """Return one job for each policy. `cut` seconds are played at most; 0 for all."""
    rates = rates_of(regime, seed)
    rates = rates[:cut] if cut else rates
    model = _model_of(regime, len(rates))
    settings = ScalingSettings(
        min=1, max=model.max_replicas, latency=regime.objective, share=regime.share
    )
    return [
        runner.SimulationJob(policy, rates, model, settings, "p2c", TARGET, seed)
        for policy in policies
    ]


def run_rows(
    rows: Sequence[Regime],
    policies: Sequence[str] = POLICIES,
    seeds: Sequence[int] = SEEDS,
    processes: int = 1,
    cut: int = 0,
) -> list[dict[str, Score]]:
    """Run every policy on every row, and return the scores of each row by policy."""
    jobs = [job for row in rows for seed in seeds for job in jobs_of(row, policies, seed, cut)]
    results = [outcome.result for outcome in runner.run_all(jobs, processes)]
    scores, width = [], len(policies) * len(seeds)
    for at in range(0, len(results), width):
        of_row = results[at : at + width]
        scores.append(
            {
                policy: _mean(of_row[number :: len(policies)])
                for number, policy in enumerate(policies)
            }
        )
    return scores


def faults(regime: Regime, scores: Mapping[str, Score]) -> list[str]:
    """Return what a row of `scores` must not show: a published policy that is better on one axis
    and not worse on the other, or an objective that is missed though it could be kept."""
    ours, found = scores["ours"], []
    for name in RIVALS:
        misses = scores[name].missed - ours.missed
        hours = scores[name].hours / ours.hours - 1.0
        fewer_misses, fewer_hours = misses < -EQUAL_POINTS, hours < -EQUAL_HOURS
        if (fewer_misses and hours <= EQUAL_HOURS) or (fewer_hours and misses <= EQUAL_POINTS):
            found.append(f"{name} better")
    allowed = 100.0 - regime.share
    if scores["oracle"].missed > ORACLE_SHARE * allowed or max(regime.startup) > MAX_STARTUP:
        return found
    best = min(scores[name].missed for name in RIVALS)
    little = ours.missed <= MISS_RATIO * best + EQUAL_POINTS
    cheap = ours.hours <= (1.0 + EQUAL_HOURS) * scores["kpa"].hours
    if ours.missed > allowed and not (little and cheap):
        found.append("objective missed")
    return found


def vary(rows: Sequence[Regime], seed: int) -> list[Regime]:
    """Return one row of each kind with other numbers."""
    dice = random.Random(seed)

    def other(value: float) -> float:
        return value * 1.6 ** dice.uniform(-1.0, 1.0)

    varied = []
    for row in rows:
        scale, service = other(1.0), other(row.service)
        startup = other(1.0)
        low, high = row.drift
        row = replace(
            row,
            peak=row.peak * scale * row.service / service,
            period=other(row.period),
            noise=other(row.noise),
            memory=other(row.memory),
            workers=row.workers if row.workers == 1 else dice.choice((2, 3, 4, 6, 8)),
            service=service,
            cv=dice.choice((0.3, 0.5, 1.0)),
            startup=(row.startup[0] * startup, row.startup[1] * startup),
            warm_up=(other(row.warm_up[0]), row.warm_up[1] ** dice.uniform(0.6, 1.2)),
            gaps=other(row.gaps),
            drift=(low, low * (high / low) ** dice.uniform(0.6, 1.3)),
            revision=row.revision ** dice.uniform(0.5, 1.2),
            dependency=(other(row.dependency[0]), other(row.dependency[1])),
            objective=row.objective * service / row.service * dice.uniform(0.9, 1.5),
            share=dice.choice((98.0, 99.0, 99.6, row.share, row.share)),
        )
        size = 1.0 if row.workers == 1 else row.workers / 4.0
        varied.append(replace(row, name=f"{row.name} *", peak=row.peak * size))
    return varied


def _model_of(regime: Regime, seconds: int) -> simulate.ServiceModel:
    low, high = regime.drift
    factors: tuple[float, ...] = ()
    middle = seconds // 2
    if low != high:
        span, swing = high - low, 2.0 * pi / seconds
        factors = tuple(low + span * (0.5 - 0.5 * cos(swing * second)) for second in range(seconds))
    elif regime.revision != 1.0:
        factors = (1.0,) * middle + (regime.revision,)
    dependency: tuple[float, ...] = ()
    if any(regime.dependency):
        usual, slow = regime.dependency
        length = seconds // 4
        dependency = (usual,) * (middle - length // 2) + (slow,) * length + (usual,)
    return simulate.ServiceModel(
        workers=regime.workers,
        service_mean=regime.service,
        service_cv=regime.cv,
        startup=regime.startup,
        objective=regime.objective,
        service_factors=factors,
        dependency=dependency,
        dependency_known=regime.known,
        warm_up=regime.warm_up,
        sharing=regime.sharing,
        startup_sigma=regime.startup_sigma,
        start_slots=regime.start_slots,
        gaps=regime.gaps,
    )


def _scale(rates: list[float], peak: float) -> list[float]:
    top = max(rates)
    return [rate * peak / top for rate in rates]


def _mean(results: Sequence[simulate.SimulationResult]) -> Score:
    count = len(results)
    return Score(
        sum(result.missed_pct for result in results) / count,
        sum(result.replica_hours for result in results) / count,
        sum(result.actions for result in results) / count,
    )
