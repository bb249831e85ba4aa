"""A latency histogram with one writer, drained once per interval.

`proxy.observe.counters` owns the recorders; the bucket layout is that of `proxy.wire.buckets`.
"""

from typing import Final

from proxy.wire.buckets import LAST, LINEAR_BITS
from proxy.wire.report import Histogram

_LINEAR: Final = 1 << LINEAR_BITS
_EMPTY: Final = Histogram()


class HistogramRecorder:
    """Counts latencies in buckets.

    A mesh has thousands of recorders, most of them idle. An idle one has no buckets; the first
    latency recorded allocates them.
    """

    __slots__ = ("_counts", "_sum")

    def __init__(self) -> None:
        self._counts: list[int] = []
        self._sum = 0.0

    def record(self, seconds: float) -> None:
        """Count one latency; a negative one (the clock went back) counts as 0."""
        # `buckets.index`, inlined: it saves a call on the path of every request.
        units = int(seconds * 10_000.0)
        if units < _LINEAR:
            bucket = units if units > 0 else 0
        else:
            shift = units.bit_length() - 6
            bucket = (shift << 5) + (units >> shift)
            if bucket > LAST:
                bucket = LAST
        try:
            self._counts[bucket] += 1
        except IndexError:
            self._allocate()[bucket] = 1
        self._sum += seconds

    def record_bucket(self, bucket: int, seconds: float) -> None:
        """Count one latency whose bucket is known."""
        try:
            # Compiled, an addition to an `int` costs half of one to an item of a list.
            count: int = self._counts[bucket]
            self._counts[bucket] = count + 1
        except IndexError:
            self._allocate()[bucket] = 1
        self._sum += seconds

    def _allocate(self) -> list[int]:
        self._counts = [0] * (LAST + 1)
        return self._counts

    def merge(self, other: "HistogramRecorder") -> None:
        """Add the counts of another recorder."""
        if not other._counts:
            return
        if not self._counts:
            self._allocate()
        for bucket, count in enumerate(other._counts):
            if count:
                self._counts[bucket] += count
        self._sum += other._sum

    def drain(self) -> Histogram:
        """Return what was recorded since the last call, and reset the recorder."""
        if not self._counts:
            return _EMPTY
        counts = {bucket: count for bucket, count in enumerate(self._counts) if count}
        drained = Histogram(counts=counts, sum=self._sum)
        self._counts = [0] * (LAST + 1) if counts else []
        self._sum = 0.0
        return drained
