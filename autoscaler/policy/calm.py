"""When surplus replicas may go: not on noise, and not only to be wanted back.

A large surplus goes when it has lasted a short window, a huge one after half of it. A small one
goes only after a window five times as long, and by a margin that covers what chance does to the
estimate.
"""

from math import ceil, sqrt

from autoscaler.policy.objectives import Sizing
from autoscaler.policy.state import Capacity, State
from autoscaler.window import push

WINDOW = 60
BLOCK = 10
HUGE, LARGE = 0.4, 0.2
"""Shares of the replicas that count as a huge and as a large surplus."""
ROUND = 0.1
"""Replicas that may be missing without one more being wanted."""


def remember(
    state: State, need: float, window: int
) -> tuple[tuple[float, ...], tuple[float, ...], int]:
    """`needs`, `blocks` and `since_block` with one second's need added."""
    recent = push(state.needs, need, window)
    if state.since_block + 1 < BLOCK:
        return recent, state.blocks, state.since_block + 1
    return recent, push(state.blocks, max(recent[-BLOCK:]), max(1, window // 2)), 0


def lower(
    current: int,
    recent: tuple[float, ...],
    blocks: tuple[float, ...],
    window: int,
    margin: float,
) -> int:
    """The number to go down to; `current` when nothing may go yet."""
    if len(recent) < window:
        return current
    soon = ceil(max(recent[-max(1, window // 2) :]) - ROUND)
    if soon <= current * (1.0 - HUGE):
        return soon
    low = ceil(max(recent) - ROUND)
    if low <= current * (1.0 - LARGE):
        return low
    if low < current and len(blocks) >= max(1, window // 2):
        return min(current, max(low, ceil(max(blocks) + margin)))
    return current


def margin(sizing: Sizing, capacity: Capacity) -> float:
    """Replicas that noise may move the estimate by: three deviations of a 30 s mean."""
    return 0.3 + 3.0 * sqrt(sizing.ahead * capacity.service_time / 30.0) / capacity.proven
