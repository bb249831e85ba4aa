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


def slope(history: Sequence[float], sure: float = 2.0) -> float:
    """How fast a series of counts a second surely rises, per second; 0 when it may not.

    Two half windows of 4, 8 and 16 s are compared; what a Poisson process would show by chance
    (`sure` standard deviations) is taken off.
    """
    best = 0.0
    for half in (4, 8, 16):
        if 2 * half > len(history):
            break
        after = sum(history[-half:]) / half
        before = sum(history[-2 * half : -half]) / half
        if after > before:
            best = max(best, (after - before - sure * sqrt((after + before) / half)) / half)
    return best
