"""Whether a service misses its latency objective. Pure.

`meshd.control.recorder` asks once a second. A single slow request is not a breach: the share of
misses must be far above the allowed one, over some seconds and requests.
"""

from typing import Final

from meshd.telemetry.merge import MergedService

WINDOW: Final = 10
"""Seconds that are looked at: long enough for a share, short enough that the requests that missed
the objective are still in the memory of the workers."""
MIN_REQUESTS: Final = 50
"""Requests in the window without which a share says little."""
BURN_RATE: Final = 6.0
"""Multiple of the allowed share of misses from which on an objective is breached; the second of the
two page alerts of the SRE Workbook (chapter 5)."""


def describe_breach(merged: MergedService, latency: float, share: float) -> str | None:
    """Return how an objective is missed: that `share` percent of the responses take at most
    `latency` seconds. None if it is not. Responses with 5xx count as misses."""
    total = merged.total.count
    if total < MIN_REQUESTS:
        return None
    slow = sum(count for bound, count in merged.total.upper_bounds() if bound > latency)
    misses = min(total, max(slow, merged.errors))
    # In percent, so that shares like 95 are exact.
    if 100.0 * misses < total * min(BURN_RATE * max(100.0 - share, 0.1), 50.0):
        return None
    return (
        f"objective missed: {100.0 * (1.0 - misses / total):.1f} % of {total} requests within "
        f"{1000.0 * latency:g} ms in {WINDOW} s; expected {share:g} %"
    )
