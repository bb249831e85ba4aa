"""Request counts of a trace → rates per second: interpolation and scaling. Pure.

`meshd simulate` and the benchmark read the files; this module only calculates.
"""

from collections.abc import Sequence


def rates_of(counts: Sequence[float], bin_seconds: int, peak: float | None) -> list[float]:
    """Return requests per second, one value for each second, from counts per bin.

    Bins longer than a second are interpolated linearly between their centres. With `peak`, all
    rates are scaled so that the 99.9th-percentile minute has this rate.
    """
    raw = [count / bin_seconds for count in counts]
    if bin_seconds > 1:
        raw = _interpolate(raw, bin_seconds)
    if peak is None or not raw:
        return raw
    minutes = [sum(raw[at : at + 60]) / 60.0 for at in range(0, len(raw) - 59, 60)] or raw
    top = percentile(minutes, 99.9)
    return [rate * peak / top for rate in raw] if top > 0 else raw


def percentile(values: Sequence[float], percent: float) -> float:
    """Return a percentile, interpolated linearly between ranks. Raises IndexError if empty."""
    ranked = sorted(values)
    rank = (len(ranked) - 1) * percent / 100.0
    low = int(rank)
    high = min(low + 1, len(ranked) - 1)
    return ranked[low] + (ranked[high] - ranked[low]) * (rank - low)


def _interpolate(raw: Sequence[float], bin_seconds: int) -> list[float]:
    last, rates = len(raw) - 1, []
    for second in range(len(raw) * bin_seconds):
        position = (second + 0.5) / bin_seconds - 0.5
        low = min(max(int(position), 0), last) if position > 0 else 0
        high = min(low + 1, last)
        share = min(max(position - low, 0.0), 1.0)
        rates.append(raw[low] + (raw[high] - raw[low]) * share)
    return rates
