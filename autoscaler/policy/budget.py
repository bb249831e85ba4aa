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
MIN_BURN, MAX_BURN = 0.5, 8.0
"""Bounds of the burn rate. The lower one keeps half of the caution of an objective just met.
With the upper one about a hundredth of the shortfalls stay uncovered at 99.6 %: more caution than
that costs replicas and covers hardly anything, so that it bounds the caution for long start-ups
too."""
LONG_STARTUP: Final = 12.0
"""Seconds of start-up above which a shortfall has more weight. A bit more than the mean start-up
of the benchmark's model (5 to 15 s)."""
MISS_SHARE: Final = 0.3
"""Share of the error budget that the headroom may use up. Tuned on the recorded traces in
bench/autoscaling.py."""
MAX_SHORTFALL: Final = 0.5
"""Largest share of shortfalls that the headroom may leave uncovered: it covers at least the
median."""
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
    caution = min(burning * slow, MAX_BURN)
    beta = max(BETA_PER_DECADE * decades, decades**2 / SQUARED_DECADES_PER_BETA) * sqrt(caution)
    return 1.0 - min(MAX_SHORTFALL, MISS_SHARE * allowed / caution), beta
