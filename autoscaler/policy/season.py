"""What the same time of day brought before: yesterday, and a week ago.

The mean rate of every five minutes is kept for eight days. What came a day, or a week, before the
moment asked for is the forecast of each of the two (seasonal naive), scaled by how much more or
less came lately than it had said. Each is judged by every five minutes that end; it is believed
only while its recent error is small, and of two that are the better one is.
"""

from math import exp, log

from autoscaler.policy.state import Season
from autoscaler.signals import Signal

SLOT = 300.0
LAGS = (288, 2016)
"""Slots in a day, and in a week."""
KEPT = LAGS[-1] + LAGS[0]
RECENT = 0.15
"""Weight of the last slot in the error and the scale: about the last half hour counts."""
GOOD = 0.2
"""Relative error below which a season is believed."""
LEAD = 60.0
"""Seconds that replicas may be early: a rush is not on the second."""
LEAST = 60.0
"""Seconds of a slot that must have been seen to judge by it."""
UNKNOWN = -1.0


def observe(old: Season, signal: Signal, now: float) -> Season:
    """One second more of history."""
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
        old = _close(old, slot)
    return Season(slot, signal.interval, float(signal.arrivals), old.means, old.errors, old.scales)


def expected(season: Season, at: float) -> float:
    """Requests a second at a moment to come, by the season that is good now; 0 where none is."""
    best = min(range(len(LAGS)), key=lambda which: season.errors[which])
    if season.errors[best] > GOOD:
        return 0.0
    ahead = int(at // SLOT) - season.slot
    return max(0.0, _said(season, best, ahead))


def _said(season: Season, which: int, ahead: int) -> float:
    """What a season says of the slot so many after the current one; below 0 for nothing."""
    place = len(season.means) + ahead - LAGS[which]
    if not 0 <= place < len(season.means) or season.means[place] < 0.0:
        return UNKNOWN
    return season.means[place] * season.scales[which]


def _close(old: Season, slot: int) -> Season:
    """`old` with its slot judged and kept; slots in which nothing ran are unknown."""
    missed = slot - old.slot - 1
    if not 0 <= missed < KEPT:
        return Season()
    mean = old.arrivals / old.seconds if old.seconds >= LEAST else UNKNOWN
    errors, scales = list(old.errors), list(old.scales)
    for which in range(len(LAGS) if mean >= 0.0 else 0):
        said = _said(old, which, 0)
        error = abs(said - mean) / max(said, mean) if said > 0.0 and mean > 0.0 else 1.0
        if said == mean == 0.0:
            error = 0.0
        elif said > 0.0 and mean > 0.0:
            step = RECENT * log(mean / said)
            scales[which] = min(max(scales[which] * exp(step), 0.5), 2.0)
        errors[which] += RECENT * (error - errors[which])
    means = (*old.means, float(f"{mean:.4g}"), *(UNKNOWN,) * missed)[-KEPT:]
    return Season(slot, 0.0, 0.0, means, tuple(errors), tuple(scales))
