"""The bucket layout of latency histograms: log-linear, as in HdrHistogram. Pure.

Workers record in these buckets (`proxy.observe.histogram`); the control plane reads them. Times
are in units of 100 µs. Values below 32 units have a bucket each. Above, every power of two is
divided into 32 buckets, so a bucket is at most 1/32 (about 3 %) wide.
"""

from collections.abc import Mapping
from typing import Final

UNIT: Final = 1e-4
"""Seconds."""
LINEAR_BITS: Final = 5
"""Binary logarithm of the buckets per power of two."""
_LINEAR: Final = 1 << LINEAR_BITS
LAST: Final = 27 * _LINEAR - 1
"""Index of the last bucket; its upper bound is 2 ** 31 units, about 60 hours."""


def index(seconds: float) -> int:
    """Return the bucket of a latency in seconds."""
    units = int(seconds * 10_000.0)
    if units < _LINEAR:
        return units if units > 0 else 0
    shift = units.bit_length() - LINEAR_BITS - 1
    found = (shift << LINEAR_BITS) + (units >> shift)
    return found if found < LAST else LAST


def upper_bound(bucket: int) -> float:
    """Return the exclusive upper bound of a bucket in seconds."""
    if bucket < _LINEAR:
        return (bucket + 1) * UNIT
    shift = (bucket >> LINEAR_BITS) - 1
    return float(((bucket - (shift << LINEAR_BITS)) + 1) << shift) * UNIT


def quantile(counts: Mapping[int, int], q: float) -> float | None:
    """Return the upper bound in seconds of the q-quantile, q from 0 to 1; None without counts."""
    total = sum(counts.values())
    if not total:
        return None
    rank = q * total
    seen = 0
    for bucket in sorted(counts):
        seen += counts[bucket]
        if seen >= rank:
            return upper_bound(bucket)
    return upper_bound(max(counts))
