"""The load of a service, now and one start-up time ahead. Pure.

The policy calls `observe` once a second; `policy.objectives` sizes for the result.

- Level: a rise counts as soon as it is significant (`window.significant_level`).
- Trend: the significant growth over one start-up time. A slope of seconds is extrapolated over
  seconds only; over a long start-up the level grows as it did over the last one. The trend is used
  only while its own recent error is smaller than that of the level alone.
- Season: the forecast of `policy.season` counts where it is higher.
- Headroom: the shortfalls of this forecast are kept in a histogram; a quantile of them is the
  headroom. So a service with bursts pays for headroom, and a steady one does not.
"""

from math import exp, log, sqrt
from typing import Final

from autoscaler.policy.state import SHORTFALL_BUCKETS, DemandEstimate
from autoscaler.signals import Signal
from autoscaler.window import (
    EXTRAPOLATION,
    LEVEL_SECONDS,
    push,
    significant_growth,
    significant_level,
)

HISTORY: Final = 32
"""Seconds of rates that are kept: twice the longest half window of a slope."""
SHORTFALL_MEMORY: Final = 600.0
"""Seconds over which a shortfall is forgotten. Tuned on the recorded traces in
bench/autoscaling.py."""
SHORTFALL_STARTUPS: Final = 60.0
"""Start-ups over which it is forgotten, if that is longer: where it takes long to respond, a rush
must be remembered until the next one."""
BUCKETS_PER_E: Final = 16.0
"""Buckets of the shortfall histogram per factor e: each is 6 % wide."""
ERROR_DECAY: Final = 0.99
"""Factor per second on the errors of level and trend: a memory of about 100 seconds."""
SHORTFALL_COST: Final = 2.0
"""Cost of a forecast that is too low, over the cost of one that is too high by as much: the first
costs requests, the second only replicas."""

FIRST_TREND: Final = 2.0
"""Factor above the level that a trend may reach at the start of traffic, before any trend could be
compared with what followed: it looks like a steep rise that continues. Nothing is ordered in
advance for it."""
SLOW_DEVIATIONS: Final = 2.0
"""Standard deviations of a level that its growth over a long start-up must exceed, as in
`window.significant_level`."""


def observe(
    old: DemandEstimate,
    signal: Signal,
    ahead: float,
    season: float,
    startup: float | None = None,
) -> DemandEstimate:
    """Return the estimate with one more second. `ahead` is how far the forecast looks (seconds);
    `season` is the seasonal forecast for that time (requests per second), 0 for none; `startup` is
    the time over which the slope of a few seconds may continue (seconds; None: `ahead`)."""
    rates = push(old.rates, signal.arrivals / signal.interval, HISTORY)
    in_flights = push(old.in_flights, signal.in_flight, HISTORY)
    level = significant_level(rates)
    growth = max(
        significant_growth(rates, ahead, ahead if startup is None else startup),
        _slow_growth(old.past, level, ahead),
    )
    trend, rise = level + growth, growth / ahead
    if not (old.level_error or old.forecast_error) and _has_just_begun(rates):
        trend, rise = min(trend, FIRST_TREND * level), 0.0
    horizon = max(1, round(ahead))
    past = push(old.past, (level, trend, season), horizon)
    shortfalls, level_error, forecast_error = old.shortfalls, old.level_error, old.forecast_error
    memory = max(SHORTFALL_MEMORY, SHORTFALL_STARTUPS * ahead)
    peak = max(level, old.peak + (level - old.peak) / memory)
    if len(old.past) >= horizon:
        past_level, past_trend, past_season = old.past[-horizon]
        if past_trend > past_level:
            level_error = ERROR_DECAY * level_error + _cost(level - past_level)
            forecast_error = ERROR_DECAY * forecast_error + _cost(level - past_trend)
        reactive = past_trend if forecast_error <= level_error else past_level
        shortfall = level / max(reactive, past_season, 1.0)
        bucket = 0
        if shortfall > 1.0:
            bucket = min(SHORTFALL_BUCKETS - 1, int(BUCKETS_PER_E * log(shortfall)))
        shortfalls = _count_shortfall(shortfalls, bucket, 1.0 - 1.0 / memory)
    forecast = max(level if forecast_error > level_error else trend, season)
    return DemandEstimate(
        rates,
        in_flights,
        past,
        shortfalls,
        level,
        forecast,
        season,
        rise,
        level_error,
        forecast_error,
        peak,
    )


def expected_peak(demand: DemandEstimate, quantile: float) -> tuple[float, float]:
    """Return (requests per second to size for, relative headroom in it).

    The headroom covers this share of the shortfalls of the last minutes, but leads at most to the
    highest level of that time: a rise from a valley says nothing about rises from a peak.
    """
    extra = headroom(demand, quantile)
    rate = min(demand.forecast * (1.0 + extra), max(demand.forecast, demand.peak))
    return rate, rate / demand.forecast - 1.0 if demand.forecast else 0.0


def headroom(demand: DemandEstimate, quantile: float) -> float:
    """Return the relative surplus that would have covered this share of the last minutes."""
    total = sum(demand.shortfalls)
    uncovered = (1.0 - quantile) * total
    for bucket in range(SHORTFALL_BUCKETS - 1, 0, -1):
        uncovered -= demand.shortfalls[bucket]
        if uncovered < 0.0:
            return exp(bucket / BUCKETS_PER_E) - 1.0
    return 0.0


def _slow_growth(past: tuple[tuple[float, float, float], ...], level: float, ahead: float) -> float:
    """Return by how much the level will have grown in `ahead` seconds if it continues as it did
    over as long a time, as far as that is known; 0 if that may be chance, or if `HISTORY` is enough
    to tell."""
    seconds = min(len(past), round(ahead))
    if seconds < HISTORY:
        return 0.0
    before = past[-seconds][0]
    if level - before < SLOW_DEVIATIONS * sqrt((level + before) / LEVEL_SECONDS):
        return 0.0
    return (level - before) * min(ahead / seconds, EXTRAPOLATION)


def _has_just_begun(rates: tuple[float, ...]) -> bool:
    """Return whether one of the last `HISTORY` seconds had no traffic."""
    return min(rates) == 0.0


def _count_shortfall(old: tuple[float, ...], bucket: int, decay: float) -> tuple[float, ...]:
    new = [decay * weight for weight in old]
    new[bucket] += 1.0
    return tuple(new)


def _cost(error: float) -> float:
    return SHORTFALL_COST * error if error > 0.0 else -error
