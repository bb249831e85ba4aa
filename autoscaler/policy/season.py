"""The load at the same time yesterday, and a week ago, as a forecast. Pure.

The policy calls `observe` once a second and passes `expected_rate` on to `policy.demand`.

Method (seasonal naive forecast): the mean rate of every five minutes is kept for eight days. The
rate one day, or one week, before the time in question is the forecast, scaled by how much higher
or lower the recent load was than forecast. Each slot that ends updates the error of both. The
better one is used, and only while its recent error is small.
"""

from math import exp, log
from typing import Final

from autoscaler.policy.state import Season
from autoscaler.signals import Signal

SLOT: Final = 300.0
"""Seconds of a slot: fine enough for a rush, coarse enough that a week fits into the store."""
LAGS: Final = (288, 2016)
"""Slots in a day, and in a week."""
KEPT: Final = LAGS[-1] + LAGS[0]
"""Slots kept: eight days, so that a week ago is known for the whole next day."""
RECENT_WEIGHT: Final = 0.15
"""Weight of the last slot in error and scale: a memory of about half an hour."""
MAX_ERROR: Final = 0.2
"""Relative error below which a forecast is trusted. Tuned on the recorded traces in
bench/autoscaling.py."""
MIN_SCALE, MAX_SCALE = 0.5, 2.0
"""Bounds of the scale: a day beyond them is another kind of day."""
LEAD: Final = 60.0
"""Seconds by which replicas may be early, because a rush does not start on the second."""
MIN_SECONDS: Final = 60.0
"""Seconds of a slot that must have been seen for its mean to count."""
UNKNOWN: Final = -1.0
"""Stands in for the mean of a slot that was not seen."""


def observe(old: Season, signal: Signal, now: float) -> Season:
    """Return the history with one more second."""
    slot = int(now // SLOT)
    if slot == old.slot and old.seconds:
        return Season(
            slot,
            old.seconds + signal.interval,
            old.arrivals + signal.arrivals,
            old.means,
            old.errors,
            old.scales,
        )
    if old.seconds:
        old = _close_slot(old, slot)
    return Season(slot, signal.interval, float(signal.arrivals), old.means, old.errors, old.scales)


def expected_rate(season: Season, at: float) -> float:
    """Return the requests per second forecast for a future time by the better season; 0 if neither
    is trusted."""
    best = min(range(len(LAGS)), key=lambda lag: season.errors[lag])
    if season.errors[best] > MAX_ERROR:
        return 0.0
    ahead = int(at // SLOT) - season.slot
    return max(0.0, _forecast(season, best, ahead))


def _forecast(season: Season, lag: int, ahead: int) -> float:
    """Return the forecast of one season, `ahead` slots after the current one; `UNKNOWN` if it was
    not seen."""
    index = len(season.means) + ahead - LAGS[lag]
    if not 0 <= index < len(season.means) or season.means[index] < 0.0:
        return UNKNOWN
    return season.means[index] * season.scales[lag]


def _close_slot(old: Season, slot: int) -> Season:
    """Return `old` with its slot evaluated and kept. Slots up to `slot` that were not seen are
    unknown."""
    missed = slot - old.slot - 1
    if not 0 <= missed < KEPT:
        return Season()
    mean = old.arrivals / old.seconds if old.seconds >= MIN_SECONDS else UNKNOWN
    errors, scales = list(old.errors), list(old.scales)
    for lag in range(len(LAGS) if mean >= 0.0 else 0):
        forecast = _forecast(old, lag, 0)
        both = forecast > 0.0 and mean > 0.0
        error = abs(forecast - mean) / max(forecast, mean) if both else 1.0
        if forecast == mean == 0.0:
            error = 0.0
        elif both:
            step = RECENT_WEIGHT * log(mean / forecast)
            scales[lag] = min(max(scales[lag] * exp(step), MIN_SCALE), MAX_SCALE)
        errors[lag] += RECENT_WEIGHT * (error - errors[lag])
    means = (*old.means, float(f"{mean:.4g}"), *(UNKNOWN,) * missed)[-KEPT:]
    return Season(slot, 0.0, 0.0, means, tuple(errors), tuple(scales))
