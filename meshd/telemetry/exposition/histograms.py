"""The buckets of an exposed histogram, classic and native, from those of the proxy. Pure.

The encoders `text` and `protobuf` call it. The proxy's own buckets (`proxy.wire.buckets`) are at
most 3 % wide. Each counts under the first exposed bound that it lies wholly below, so an exposed
quantile is never too low.
"""

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from math import ceil, inf, log2
from typing import Final, NamedTuple

from meshd.telemetry.merge import Distribution
from proxy.wire import buckets
from proxy.wire.report import Exemplar

EDGES: Final = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
)  # fmt: skip
"""Upper bounds of the exposed classic histograms in seconds."""
ROUNDING: Final = 1e-9
"""Relative error of a bucket's bound as a floating-point number."""
SCHEMA: Final = 3
"""Resolution of native histograms: 2 ** 3 buckets for each power of two, so a bucket is 9 % wide;
finer ones would claim more than buckets of 3 % can say."""
GAP: Final = 2
"""Empty native buckets that are sent between two occupied ones rather than a new span: a span takes
more bytes than two zeros."""


class NativeBuckets(NamedTuple):
    """Occupied buckets of a native histogram.

    - `spans`: (buckets skipped, buckets that follow); the first offset is an index.
    - `deltas`: the difference of each bucket's count to that of the one before.
    """

    spans: tuple[tuple[int, int], ...]
    deltas: tuple[int, ...]


def exposed_buckets(
    merged: Distribution, edges: tuple[float, ...] = EDGES
) -> list[tuple[float, int]]:
    """Return the cumulative (upper edge, count) pairs; the last edge is infinite."""
    sums, numbers = [0] * (len(edges) + 1), _edge_numbers(edges)
    for bucket, count in merged.counts.items():
        sums[numbers[bucket]] += count
    found: list[tuple[float, int]] = []
    total = 0
    for edge, count in zip((*edges, inf), sums, strict=True):
        total += count
        found.append((edge, total))
    return found


def native_buckets(merged: Distribution) -> NativeBuckets:
    """Return the occupied buckets of schema `SCHEMA`.

    https://prometheus.io/docs/specs/native_histograms/
    """
    counts, places = [0] * (_NATIVE[-1] - _NATIVE[0] + 1), _PLACES
    for bucket, count in merged.counts.items():
        counts[places[bucket]] += count
    spans: list[tuple[int, int]] = []
    deltas: list[int] = []
    end = last = 0
    for index, count in enumerate(counts, _NATIVE[0]):
        if not count:
            continue
        gap = index - end
        if spans and gap <= GAP:
            spans[-1] = (spans[-1][0], spans[-1][1] + gap + 1)
            for _ in range(gap):
                deltas.append(-last)
                last = 0
        else:
            spans.append((gap, 1))
        deltas.append(count - last)
        end, last = index + 1, count
    return NativeBuckets(tuple(spans), tuple(deltas))


def exemplars_by_edge(
    exemplars: Iterable[Exemplar], edges: Sequence[float] = EDGES
) -> Mapping[int, Exemplar]:
    """Return the newest exemplar of each classic bucket, by its number."""
    found: dict[int, Exemplar] = {}
    for each in exemplars:
        number = next((n for n, edge in enumerate(edges) if each.seconds <= edge), len(edges))
        if number not in found or found[number].at <= each.at:
            found[number] = each
    return found


@cache  # bounded: there are two sets of edges
def _edge_numbers(edges: tuple[float, ...]) -> tuple[int, ...]:
    """Return the number of the classic bucket of each bucket of the proxy."""
    bounds = (buckets.upper_bound(bucket) * (1 - ROUNDING) for bucket in range(buckets.LAST + 1))
    return tuple(bisect_left(edges, bound) for bound in bounds)


_NATIVE: Final = tuple(
    ceil(log2(buckets.upper_bound(bucket)) * 2**SCHEMA - ROUNDING)
    for bucket in range(buckets.LAST + 1)
)
"""Index of the native bucket of each bucket of the proxy."""
_PLACES: Final = tuple(index - _NATIVE[0] for index in _NATIVE)
"""The same, counted from the first one."""
