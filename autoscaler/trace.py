"""Turning request counts into rates a second: scaling and interpolation, nothing read here."""

from collections.abc import Sequence


def rates(counts: Sequence[float], bin_seconds: int, peak: float | None) -> list[float]:
    """Requests a second, one value a second, from counts per bin.

    Bins longer than a second are interpolated linearly between their centres. With `peak` the
    whole is scaled so that the 99.9th-percentile minute runs at that many requests a second.
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
    """The percentile with linear interpolation between ranks. Raises IndexError when empty."""
    ranked = sorted(values)
    place = (len(ranked) - 1) * percent / 100.0
    low = int(place)
    high = min(low + 1, len(ranked) - 1)
    return ranked[low] + (ranked[high] - ranked[low]) * (place - low)


def _interpolate(raw: Sequence[float], bin_seconds: int) -> list[float]:
    last, out = len(raw) - 1, []
    for second in range(len(raw) * bin_seconds):
        place = (second + 0.5) / bin_seconds - 0.5
        low = min(max(int(place), 0), last) if place > 0 else 0
        high = min(low + 1, last)
        share = min(max(place - low, 0.0), 1.0)
        out.append(raw[low] + (raw[high] - raw[low]) * share)
    return out
