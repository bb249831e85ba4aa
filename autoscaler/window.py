"""Leaf functions over short histories kept as tuples, newest last."""

from collections.abc import Sequence
from math import sqrt
from typing import TypeVar

Value = TypeVar("Value")


def push(history: tuple[Value, ...], value: Value, keep: int) -> tuple[Value, ...]:
    """`history` with `value` added, its last `keep` entries."""
    return (*history[1 - keep :], value) if keep > 1 else (value,)


def significant(history: Sequence[float], sure: float = 2.0) -> float:
    """The level of a series of counts a second, as high as the noise allows to say.

    The mean of up to 30 s, or, over a shorter window, as much of the mean as a Poisson process
    would not reach by chance (`sure` standard deviations): a rise counts as soon as it is
    significant, and noise does not.
    """
    level = sum(history[-30:]) / min(len(history), 30)
    for width in (2, 4, 8, 16):
        if width > len(history):
            break
        mean = sum(history[-width:]) / width
        if mean > level:
            level = max(level, mean - sure * sqrt(mean / width))
    return level


HALVES = ((4, 3.5), (8, 2.5), (16, 2.0))
"""Half windows in seconds, and the standard deviations that a rise over each has to exceed."""


def slope(history: Sequence[float]) -> float:
    """How fast a series of counts a second rises, per second; 0 when that may be chance.

    Two half windows of 4, 8 and 16 s are compared. Beyond what a Poisson process would show by
    chance (more standard deviations the shorter the window, because it is extrapolated further
    for its length) the rise is believed.
    """
    best = 0.0
    for half, sure in HALVES:
        if 2 * half > len(history):
            break
        after = sum(history[-half:]) / half
        before = sum(history[-2 * half : -half]) / half
        chance = sqrt((after + before) / half)
        if after - before > sure * chance:
            best = max(best, (after - before) / half)
    return best
