"""The error budget: how many requests may miss the objective, and how many did. Pure.

An objective of 99.6 % allows 0.4 % of the requests to miss. The more may miss, the less headroom a
service gets. The misses of the last hour then correct this: a service that uses up its budget too
fast gets more headroom, and one that does not gets less. `policy.objectives` uses the result.
"""

from math import log10, sqrt
from typing import Final

from autoscaler.settings import ScalingSettings
from autoscaler.signals import Signal

DECAY: Final = 1.0 - 1.0 / 3600.0
"""Factor per second on requests and misses: a memory of one hour."""
PRIOR_SECONDS: Final = 300.0
"""Seconds of traffic assumed to have met the objective exactly, so that a short history has little
weight. Tuned on the recorded traces in bench/autoscaling.py."""
MIN_BURN, MAX_BURN = 0.25, 8.0
"""Bounds of the burn rate. The lower one keeps a quarter of the headroom's caution of an objective
just met."""
MIN_STAFFING_BURN: Final = 0.5
"""Least burn rate that counts for the staffing factor: it covers chance, which does not go away."""
BURN_POWER: Final = 3.0
"""Power of a burn rate above 1 in the headroom's caution. In proportion to it, the caution would
settle only where the budget is exceeded by as much as the caution must grow."""
LONG_STARTUP: Final = 12.0
"""Seconds of start-up above which a shortfall has more weight. A bit more than the mean start-up
of the benchmark's model (5 to 15 s)."""
UNCOVERED_PER_PERCENT, MAX_UNCOVERED = 0.15, 0.06
"""Share of the shortfalls that the headroom leaves uncovered while the budget is used exactly: for
each percent of the requests that may miss, and at most. An objective of 98 % gets no less headroom
than one of 99.6 % from the start, because every request misses until replicas have started. Tuned
on the recorded traces in bench/autoscaling.py."""
LAX_PERCENT, UNCOVERED_PER_LAX_PERCENT = 2.0, 0.5
"""Percent of the requests that may miss up to which this holds, and the share that stays uncovered
for each further percent: a burst now and then is within this budget, for example that of an
objective for the 95th percentile. So the median is covered until the budget is exceeded."""
MAX_SHORTFALL: Final = 0.5
"""Largest share of shortfalls that the headroom may leave uncovered: it covers at least the
median."""
MAX_CAUTION: Final = 4.0
"""Most caution: a part of the share above, before what a lax objective adds, stays uncovered, about
a hundredth of the shortfalls at 99.6 % and below. More caution costs replicas and covers hardly
anything. So it bounds the caution for long start-ups too."""
# See the docstring below both.
BETA_PER_DECADE: Final = 0.15
SQUARED_DECADES_PER_BETA: Final = 16.0
"""Square-root staffing factor per decade of rarity, and squared decades per factor; the larger
result counts. One decade is an objective of 90 %, two are 99 %. Tuned on the recorded traces in
bench/autoscaling.py."""


def observe(
    old: tuple[float, float], signal: Signal, settings: ScalingSettings
) -> tuple[float, float]:
    """Return the decayed (requests, misses) with one more second."""
    if settings.latency is None:
        return old
    return (
        DECAY * old[0] + signal.arrivals,
        DECAY * old[1] + signal.misses(settings.latency),
    )


def burn_rate(budget: tuple[float, float], share: float, rate: float) -> float:
    """Return misses per allowed miss, within `MIN_BURN` and `MAX_BURN`; 1 meets the objective
    exactly. `rate` is the present load in requests per second."""
    allowed = 1.0 - share / 100.0
    prior = (PRIOR_SECONDS * rate + 1.0) * allowed
    value = (budget[1] + prior) / (budget[0] * allowed + prior)
    return min(max(value, MIN_BURN), MAX_BURN)


def sizing_caution(share: float, burning: float, startup: float) -> tuple[float, float]:
    """Return (quantile of the shortfalls to keep headroom for, square-root staffing factor).

    A shortfall lasts until new replicas have started. So the longer a start-up takes (`startup`
    seconds), the rarer a shortfall may be.
    """
    allowed = 100.0 - share
    slow = max(1.0, startup / LONG_STARTUP)
    decades = log10(100.0 / allowed)
    per_decade = max(BETA_PER_DECADE * decades, decades**2 / SQUARED_DECADES_PER_BETA)
    beta = per_decade * sqrt(min(max(burning, MIN_STAFFING_BURN) * slow, MAX_BURN))
    caution = max(burning, burning**BURN_POWER) * slow
    strict = min(UNCOVERED_PER_PERCENT * allowed, MAX_UNCOVERED)
    lax = UNCOVERED_PER_LAX_PERCENT * max(0.0, allowed - LAX_PERCENT)
    uncovered = max((strict + lax) / caution, strict / MAX_CAUTION)
    return 1.0 - min(MAX_SHORTFALL, uncovered), beta
