"""A latency histogram that is recorded into by one writer and drained once an interval."""

from typing import Final

from proxy.wire.buckets import LAST, LINEAR_BITS
from proxy.wire.report import Histogram

_LINEAR: Final = 1 << LINEAR_BITS
_NOTHING: Final = Histogram()


class HistogramRecorder:
    """Counts in the buckets of `proxy.wire.buckets`.

    A mesh has thousands of recorders and most of them are idle: such a one holds no buckets,
    and is given them by the first record after that.
    """

    __slots__ = ("_counts", "_sum")

    def __init__(self) -> None:
        self._counts: list[int] = []
        self._sum = 0.0

    def record(self, seconds: float) -> None:
        """Counts one time; what is negative (a clock's whim) counts as 0."""
        # `buckets.index`, written out: a call less on the path of every request.
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
            self._begin()[bucket] = 1
        self._sum += seconds

    def record_bucket(self, bucket: int, seconds: float) -> None:
        """Counts one time whose bucket is known already."""
        try:
            self._counts[bucket] += 1
        except IndexError:
            self._begin()[bucket] = 1
        self._sum += seconds

    def _begin(self) -> list[int]:
        self._counts = [0] * (LAST + 1)
        return self._counts

    def merge(self, other: "HistogramRecorder") -> None:
        """Adds what another one has recorded."""
        if not other._counts:
            return
        if not self._counts:
            self._begin()
        for bucket, count in enumerate(other._counts):
            if count:
                self._counts[bucket] += count
        self._sum += other._sum

    def drain(self) -> Histogram:
        """What was recorded since the last call; empties the recorder."""
        if not self._counts:
            return _NOTHING
        counts = {bucket: count for bucket, count in enumerate(self._counts) if count}
        drained = Histogram(counts=counts, sum=self._sum)
        self._counts = [0] * (LAST + 1) if counts else []
        self._sum = 0.0
        return drained
