"""When a change of the number of replicas is worth it. Pure.

The policy calls `remember_need` and `lower_count` every second, and `extra_order` when it scales
up.

Every change costs something: a start-up, new connections, cold caches. The setting `calm` gives
this cost in replica-seconds. Both directions use it, so that an avoided change costs about the
same in both:

- Down: surplus replicas are kept until they have cost as much as a change. This is the rule of the
  ski rental problem, which never pays more than twice the optimum. Many surplus replicas go soon, a
  single one goes late.
- Up: at once. While the load rises steadily, some more than needed now are ordered, so that not
  every second orders one: half the economic order quantity `sqrt(2·cost·rise)`, since a rise may
  end at any moment.
"""

from collections.abc import Iterator
from math import ceil, sqrt
from typing import Final

from autoscaler.policy.objectives import ReplicaSizing
from autoscaler.policy.state import CapacityEstimate, DemandEstimate, Removal, State
from autoscaler.settings import ScalingSettings
from autoscaler.window import push

WINDOW: Final = 48
"""Seconds for which a lower number must have been enough, by default. Tuned on the recorded traces
in bench/autoscaling.py."""
BLOCK: Final = 10
"""Seconds of a block, of which only the largest need is kept."""
SURPLUS: Final = 1.35
"""Surplus replicas that, over one window, cost as much as one change: 1.35 × 48 s = 65
replica-seconds, which gave the best balance of misses, replica-hours and changes on the recorded
traces in bench/autoscaling.py."""
USUAL_STARTUP: Final = 14.0
"""Seconds of start-up for which `SURPLUS` holds: as learned in the benchmark's model, in which it
was tuned. The cost grows in proportion to longer ones."""
TIERS: Final = (0.5, 1.0, 2.0, 5.0)
"""Windows over which a surplus is evaluated; after the last one any surplus is removed."""
MAX_CAUTION: Final = 8.0
"""Largest factor on the time for which a lower number must have been enough: only the longest tier
counts then."""
CAUTION_DECAY: Final = 1.0 - 1.0 / 600.0
"""Factor per second on that caution: a memory of ten minutes, as for shortfalls."""
TOLERANCE: Final = 0.1
"""Part of a replica that may be missing before one more is ordered."""
BATCH_SHARE: Final = 0.5
"""Factor under the root of the order quantity: a quarter of 2, which halves the quantity."""
BASE_MARGIN: Final = 0.3
"""Part of a replica that always is kept as a margin when scaling down."""
MARGIN_DEVIATIONS, MARGIN_SECONDS = 3.0, 30.0
"""Standard deviations of the load, as the mean of this many seconds, that the margin covers."""


def down_window(settings: ScalingSettings) -> int:
    """Return the seconds for which a lower number must have been enough. A smaller `calm` than the
    default shortens them."""
    default = WINDOW if settings.calm is None else min(WINDOW, settings.calm / SURPLUS)
    return max(2, round(settings.down_window or default))


def change_cost(settings: ScalingSettings, startup: float, safe: bool = False) -> float:
    """Return the replica-seconds that may be spent to avoid one change. A start-up that takes long
    (`startup` seconds) makes a change that has to be undone more expensive, but not one that is
    `safe`: no rise as remembered would undo it, so that no start-up follows it."""
    if settings.calm is not None:
        return settings.calm
    ratio = 1.0 if safe else max(1.0, startup / USUAL_STARTUP)
    return SURPLUS * down_window(settings) * ratio


def remember_need(
    state: State, need: float, window: int
) -> tuple[tuple[float, ...], tuple[float, ...], int]:
    """Return `needs`, `blocks` and `since_block` of the state with the need of one more second."""
    recent = push(state.needs, need, window)
    if state.since_block + 1 < BLOCK:
        return recent, state.blocks, state.since_block + 1
    return recent, push(state.blocks, max(recent[-BLOCK:]), ceil(TIERS[-1] * window / BLOCK)), 0


def lower_count(
    current: int,
    recent: tuple[float, ...],
    blocks: tuple[float, ...],
    window: int,
    margin: float,
    cost: float,
    unchanged: float,
    caution: float = 1.0,
) -> int:
    """Return the number to scale down to; `current` while no replica may be removed.

    - `recent`, `blocks`: the needs, as `remember_need` keeps them.
    - `window`: seconds, as `down_window` gives them.
    - `margin`: part of a replica to keep for noise.
    - `cost`: replica-seconds of one change.
    - `unchanged`: seconds since the last scale-up. Replicas ordered then have cost nothing before.
    - `caution`: factor on the shortest time for which a lower number must have been enough.
    """
    if not recent or ceil(recent[-1] + margin - TOLERANCE) >= current:
        return current
    lowest = current
    for seconds, peak in _peak_needs(recent, blocks, window):
        if seconds < caution * TIERS[0] * window:
            continue
        count = ceil(peak + margin - TOLERANCE)
        paid = (current - count) * min(seconds, unchanged)
        if count < lowest and (paid >= cost or min(seconds, unchanged) >= TIERS[-1] * window):
            lowest = count
    return lowest


def judge_removal(removal: Removal, current: int, desired: int, cost: float, now: float) -> Removal:
    """Return what is known of removals after a decision for `desired` instead of `current`
    replicas. Replicas that are ordered again before their absence saved half the `cost` of a change
    (replica-seconds) should have stayed: the next ones stay twice as long. So a wave that is
    shorter than the wait is held, and not chased."""
    count = removal.count
    caution = 1.0 + CAUTION_DECAY * (removal.caution - 1.0)
    saved = count * (now - removal.at)
    if count and saved >= cost:
        count = 0
    elif count and desired > current and 2.0 * saved < cost:
        count, caution = 0, min(2.0 * caution, MAX_CAUTION)
    if desired < current:
        return Removal(now, count + current - desired, caution)
    return Removal(removal.at, count, caution)


def _peak_needs(
    recent: tuple[float, ...], blocks: tuple[float, ...], window: int
) -> Iterator[tuple[float, float]]:
    """Yield (seconds, largest need in the last `seconds`) for every tier with enough history."""
    if len(recent) < window:
        return
    for tier in TIERS:
        seconds = tier * window
        if tier <= 1.0:
            yield seconds, max(recent[-max(1, int(seconds)) :])
        elif len(blocks) * BLOCK >= seconds:
            yield seconds, max(*blocks[-ceil(seconds / BLOCK) :], *recent[-BLOCK:])


def extra_order(needed: float, demand: DemandEstimate, cost: float) -> float:
    """Return the replicas to order in addition to the `needed` ones, because the next order would
    follow soon."""
    if demand.rise <= 0.0 or demand.level <= 0.0:
        return 0.0
    return sqrt(BATCH_SHARE * cost * needed * demand.rise / demand.level)


def noise_margin(sizing: ReplicaSizing, capacity: CapacityEstimate) -> float:
    """Return the replicas by which noise may change the estimate."""
    noise = sqrt(sizing.ahead * capacity.present_time / MARGIN_SECONDS)
    return BASE_MARGIN + MARGIN_DEVIATIONS * noise / capacity.proven
