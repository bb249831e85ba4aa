"""Whether more replicas helped. Pure.

The policy calls `start_check` for a scale-up while requests queue or take longer than the objective
(`is_in_trouble`), and `evaluate` every second.

When the new replicas serve, requests take as long as before, and no more of them get answered, the
bottleneck is elsewhere. The number then goes back and is capped for a while, twice as long each
time. If fewer requests get answered under the cap, or they take much longer, it was wrong and is
lifted.

Every constant without another reason was tuned on the recorded traces in bench/autoscaling.py.
"""

from math import inf
from typing import Final

from msgspec.structs import replace

from autoscaler.policy.capacity import (
    DECAY,
    WARM_UP,
    WARM_UP_WAIT,
    has_free_workers,
    may_have_slow_replicas,
    relative_wait,
)
from autoscaler.policy.state import CapacityEstimate, GainCap, GainCheck
from autoscaler.signals import Signal

FIRST_SPAN, MAX_SPAN = 120.0, 1800.0
"""Seconds of the first cap, and of the longest. A cap that has ended is forgotten after another
`MAX_SPAN`."""
SETTLE: Final = 8.0
"""Seconds that the new replicas serve before they are evaluated: most of the ten seconds that the
sums of `policy.capacity` remember."""
STARTUPS: Final = 1.5
"""Start-up times after the order before the new replicas are evaluated: late ones count too."""
MAX_PENDING: Final = 300.0
"""Seconds after the order when a check without any new replica is given up."""
GAIN_SHARE: Final = 0.25
"""Part of the growth in replicas by which the throughput must grow to count as a gain."""
KEEPS_UP: Final = 0.9
"""Answers per arriving request above which replicas keep up with the load."""
LATENCY_GAIN: Final = 0.8
"""Ratio of the latencies after and before at or below which the scale-up was a gain."""
WAITING: Final = 0.5
"""Wait, in service times, above which requests queue; the latency then is 1.5 service times."""
MORE_LOAD: Final = 1.25
"""Ratio to the present load above which a cap does not apply: the load is new."""
LOST_SHARE: Final = 0.9
"""Ratio to the present throughput below which a cap costs answers, so it is lifted."""
LOST_LATENCY: Final = 1.5
"""Ratio of the latency under a cap to the one before it above which the cap delays answers, so it
is lifted: the replicas that it removed were needed."""


def is_in_trouble(capacity: CapacityEstimate, objective: float | None) -> bool:
    """Return whether a mean request of the last ten seconds waits long, or would take longer than
    the objective (seconds; None: no objective) even without waiting."""
    return relative_wait(capacity) > WAITING or capacity.present_time > (objective or inf)


def start_check(capacity: CapacityEstimate, signal: Signal, now: float) -> GainCheck:
    """Return the check of a scale-up that is ordered now."""
    return GainCheck(now, signal.ready, *_throughput_and_latency(capacity))


def evaluate(
    check: GainCheck | None,
    cap: GainCap | None,
    capacity: CapacityEstimate,
    signal: Signal,
    desired: int,
    rate: float,
    objective: float | None,
    now: float,
) -> tuple[GainCheck | None, GainCap | None]:
    """Return the check that is still open, and the cap that applies or ended recently. `desired`
    is the number decided last, `rate` the present load in requests per second, and `objective` a
    latency in seconds."""
    throughput, latency = _throughput_and_latency(capacity)
    trouble = is_in_trouble(capacity, objective)
    if cap and (now > cap.until + MAX_SPAN or (trouble and _is_wrong(cap, throughput, latency))):
        cap = None
    if check is None or desired <= check.ready:
        return None, cap  # An order that was revoked shows nothing.
    if signal.ready <= check.ready:
        # Until the first new replica serves, compare with what the old ones do under this load.
        check = replace(check, throughput=throughput, latency=latency, served=None)
        return (None if now > check.since + MAX_PENDING else check), cap
    served = now if check.served is None else check.served
    if now < max(check.since + STARTUPS * capacity.planned_startup, served) + SETTLE:
        return replace(check, served=served), cap
    growth = signal.ready / max(check.ready, 1) - 1.0
    better = throughput >= check.throughput * (1.0 + GAIN_SHARE * growth)
    # More than arrives cannot be answered: it is a gain if the old replicas did not keep up.
    better = better or throughput >= KEEPS_UP * rate > check.throughput
    # The sums may still contain a queue that is gone.
    least = min((1.0 + WAITING) * capacity.service_time, objective or inf)
    waits = trouble and signal.latency_sum > least * signal.completions
    if better or latency <= LATENCY_GAIN * check.latency or not waits:
        return None, None if cap and now > cap.until else cap
    if signal.latency_sum < LATENCY_GAIN * latency * signal.completions:
        return replace(check, served=served), cap  # Answers become quicker: the queue drains.
    warming_up = now < served + WARM_UP and has_free_workers(capacity, WARM_UP_WAIT)
    if warming_up or may_have_slow_replicas(capacity):
        return replace(check, served=served), cap  # The new replicas may be slow at first.
    span = min(2.0 * cap.span, MAX_SPAN) if cap else FIRST_SPAN
    number = max(check.ready, 1)
    return None, GainCap(
        number,
        now + span,
        span,
        MORE_LOAD * rate,
        LOST_SHARE * throughput,
        added=signal.ready - check.ready,
        latency=(check.latency, latency),
    )


def active_cap(cap: GainCap | None, rate: float, now: float) -> GainCap | None:
    """Return the cap if it applies to the load; None otherwise."""
    return cap if cap and now < cap.until and rate <= cap.rate else None


def _is_wrong(cap: GainCap, throughput: float, latency: float) -> bool:
    """Return whether the replicas that the cap removed are missing now."""
    return throughput < cap.throughput or latency > LOST_LATENCY * max(cap.latency)


def _throughput_and_latency(capacity: CapacityEstimate) -> tuple[float, float]:
    """Return (answers per second, mean latency) of the last ten seconds."""
    done = capacity.completions
    return done * (1.0 - DECAY), capacity.latency / done if done else 0.0
