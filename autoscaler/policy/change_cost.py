"""When a change is worth it: not on noise, and not only to be taken back.

Every change of the number costs: a start-up, connections made anew, caches cold. What it is worth
is given in replica-seconds (`calm`), and both directions go by it, so that each change that is
saved costs about the same wherever it is saved.

- Down: replicas too many are kept until what they have cost comes to the worth of a change (the
  rule of the ski rental problem, which never pays more than twice what hindsight would): many go
  soon, a single one only after long.
- Up: at once, and while the load rises steadily by a part more than is needed now, so that not
  every second brings an order of its own: half the economic order quantity `sqrt(2·worth·rise)`,
  as a rise may end at any moment.
"""

from collections.abc import Iterator
from math import ceil, sqrt

from autoscaler.policy.objectives import ReplicaSizing
from autoscaler.policy.state import Capacity, Demand, State
from autoscaler.settings import ScalingSettings
from autoscaler.window import push

WINDOW = 48
BLOCK = 10
SURPLUS = 1.35
"""Replicas too many that, for a window, are worth one change."""
TIERS = (0.5, 1.0, 2.0, 5.0)
"""Windows after which a surplus is looked at; after the last one any surplus goes."""
ROUND = 0.1
"""Replicas that may be missing without one more being wanted."""


def window(settings: ScalingSettings) -> int:
    """Seconds over which less must have been enough; with less `calm` than usual they are fewer."""
    usual = WINDOW if settings.calm is None else min(WINDOW, settings.calm / SURPLUS)
    return max(2, round(settings.down_window or usual))


def worth(settings: ScalingSettings) -> float:
    """Replica-seconds that one change may cost to be saved."""
    return SURPLUS * window(settings) if settings.calm is None else settings.calm


def remember(
    state: State, need: float, window: int
) -> tuple[tuple[float, ...], tuple[float, ...], int]:
    """`needs`, `blocks` and `since_block` with one second's need added."""
    recent = push(state.needs, need, window)
    if state.since_block + 1 < BLOCK:
        return recent, state.blocks, state.since_block + 1
    return recent, push(state.blocks, max(recent[-BLOCK:]), ceil(TIERS[-1] * window / BLOCK)), 0


def lower(
    current: int,
    recent: tuple[float, ...],
    blocks: tuple[float, ...],
    window: int,
    margin: float,
    worth: float,
    held: float,
) -> int:
    """The number to go down to; `current` when nothing may go yet. `held`: seconds since the
    last order, before which nobody paid for the replicas there are."""
    if not recent or ceil(recent[-1] + margin - ROUND) >= current:
        return current
    best = current
    for seconds, peak in _peaks(recent, blocks, window):
        low = ceil(peak + margin - ROUND)
        paid = (current - low) * min(seconds, held)
        if low < best and (paid >= worth or min(seconds, held) >= TIERS[-1] * window):
            best = low
    return best


def _peaks(
    recent: tuple[float, ...], blocks: tuple[float, ...], window: int
) -> Iterator[tuple[float, float]]:
    """(seconds, the largest need in so many) for every tier that there is history for."""
    if len(recent) < window:
        return
    for tier in TIERS:
        seconds = tier * window
        if tier <= 1.0:
            yield seconds, max(recent[-max(1, int(seconds)) :])
        elif len(blocks) * BLOCK >= seconds:
            yield seconds, max(*blocks[-ceil(seconds / BLOCK) :], *recent[-BLOCK:])


def batch(needed: float, demand: Demand, worth: float) -> float:
    """Replicas to order beyond the `needed` ones, because the next order would follow soon."""
    if demand.rise <= 0.0 or demand.level <= 0.0:
        return 0.0
    return sqrt(0.5 * worth * needed * demand.rise / demand.level)


def margin(sizing: ReplicaSizing, capacity: Capacity) -> float:
    """Replicas that noise may move the estimate by: three deviations of a 30 s mean."""
    return 0.3 + 3.0 * sqrt(sizing.ahead * capacity.service_time / 30.0) / capacity.proven
