"""The latencies of each service over the last hour, for a heat map. Pure.

`history` adds each second; the API reads. Ten seconds are a column of counts, in rows that grow by
the square root of two. A service takes 22 kB.
"""

from array import array
from collections.abc import Mapping
from typing import Final

from meshd.model.history import LatencyMap
from proxy.wire import buckets

STEP: Final = 10
"""Seconds of a column."""
COLUMNS: Final = 360
"""Columns that are kept: an hour."""
_FIRST: Final = 0.0005
"""Upper bound of the first row in seconds: answers in memory are faster."""
ROWS: Final = 30
"""Rows: 29 bounds reach 8 s, the last row has the rest."""
BOUNDS: Final = tuple(round(_FIRST * 2 ** (row / 2), 6) for row in range(ROWS - 1))
_MOST: Final = 65535
"""Largest count of a cell (16 bits); a color cannot show more."""


def _row_of(bucket: int) -> int:
    upper = buckets.upper_bound(bucket)
    return next((row for row, bound in enumerate(BOUNDS) if upper <= bound * 1.0001), ROWS - 1)


_ROW_OF_BUCKET: Final = tuple(_row_of(bucket) for bucket in range(buckets.LAST + 1))


class LatencyRing:
    """The columns of one service. A slot has the number of its step, so that one of an earlier
    round is recognized."""

    def __init__(self) -> None:
        self._numbers = array("I", bytes(4 * COLUMNS))
        self._counts = array("H", bytes(2 * ROWS * COLUMNS))

    @property
    def memory(self) -> int:
        """Bytes of the columns."""
        return COLUMNS * (4 + 2 * ROWS)

    def add(self, second: int, counts: Mapping[int, int]) -> None:
        """Add the answers of a second (Unix time), by bucket of `proxy.wire.buckets`."""
        if not counts:
            return
        number = second // STEP
        slot = number % COLUMNS
        begin = slot * ROWS
        if self._numbers[slot] != number:
            self._numbers[slot] = number
            self._counts[begin : begin + ROWS] = array("H", bytes(2 * ROWS))
        for bucket, count in counts.items():
            place = begin + _ROW_OF_BUCKET[min(bucket, buckets.LAST)]
            self._counts[place] = min(_MOST, self._counts[place] + count)

    def read(self, since: float, until: float) -> LatencyMap:
        """Return the columns from `since` to `until` (Unix times)."""
        first = max(int(since), int(until) - STEP * (COLUMNS - 1)) // STEP
        columns = []
        for number in range(first, int(until) // STEP + 1):
            begin = number % COLUMNS * ROWS
            known = number and self._numbers[number % COLUMNS] == number
            column = tuple(self._counts[begin : begin + ROWS]) if known else ()
            columns.append(column if any(column) else ())
        return LatencyMap(STEP, first * STEP, BOUNDS, tuple(columns))
