"""The error budget: how many requests may miss the objective, and how many did.

An objective of 99.6 % leaves 0.4 % of the requests to miss. Sizing starts from that share: the
more may miss, the less headroom. Then it goes by what really happened: a service that burns
its budget faster than it accrues gets more headroom, one that does not gets less.
"""

from math import log10, sqrt

from autoscaler.settings import ScalingSettings
from autoscaler.signals import Signal

MEMORY = 1.0 - 1.0 / 3600.0
PRIOR = 600.0
"""Seconds of traffic that are assumed to have gone to plan, so that little data says little."""
LEAST, MOST = 0.5, 2.0
USUAL_START = 12.0
"""Seconds of start-up above which shortfalls weigh more."""


def observe(
    old: tuple[float, float], signal: Signal, settings: ScalingSettings
) -> tuple[float, float]:
    """Decayed (requests, misses) over about an hour."""
    if settings.latency is None:
        return old
    return (
        MEMORY * old[0] + signal.arrivals,
        MEMORY * old[1] + signal.misses(settings.latency),
    )


def burn(budget: tuple[float, float], share: float, rate: float) -> float:
    """Misses per allowed miss, within `LEAST` and `MOST`; 1 is exactly to plan."""
    allowed = 1.0 - share / 100.0
    planned = (PRIOR * rate + 1.0) * allowed
    value = (budget[1] + planned) / (budget[0] * allowed + planned)
    return min(max(value, LEAST), MOST)


def caution(share: float, burning: float, startup: float) -> tuple[float, float]:
    """(quantile of the shortfalls to have headroom for, square-root staffing factor). What falls
    short does so until replicas have started, so the longer that takes, the rarer it may be."""
    allowed = 100.0 - share
    slow = max(1.0, startup / USUAL_START)
    rare = log10(100.0 / allowed)
    beta = max(0.15 * rare, rare**2 / 16.0) * sqrt(burning * slow)
    return 1.0 - min(0.5, 0.3 * allowed / (burning * slow)), beta
