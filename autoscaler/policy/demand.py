"""How much is asked for, now and one start-up time ahead.

The level counts a rise as soon as it is significant. The trend is extrapolated over the learned
start-up time, and used only while its own recent error is smaller than that of the level alone.
What the time of day brings (`policy.season`) counts where it is more.
What both missed is remembered as a histogram of shortfalls, of which a quantile becomes the
headroom: a service that bursts pays for it, a calm one does not.
"""

from math import exp, log

from autoscaler.policy.state import BUCKETS, Demand
from autoscaler.signals import Signal
from autoscaler.window import push, significant, slope

MEMORY, STARTS = 600.0, 60.0
"""Shortfalls are forgotten over ten minutes, or over so many start-ups where that is longer: what
takes long to answer must be remembered from one rush to the next."""
FINE = 16.0
"""Buckets of the shortfall histogram per factor e."""
ERROR = 0.99
TOO_LITTLE = 2.0


def observe(old: Demand, signal: Signal, ahead: float, season: float) -> Demand:
    """One second more of demand. `ahead` is how far the forecast looks, in seconds; `season` is
    what another forecast, which knows its own error, says of then, 0 for nothing."""
    rates = push(old.rates, signal.arrivals / signal.interval, 32)
    in_flights = push(old.in_flights, signal.in_flight, 32)
    level = significant(rates)
    rise = slope(rates)
    trend = level + rise * ahead
    horizon = max(1, round(ahead))
    past = push(old.past, (level, trend, season), horizon)
    shortfalls, level_error, forecast_error = old.shortfalls, old.level_error, old.forecast_error
    if len(old.past) >= horizon:
        was, said, seasonal = old.past[-horizon]
        if said > was:
            level_error = ERROR * level_error + _cost(level - was)
            forecast_error = ERROR * forecast_error + _cost(level - said)
        expected = max(said if forecast_error <= level_error else was, seasonal)
        short = level / max(expected, 1.0)
        bucket = min(BUCKETS - 1, int(FINE * log(short))) if short > 1.0 else 0
        shortfalls = _remember(shortfalls, bucket, 1.0 - 1.0 / max(MEMORY, STARTS * ahead))
    forecast = max(level if forecast_error > level_error else trend, season)
    return Demand(
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
    )


def _remember(old: tuple[float, ...], bucket: int, kept: float) -> tuple[float, ...]:
    new = [kept * weight for weight in old]
    new[bucket] += 1.0
    return tuple(new)


def _cost(error: float) -> float:
    """Too little costs requests, too much only replicas."""
    return TOO_LITTLE * error if error > 0.0 else -error


def headroom(demand: Demand, q: float) -> float:
    """Relative extra that would have covered a share `q` of the last minutes."""
    total = sum(demand.shortfalls)
    over = (1.0 - q) * total
    for bucket in range(BUCKETS - 1, 0, -1):
        over -= demand.shortfalls[bucket]
        if over < 0.0:
            return exp(bucket / FINE) - 1.0
    return 0.0
