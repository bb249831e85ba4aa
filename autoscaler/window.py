"""Functions over short histories that are kept as tuples, newest last. Pure.

`autoscaler.policy.demand`, `.objectives` and `.change_cost` use them for levels and slopes.
"""

from collections.abc import Sequence
from math import sqrt
from typing import Final, TypeVar

Value = TypeVar("Value")

LEVEL_SECONDS: Final = 30
"""Seconds of the mean that is the level while nothing changes. Tuned on the recorded traces in
bench/autoscaling.py."""
RISE_WINDOWS: Final = (2, 4, 8, 16)
"""Seconds of the shorter windows in which a rise may become significant; each twice the last."""
SLOPE_WINDOWS: Final = ((4, 3.5), (8, 2.5), (16, 2.0))
"""(half window in seconds, standard deviations that a rise over it must exceed). A shorter window
needs more, because its slope is extrapolated further in proportion. Tuned on the recorded traces
in bench/autoscaling.py."""

EXTRAPOLATION: Final = 2.0
"""Half windows for which a slope is extrapolated at most, so that it continues for as long as it
was seen: its error grows in proportion, and a rise of seconds says nothing about minutes."""
SHORT_AHEAD: Final = 16.0
"""Seconds over which every slope may be extrapolated: a usual start-up and a second, for which the
deviations above were tuned."""


def push(history: tuple[Value, ...], value: Value, keep: int) -> tuple[Value, ...]:
    """Append `value` to `history` and return the last `keep` entries."""
    return (*history[1 - keep :], value) if keep > 1 else (value,)


def significant_level(history: Sequence[float], deviations: float = 2.0) -> float:
    """Return the level of a series of counts per second.

    The level is the mean of up to 30 s, or the mean of a shorter window less `deviations` standard
    deviations of a Poisson process if that is more. So a rise counts as soon as it is significant,
    and noise does not count.
    """
    level = sum(history[-LEVEL_SECONDS:]) / min(len(history), LEVEL_SECONDS)
    for width in RISE_WINDOWS:
        if width > len(history):
            break
        mean = sum(history[-width:]) / width
        if mean > level:
            level = max(level, mean - deviations * sqrt(mean / width))
    return level


def significant_growth(history: Sequence[float], ahead: float, startup: float) -> float:
    """Return by how much a series of counts per second will have grown in `ahead` seconds; 0 if
    that may be chance.

    Compares the two halves of a window, for each of `SLOPE_WINDOWS`. A difference that a Poisson
    process does not explain counts, and continues for as long as the window is, or for a start-up
    (`startup` seconds, at most `SHORT_AHEAD`); the largest growth is returned.
    """
    largest = 0.0
    for half, deviations in SLOPE_WINDOWS:
        if 2 * half > len(history):
            break
        after = sum(history[-half:]) / half
        before = sum(history[-2 * half : -half]) / half
        chance = sqrt((after + before) / half)
        if after - before > deviations * chance:
            seconds = min(ahead, max(EXTRAPOLATION * half, min(startup, SHORT_AHEAD)))
            largest = max(largest, (after - before) / half * seconds)
    return largest
