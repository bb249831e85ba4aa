"""The load of a service, now and one start-up time ahead. Pure.

The policy calls `observe` once a second; `policy.objectives` sizes for the result.

- Level: a rise counts as soon as it is significant (`window.significant_level`).
- Trend: the significant growth over one start-up time. A slope of seconds is extrapolated over
  seconds only.
- Slow growth: over a long start-up, and before a first start-up was seen, the level grows as it did
  over the last such time.
- Slow growth is used only while its recent error is smaller than that of the level alone; the trend
  only while it is smaller than that of the forecast without it. Noise looks like a slope of
  seconds, and over a long start-up slow growth would make it come true.
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
"""Factor above the level that a trend may reach before any trend could be compared with what
followed: the start of traffic, and the first step to more, look like a steep rise that continues.
At the start of traffic nothing is ordered in advance for it."""
SLOW_HISTORY: Final = 121
"""Seconds of slow growth that are enough for any start-up: two minutes and a step. A shorter
start-up needs as many seconds as it takes."""
REMEMBERED: Final = exp(-1.0)
"""Weight of a shortfall bucket from which it counts as remembered: one second, until it is as old
as the memory."""
SLOW_DEVIATIONS: Final = 2.0
"""Standard deviations of a level that its growth over a long start-up must exceed, as in
`window.significant_level`."""


def observe(
    old: DemandEstimate,
    signal: Signal,
    ahead: float,
    season: float,
    startup: float | None = None,
    slow_ahead: float | None = None,
) -> DemandEstimate:
    """Return the estimate with one more second. `ahead` is how far the forecast looks (seconds);
    `season` is the seasonal forecast for that time (requests per second), 0 for none; `startup` is
    the time over which the slope of a few seconds may continue, and `slow_ahead` the time over
    which slow growth may (seconds; None: `ahead`)."""
    slow_ahead = ahead if slow_ahead is None else slow_ahead
    rates = push(old.rates, signal.arrivals / signal.interval, HISTORY)
    in_flights = push(old.in_flights, signal.in_flight, HISTORY)
    level = significant_level(rates)
    growth = significant_growth(rates, ahead, ahead if startup is None else startup)
    slow_growth = _slow_growth(old.slow_past, level, slow_ahead)
    trend, slow = level + growth, level + slow_growth
    rise = max(growth / ahead, slow_growth / slow_ahead)
    if not (old.level_error or old.forecast_error):
        most = FIRST_TREND * level
        trend, slow = min(trend, most), min(slow, most)
        rise = 0.0 if _has_just_begun(rates) else rise
    slow_past, slow_level_error, slow_error = _judge_slow_growth(old, level, slow, slow_ahead)
    horizon = max(1, round(ahead))
    past = push(old.past, (level, trend, season), horizon)
    shortfalls, level_error, forecast_error = old.shortfalls, old.level_error, old.forecast_error
    memory = max(SHORTFALL_MEMORY, SHORTFALL_STARTUPS * ahead)
    peak = max(level, old.peak + (level - old.peak) / memory)
    if len(old.past) >= horizon:
        past_level, past_trend, past_season = old.past[-horizon]
        reactive = past_level
        if slow_error <= slow_level_error and len(old.slow_past) >= horizon:
            reactive = max(reactive, old.slow_past[-horizon][1])
        if past_trend > reactive:
            level_error = ERROR_DECAY * level_error + _cost(level - reactive)
            forecast_error = ERROR_DECAY * forecast_error + _cost(level - past_trend)
        if forecast_error <= level_error:
            reactive = max(reactive, past_trend)
        shortfall = level / max(reactive, past_season, 1.0)
        bucket = 0
        if shortfall > 1.0:
            bucket = min(SHORTFALL_BUCKETS - 1, int(BUCKETS_PER_E * log(shortfall)))
        shortfalls = _count_shortfall(shortfalls, bucket, 1.0 - 1.0 / memory)
    forecast = max(level if forecast_error > level_error else trend, season)
    if slow_error <= slow_level_error:
        forecast = max(forecast, slow)
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
        slow_past,
        slow_level_error,
        slow_error,
    )


def expected_peak(demand: DemandEstimate, quantile: float) -> tuple[float, float]:
    """Return (requests per second to size for, relative headroom in it).

    The headroom covers this share of the shortfalls of the last minutes, but leads at most to the
    highest level of that time: a rise from a valley says nothing about rises from a peak.
    """
    extra = headroom(demand, quantile)
    rate = min(demand.forecast * (1.0 + extra), max(demand.forecast, demand.peak))
    return rate, rate / demand.forecast - 1.0 if demand.forecast else 0.0


def largest_rise(demand: DemandEstimate) -> float:
    """Return the requests per second that would arrive after the largest rise over one start-up
    time that is remembered; at most the highest level of the last minutes."""
    top = max(demand.forecast, demand.peak)
    for bucket in range(SHORTFALL_BUCKETS - 1, 0, -1):
        if demand.shortfalls[bucket] >= REMEMBERED:
            if bucket == SHORTFALL_BUCKETS - 1:
                return top  # The last bucket has no upper edge.
            return min(demand.forecast * exp((bucket + 1) / BUCKETS_PER_E), top)
    return demand.forecast


def headroom(demand: DemandEstimate, quantile: float) -> float:
    """Return the relative surplus that would have covered this share of the last minutes."""
    total = sum(demand.shortfalls)
    uncovered = (1.0 - quantile) * total
    for bucket in range(SHORTFALL_BUCKETS - 1, 0, -1):
        uncovered -= demand.shortfalls[bucket]
        if uncovered < 0.0:
            return exp(bucket / BUCKETS_PER_E) - 1.0
    return 0.0


def _judge_slow_growth(
    old: DemandEstimate, level: float, slow: float, ahead: float
) -> tuple[tuple[tuple[float, float], ...], float, float]:
    """Return `slow_past`, `slow_level_error` and `slow_error` with one more second. The forecast
    `slow` (requests per second) looks `ahead` seconds."""
    horizon = round(ahead)
    if horizon < HISTORY:
        return (), old.slow_level_error, old.slow_error
    level_error, error = old.slow_level_error, old.slow_error
    if len(old.slow_past) >= horizon:
        past_level, past_slow = old.slow_past[-horizon]
        if past_slow > past_level:
            level_error = ERROR_DECAY * level_error + _cost(level - past_level)
            error = ERROR_DECAY * error + _cost(level - past_slow)
    return push(old.slow_past, (level, slow), max(horizon, SLOW_HISTORY)), level_error, error


def _slow_growth(past: tuple[tuple[float, float], ...], level: float, ahead: float) -> float:
    """Return by how much the level will have grown in `ahead` seconds if it continues as it did
    over as long a time, or over `SLOW_HISTORY`; 0 if that is not known yet, if it may be chance, or
    if `HISTORY` is enough to tell. `past` is `DemandEstimate.slow_past`."""
    horizon = round(ahead)
    seconds = min(len(past), horizon)
    if horizon < HISTORY or seconds < min(horizon, SLOW_HISTORY):
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
